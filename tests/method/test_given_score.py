"""Exact scores give exact solutions; what has no answer says so."""

import warnings

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from tests.unchecked import unchecked_types

import bohmdiff as bd
from bohmdiff.testing import driven_gaussians

KEY = jax.random.key(2)
TS = jnp.array([0.0, 0.4, 1.0])
# Three nodes per axis are exact for all that is quadratic.
NODES = bd.GaussHermitePoints(3, discard=0.0)
close = {"rtol": 1e-6, "atol": 1e-6}


class Unnormalised(bd.AbstractGradientScore):
    """A log density up to a function of time, which is all that a score promises."""

    exact: eqx.Module

    def __call__(self, t, x):
        return self.exact(t, x)

    def log_density(self, t, x):
        return self.exact.log_density(t, x) + 3 - 2 * t


@pytest.mark.long
@settings(max_examples=3)
@given(case=driven_gaussians(2))
def test_exact_scores_give_exact_solutions(case):
    problem = case.problem()
    solution = bd.solve(problem, bd.GivenScore(Unnormalised(case), NODES, steps=48), ts=TS)
    assert isinstance(solution, bd.FlowSolution)
    assert solution.particles.weights.size == 9
    mean, std, energy = case.moments(TS)
    np.testing.assert_allclose(solution.mean(), mean, **close)
    np.testing.assert_allclose(solution.std(), std, **close)
    np.testing.assert_allclose(solution.energy(), energy, **close)
    x = case.centre_at(jnp.asarray(0.7))[0] + 0.2
    for t in (0.0, 0.4, 0.7, 1.0):  # and between the saved times
        got, expected = densities(solution, case, jnp.asarray(t), x)
        np.testing.assert_allclose(got, expected, **close)
    # Paths: the centre, and F applied to where they started from it.
    x0 = jnp.array([[0.3, 0.1], [-0.6, 0.8]])
    paths = solution.trajectories(x0)
    assert paths.shape == (2, 3, 2)
    np.testing.assert_allclose(paths[:, 0], x0, rtol=1e-12)
    moved = (x0 - case.mean) @ case.integrals(1.0).deformation.T
    np.testing.assert_allclose(paths[:, 2], case.centre_at(1.0)[0] + moved, **close)


@eqx.filter_jit
def densities(solution, case, t, x):
    return (
        jnp.append(solution.score(t, x), solution.log_density(t, x)),
        jnp.append(case(t, x), case.log_density(t, x)),
    )


# A packet of twice the variance of the ground state, and its width, a function of time that is known.
WIDE = bd.Problem(bd.Hamiltonian(bd.Quadratic([[1.0]])), bd.GaussianWavePacket([0.0], 1.0), t1=1.0)
WIDTH = np.sqrt(np.cos(TS) ** 2 + 0.25 * np.sin(TS) ** 2)


def wide_score(t, x):
    return -x / (jnp.cos(t) ** 2 + 0.25 * jnp.sin(t) ** 2)


@pytest.fixture(scope="module")
def wide():
    return bd.solve(WIDE, bd.GivenScore(wide_score, steps=8), ts=TS)


def test_default_particles_and_moments(wide):
    expected, weights = WIDE.initial.particles(bd.GaussHermitePoints(64, discard=1e-5))
    np.testing.assert_allclose(wide.flow.position[:, 0], expected, atol=1e-12)
    np.testing.assert_allclose(wide.particles.weights, weights, rtol=1e-12)
    data = wide.to_xarray()
    np.testing.assert_allclose(data["std"].sel(coordinate=0), WIDTH, rtol=1e-3)
    assert data.attrs["method"].startswith("GivenScore(")
    assert wide.history is None


def test_a_number_of_particles():
    method = bd.GivenScore(wide_score, 8, steps=8)
    solution = bd.solve(WIDE, method, ts=TS, key=KEY)
    expected, _ = WIDE.initial.particles(bd.SobolPoints(8), KEY)
    np.testing.assert_allclose(solution.flow.position[:, 0], expected, rtol=1e-12)
    with pytest.raises(ValueError, match="needs a key"):
        bd.solve(WIDE, method, ts=TS)


def test_samples_are_new_trajectories(wide):
    samples = wide.sample(KEY, 4000)
    assert samples.shape == (4000, 3, 1)
    starts, _ = WIDE.initial.particles(bd.RandomPoints(4000), KEY)
    np.testing.assert_allclose(samples[:, :, 0], np.asarray(starts) * WIDTH, rtol=1e-3, atol=1e-6)
    np.testing.assert_allclose(np.std(samples[:, :, 0], axis=0), WIDTH, rtol=0.05)
    with pytest.raises(ValueError, match="n must be an integer of at least 1, but 0 was given"):
        wide.sample(KEY, 0)


