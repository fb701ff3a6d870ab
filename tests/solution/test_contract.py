"""The contract of solutions, for every method, and for a solution that a user writes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import norm
from tests.unchecked import unchecked_types

import bohmdiff as bd
import bohmdiff.testing

KEY = jax.random.key(4)
TS = jnp.linspace(0.0, 1.0, 11)
# A squeezed, moving packet in a harmonic trap, in closed form.
CASE = bohmdiff.testing.DrivenGaussian(
    mass=[1.0], hbar=1.0, stiffness=[[1.0]], centre=[0.2], drive=[0.0], frequency=6.0, mean=[0.5],
    covariance=[[0.4]], momentum=[0.6], chirp=[[0.1]],
)  # fmt: skip
PROBLEM = CASE.problem()


def gaussian():
    return bd.GaussianDynamics(steps=50)


def given():
    return bd.GivenScore(bd.solve(PROBLEM, gaussian()).fitted, bd.GaussHermitePoints(8), steps=16)


def trained():
    score = bd.NeuralScore(PROBLEM, baseline=bd.solve(PROBLEM, gaussian()), width=2, depth=1, key=KEY)
    return bd.SelfConsistentScoreMatching(score, particles=16, training=bd.Training(epochs=1), steps=8)


def velocities():
    u, v = bd.velocity_networks(PROBLEM, width=6, depth=1, key=KEY)
    return bd.DeepStochasticMechanics(u, v, training=bd.Training(epochs=60), particles=128)


def network():
    psi = bd.NeuralWaveFunction(PROBLEM, width=6, depth=1, key=KEY)
    return bd.PhysicsInformedNetwork(psi, training=bd.Training(epochs=60), particles=256)


METHODS = {
    "GaussianDynamics": gaussian,
    "SequentialScoreMatching": lambda: bd.SequentialScoreMatching(degree=4, steps=16),
    "AutomaticDegree": lambda: bd.AutomaticDegree(largest=4),
    "SplitOperator": lambda: bd.SplitOperator(points=64, lower=-7.0, upper=7.0, steps=60),
    "HermiteFunctions": lambda: bd.HermiteFunctions(degree=24),
    "GivenScore": given,
    "SelfConsistentScoreMatching": trained,
    "DeepStochasticMechanics": velocities,
    "PhysicsInformedNetwork": network,
}
SLOW = {"AutomaticDegree", "GaussianDynamics", "GivenScore", "HermiteFunctions"}
LONG = {"SelfConsistentScoreMatching", "DeepStochasticMechanics", "PhysicsInformedNetwork"}
EACH = [
    pytest.param(name, marks=pytest.mark.long if name in LONG else pytest.mark.slow if name in SLOW else [])
    for name in METHODS
]
SOLUTIONS = {}


def solutions(name):
    """Two equal solves."""
    if name not in SOLUTIONS:
        method = METHODS[name]()
        SOLUTIONS[name] = [bd.solve(PROBLEM, method, ts=TS, key=KEY) for _ in range(2)]
    return SOLUTIONS[name]


def exact_std():
    return np.asarray(CASE.moments(TS).std)[:, 0]


def test_every_method_is_here():
    named = {name for name in vars(bd) if isinstance(vars(bd)[name], type)}
    methods = {n for n in named if issubclass(vars(bd)[n], bd.AbstractMethod) and "Abstract" not in n}
    assert methods == set(METHODS)


@pytest.mark.parametrize("name", EACH)
def test_obeys_the_law(name):
    tolerance = 0.1 if name in LONG else 1e-2
    bohmdiff.testing.check_solution(*solutions(name), tolerance=tolerance)


@pytest.mark.parametrize("name", EACH)
def test_what_every_solution_gives(name):
    solution, _ = solutions(name)
    loose = 0.05 if name in LONG else 2e-3
    moments, k = CASE.moments(TS), TS.size
    std = exact_std()
    quartic = np.asarray(solution.expectation(lambda x: x**4))
    mean = np.asarray(moments.mean)[:, 0]
    expected = mean**4 + 6 * mean**2 * std**2 + 3 * std**4
    np.testing.assert_allclose(quartic[:, 0], expected, rtol=10 * loose)
    both = solution.expectation(lambda t, x: {"a": t * x[0], "b": jnp.outer(x, x)}, with_time=True)
    np.testing.assert_allclose(both["a"], TS * mean, atol=2 * loose)
    assert both["b"].shape == (k, 1, 1)
    np.testing.assert_allclose(solution.covariance()[:, 0, 0], std**2, rtol=4 * loose)
    x = jnp.array([0.4])
    np.testing.assert_allclose(solution.velocity(0.6, x), CASE.velocity(0.6, x), atol=5 * loose)
    paths = solution.trajectories(jnp.array([[0.1], [0.9]]))
    assert paths.shape == (2, k, 1)
    moved = (
        CASE.centre_at(1.0)[0] + (jnp.array([[0.1], [0.9]]) - 0.5) * CASE.integrals(1.0).deformation[0, 0]
    )
    np.testing.assert_allclose(paths[:, -1], moved, atol=5 * loose)
    assert bool(solution.diagnostics.holds)
    text = repr(solution)
    assert len(text.splitlines()) == 5
    assert "SplitOperator" not in text or name == "SplitOperator"


@pytest.mark.parametrize("name", EACH)
@pytest.mark.parametrize("share", [-1.3, -0.21, 0.0, 0.6, 1.7])
def test_probability_of_half_spaces(name, share):
    """The boundary lies anywhere between the particles or the points of a grid."""
    solution, _ = solutions(name)
    mean, std = (np.asarray(m)[:, 0] for m in CASE.moments(TS)[:2])
    edge = float(mean[-1] + share * std[-1])
    p, error = solution.probability(lambda x: x[0] > edge, with_error=True)
    exact = norm.sf((edge - mean) / std)
    np.testing.assert_allclose(p, exact, atol=0.05 if name in LONG else 5e-3)
    assert np.all(np.asarray(error) < 5e-3)


@pytest.mark.parametrize("name", ["GaussianDynamics", "SequentialScoreMatching", "SplitOperator"])
def test_autocorrelation_and_overlap(name):
    """Against the integral of the closed form over a fine grid."""
    solution, _ = solutions(name)
    exact, _ = solutions("GaussianDynamics")
    axis = jnp.linspace(-6.0, 6.0, 2001)[:, None]
    step = 12.0 / 2000
    start = jax.vmap(lambda x: exact.wave_function(0.0, x))(axis)
    end = jax.vmap(lambda x: exact.wave_function(1.0, x))(axis)
    expected = np.sum(np.conj(start) * end) * step
    found = solution.autocorrelation()
    np.testing.assert_allclose(found[0], 1.0, atol=1e-3)
    np.testing.assert_allclose(found[-1], expected, atol=5e-3)
    np.testing.assert_allclose(np.abs(solution.overlap(exact)), 1.0, atol=5e-3)
    np.testing.assert_allclose(np.abs(exact.overlap(solution)), 1.0, atol=5e-3)


def test_overlap_of_two_ensembles_is_not_available():
    ensemble, other = solutions("SequentialScoreMatching")
    with pytest.raises(bd.UnavailableError, match=r"has no wave_function.*SplitOperator"):
        ensemble.overlap(other)


@pytest.mark.parametrize("name", [EACH[0], "SequentialScoreMatching", "SplitOperator"])
def test_several_solutions_at_once(name):
    """`vmap` over the initial momentum equals a loop."""
    method = METHODS[name]()

    def last(momentum):
        initial = bd.GaussianWavePacket([0.5], 0.4, momentum=momentum[None])
        problem = bd.Problem(PROBLEM.hamiltonian, initial, t1=1.0)
        solution = bd.solve(problem, method, ts=[0.0, 1.0])
        return solution.mean()[-1], solution.std()[-1], solution.energy()[-1]

    momenta = jnp.array([0.0, 0.7])
    together = jax.vmap(last)(momenta)
    for i, momentum in enumerate(momenta):
        for whole, one in zip(together, last(momentum), strict=True):
            np.testing.assert_allclose(whole[i], one, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (
            lambda s: s.expectation(lambda x: x @ jnp.ones(3)),
            r"f\(x\) could not be evaluated with x of shape \(1,\)",
        ),
        (lambda s: s.expectation(lambda t, x: x), r"f\(x\) could not be evaluated"),
        (lambda s: s.expectation(lambda x: None), r"must return an array or a pytree of arrays"),
        (
            lambda s: s.probability(lambda x: x[0]),
            r"inside\(x\) must return True or False .* such as x\[0\] > 0",
        ),
        (lambda s: s.probability(0.5), "inside must be a function of one position, but 0.5"),
        (lambda s: s.trajectories([0.1]), r"x0 must have shape \(M, 1\)"),
        (lambda s: s.overlap(3), "other must be a solution"),
        (lambda s: s.sample(KEY, 0), "n must be an integer of at least 1"),
        (lambda s: s.score(0.5, [0.1, 0.2]), r"x one point of shape \(1,\)"),
    ],
)
def test_bad_input(call, match):
    with unchecked_types(), pytest.raises(ValueError, match=match):
        call(solutions("GaussianDynamics")[0])


class Still(bd.AbstractMethod):
    """The ground state of an oscillator, which stays as it is: a method and a solution as a user writes them."""

    def run(self, problem, ts, *, key, progress):
        x0, weights = problem.initial.particles(bd.GaussHermitePoints(8), key)
        position = jnp.broadcast_to(x0[:, None], (x0.shape[0], ts.size, problem.dimension))
        return StillSolution(problem, self, ts, bd.Particles(position, weights), bd.Diagnostics())


class StillSolution(bd.AbstractParticleSolution):
    problem: bd.Problem
    method: bd.AbstractMethod
    ts: jax.Array
    particles: bd.Particles
    diagnostics: bd.Diagnostics

    def energy(self):
        return jnp.full(self.ts.shape, 0.5)

    def move(self, x0):
        return jnp.broadcast_to(x0[:, None], (x0.shape[0], self.ts.size, x0.shape[1]))

    def score_at(self, t, x):
        return self.problem.initial.score(x)

    def velocity_at(self, t, x):
        return jnp.zeros_like(x)

    def log_density_at(self, t, x):
        return self.problem.initial.log_density(x)

    def wave_function_at(self, t, x):
        return jnp.exp(0.5 * self.problem.initial.log_density(x) - 0.5j * t)


def test_a_solution_of_a_user():
    problem = bd.Problem(bd.Hamiltonian(bd.Quadratic([[1.0]])), bd.GaussianWavePacket([0.0], 0.5), t1=1.0)
    one, other = (bd.solve(problem, Still(), ts=TS) for _ in range(2))
    bohmdiff.testing.check_solution(one, other)
    np.testing.assert_allclose(one.probability(lambda x: x[0] > 0), 0.5, atol=1e-3)
    exact = bd.solve(problem, bd.SplitOperator(64, -7.0, 7.0), ts=TS)
    np.testing.assert_allclose(exact.overlap(one), 1.0, atol=1e-3)
    paths = bd.nelson_process(one, 500, key=KEY, ts=[1.0])
    assert abs(float(jnp.std(paths)) - 0.5**0.5) < 0.08


def test_a_failed_figure_is_warned_once():
    class Doubtful(Still):
        def run(self, problem, ts, *, key, progress):
            solution = super().run(problem, ts, key=key, progress=progress)
            figure = bd.Figure(jnp.asarray(3.0), limit=1.0, meaning="It is too large.", remedy="Take less.")
            return StillSolution(problem, self, ts, solution.particles, bd.Diagnostics({"size": figure}))

    problem = bd.Problem(bd.Hamiltonian(bd.Quadratic([[1.0]])), bd.GaussianWavePacket([0.0], 0.5), t1=1.0)
    with pytest.warns(
        UserWarning, match=r"size is 3\.0e\+00 \(limit 1\.0e\+00\): It is too large\. Take less"
    ) as told:
        solution = bd.solve(problem, Doubtful(), ts=TS)
    assert len(told) == 1
    assert told[0].filename == __file__
    assert not bool(solution.diagnostics.holds)
    assert "EXCEEDED" in str(solution.diagnostics)
    assert jax.jit(lambda p: bd.solve(p, Doubtful(), ts=TS).diagnostics["size"].value)(problem) == 3