def test_what_there_is_not(wide):
    x = jnp.array([0.3])
    np.testing.assert_allclose(wide.score(0.4, x), wide_score(0.4, x), rtol=1e-12)
    with pytest.raises(bd.UnavailableError, match=r"GivenScore has no wave_function.* use SplitOperator"):
        wide.wave_function(0.4, x)
    with pytest.raises(
        bd.UnavailableError, match=r"GivenScore has no log_density.*GradientScore\(scalar\)"
    ):
        wide.log_density(0.4, x)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"score": 3.0}, r"score must be a callable s.* or a solution, but 3.0 was given"),
        ({"steps": 0}, "steps must be an integer of at least 1, but 0 was given"),
        ({"solver": bd.BlanesMoan4}, "solver must be a solver such as"),
        ({"particles": 0}, "particles must be an integer of at least 1, but 0 was given"),
        ({"particles": "many"}, "particles must be an integer .* a design such as GaussHermitePoints"),
    ],
)
def test_bad_options(options, match):
    with unchecked_types(), pytest.raises(ValueError, match=match):
        bd.GivenScore(**{"score": lambda t, x: -x, **options})


def test_a_score_that_does_not_fit():
    with pytest.raises(ValueError, match=r"score\(t, x\) must return a real array of shape \(1,\)"):
        bd.solve(WIDE, bd.GivenScore(lambda t, x: x[0], NODES))


PLANE = bd.Problem(bd.Hamiltonian(bd.Quadratic(1.0)), bd.GaussianWavePacket([0.5, 0.5], [0.5, 0.5]), t1=1.0)


class Distorted(bd.AbstractScore):
    """The score of a coherent state, if `matrix` is one and nothing else is added."""

    matrix: jax.Array
    jump: jax.Array

    def __call__(self, t, x):
        return -2 * self.matrix @ (x - 0.5 * jnp.cos(t)) + self.jump * jnp.sign(x)


INITIAL, PARTS, BELOW, ASYMMETRY, MISMATCH = (
    "initial score",
    "integration by parts",
    "energy below the potential",
    "asymmetry",
    "density mismatch",
)
# The matrix and the jump, and the figures that tell.
WRONG = {
    "right": ([[1.0, 0.0], [0.0, 1.0]], 0.0, set()),
    "nearly right": ([[1.03, 0.0], [0.0, 0.98]], 0.0, set()),
    "slightly rotated": ([[1.0, 0.06], [-0.06, 1.0]], 0.0, {ASYMMETRY}),
    "rotated": ([[1.0, 1.5], [-1.5, 1.0]], 0.0, {INITIAL, PARTS, ASYMMETRY, BELOW, MISMATCH}),
    "wrong sign": ([[-1.0, 0.0], [0.0, -1.0]], 0.0, {INITIAL, PARTS, BELOW, MISMATCH}),
    "a saddle": ([[1.0, 1.5], [1.5, 1.0]], 0.0, {INITIAL, PARTS, BELOW, MISMATCH}),
    "a jump": ([[1.0, 0.0], [0.0, 1.0]], 5.0, {INITIAL, PARTS, BELOW, MISMATCH}),
    "too narrow": ([[1.6, 0.0], [0.0, 1.6]], 0.0, {INITIAL, PARTS, MISMATCH}),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_score_that_is_none_is_told(name):
    matrix, jump, expected = WRONG[name]
    method = bd.GivenScore(Distorted(jnp.array(matrix), jnp.array(jump)), bd.GaussHermitePoints(6), steps=8)
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        solution = bd.solve(PLANE, method, ts=TS)
    assert set(solution.diagnostics.failed()) == expected
    assert [warning.filename for warning in warned] == [__file__] * bool(expected)
    for figure in expected:
        assert figure in str(warned[0].message)


def test_a_score_that_is_wrong_later_is_told():
    """It turns outward, where the mean of s x becomes positive."""
    method = bd.GivenScore(lambda t, x: -2 * (x - 0.5) * jnp.cos(2 * t), NODES, steps=8)
    with pytest.warns(UserWarning, match=r"integration by parts is .* at t = 1 .*normalised"):
        solution = bd.solve(PLANE, method, ts=TS)
    assert set(solution.diagnostics.failed()) == {PARTS, MISMATCH}
    assert solution.diagnostics[PARTS].value > 1


def packet(frequency, t1=3.0):
    """A squeezed packet in a well, whose score is known."""
    hamiltonian = bd.Hamiltonian(bd.Quadratic(jnp.asarray([[frequency**2]])))
    return bd.Problem(hamiltonian, bd.GaussianWavePacket([1.0], 0.3), t1=t1)


@pytest.mark.parametrize("written", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_the_score_of_another_well_is_told(written):
    """It is right at t0, which is all that is saved, and that of a Gaussian at all times."""
    for frequency in (1.0, 1.05):
        score = bd.solve(packet(frequency), bd.GaussianDynamics(steps=100)).fitted
        # A function has no scalar, so its integral along lines is taken.
        method = bd.GivenScore((lambda t, x, score=score: score(t, x)) if written else score, NODES)
        if frequency == 1.0:
            solution = bd.solve(packet(1.0), method, ts=[0.0])
            assert solution.diagnostics[MISMATCH].value < 1e-5
        else:
            with pytest.warns(UserWarning, match="density mismatch is .*Trust earlier times only"):
                solution = bd.solve(packet(1.0), method, ts=[0.0])
            assert set(solution.diagnostics.failed()) == {MISMATCH}
            assert 0 < solution.diagnostics[MISMATCH].since < 3.0


def test_steps_are_chosen_or_checked():
    problem = packet(1.0, 40.0)
    exact = bd.solve(problem, bd.GaussianDynamics(steps=1000), ts=[13.0, 40.0])
    chosen = bd.solve(problem, bd.GivenScore(exact, NODES), ts=[13.0, 40.0])
    assert chosen.method.steps == chosen.steps > 64
    for ours, theirs in ((chosen.mean(), exact.mean()), (chosen.std(), exact.std())):
        np.testing.assert_allclose(ours, theirs, atol=1e-3 * np.min(exact.std()))
    other = bd.solve(problem, bd.GivenScore(exact, NODES), ts=[26.0, 40.0])
    assert other.steps == chosen.steps
    np.testing.assert_allclose(other.std()[1], chosen.std()[1], rtol=1e-12)
    with pytest.warns(UserWarning, match="time step is .*Pass more steps"):
        few = bd.solve(problem, bd.GivenScore(exact, NODES, steps=40), ts=[13.0, 40.0])
    assert few.steps == 40
    many = bd.solve(problem, bd.GivenScore(exact, NODES, steps=300), ts=[13.0, 40.0])
    assert bool(many.diagnostics.holds)


def test_under_a_transformation_the_number_of_steps_must_be_given():
    def last(frequency, method):
        return bd.solve(packet(frequency), method, ts=[3.0]).std()[0, 0]

    method = bd.GivenScore(lambda t, x: -x, NODES)
    with pytest.raises(
        ValueError, match=r"jit, grad or vmap. Pass a number: GivenScore\(..., steps=64\), or"
    ):
        jax.jit(lambda frequency: last(frequency, method))(1.0)


def test_a_score_of_another_precision_is_refused():
    def single(t, x):
        return (-2 * x).astype(jnp.float32)

    with pytest.raises(ValueError, match=r"precision of x, float64, but it returned float32"):
        bd.solve(PLANE, bd.GivenScore(single, NODES))


class Repelled(bd.AbstractScore):
    """The score of the ground state, but for a place far out from which it drives away."""

    edge: float

    def __call__(self, t, x):
        return -2 * x + 2 * jnp.sign(x) * jax.nn.softplus(10 * (jnp.abs(x) - self.edge))


@pytest.mark.slow
def test_particles_that_run_away_are_told():
    trap = bd.Hamiltonian(bd.Quadratic([[1.0]]))
    problem = bd.Problem(trap, bd.GaussianWavePacket([0.0], 0.5), t1=1.0)
    design = bd.GaussHermitePoints(64, discard=0.0)
    with pytest.warns(
        UserWarning, match="runaways is .* farthest thousandth of the .* particles=SobolPoints"
    ) as warned:
        far = bd.solve(problem, bd.GivenScore(Repelled(2.6), design), ts=TS)
    assert {warning.filename for warning in warned} == {__file__}
    assert far.std()[-1, 0] ** 2 > 0.55
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        without = bd.StandardizedPoints(bd.TruncatedPoints(bd.SobolPoints(512)))
        near = bd.solve(problem, bd.GivenScore(Repelled(2.6), without), ts=TS, key=KEY)
        bd.solve(problem, bd.GivenScore(lambda t, x: -2 * x, design), ts=TS)
        # Of few particles each one matters.
        bd.solve(problem, bd.GivenScore(lambda t, x: -2 * x, 4), ts=TS, key=KEY)
    assert near.std()[-1, 0] ** 2 == pytest.approx(0.5, abs=5e-3)
