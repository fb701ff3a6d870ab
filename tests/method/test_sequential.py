"""Sequential score matching against exact Gaussians, the splitting, and its own conservation laws."""

import math

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jaxtyping import Array
from tests.unchecked import unchecked_types

import bohmdiff as bd
from bohmdiff.testing import driven_gaussians

KEY = jax.random.key(0)
TS = jnp.array([0.0, 0.4, 1.0])


@pytest.mark.parametrize(("d", "degree"), [(1, 4), pytest.param(2, 2, marks=pytest.mark.slow)])
@settings(max_examples=3)
@given(st.data())
def test_gaussians_are_exact(d, degree, data):
    case = data.draw(driven_gaussians(d))
    method = bd.SequentialScoreMatching(
        degree, bd.GaussHermitePoints(degree + 1, discard=0.0), steps=24, window=math.inf
    )
    solution = bd.solve(case.problem(), method, ts=TS)
    mean, std, energy = case.moments(TS)
    close = {"rtol": 1e-5, "atol": 1e-5}
    np.testing.assert_allclose(solution.mean(), mean, **close)
    np.testing.assert_allclose(solution.std(), std, **close)
    np.testing.assert_allclose(solution.energy(), energy, **close)
    np.testing.assert_allclose(*scores(case, solution), rtol=1e-4, atol=1e-4)


@eqx.filter_jit
def scores(case, solution):
    t = jnp.asarray(0.7)
    x = case.centre_at(t)[0] + 0.2
    return solution.score(t, x), case(t, x)


CHAIN = bd.Hamiltonian(bd.MorseChain(depth=12.5, width=0.2, coupling=0.3))


CHAIN_TS = jnp.linspace(0.0, 2.0, 9)


def chain(t1=2.0):
    return bd.Problem(CHAIN, bd.GaussianWavePacket([1.0, 0.0], 0.5), t1=t1)


@pytest.fixture(scope="module")
def chain_solution():
    # With the outermost nodes, of weight 2e-23.
    method = bd.SequentialScoreMatching(6, bd.GaussHermitePoints(10, discard=0.0), steps=24)
    return bd.solve(chain(), method, ts=CHAIN_TS)


@pytest.mark.slow
def test_morse_chain_against_the_splitting(chain_solution):
    exact = bd.solve(chain(), bd.SplitOperator(points=32, lower=-5.0, upper=7.0), ts=CHAIN_TS)
    table = bd.compare(chain_solution, exact)
    assert float(jnp.max(table.mean_max)) < 2e-4
    assert float(jnp.max(table.std_max)) < 1e-3
    assert float(table.energy_max) < 1e-3
    assert float(table.divergence) < 1e-2


class Wells(eqx.Module):
    """A chain of quartic wells, whose evaluations by Python are counted."""

    quartic: Array

    def __call__(self, t, x):
        TRACES.append(t)
        return jnp.sum(0.5 * x**2 + self.quartic * x**4 + 0.05 * x**3) + 0.2 * x[0] * x[-1]


TRACES: list = []
METHOD = bd.SequentialScoreMatching(4, bd.GaussHermitePoints(6), steps=40, window=math.inf)


def wells(quartic=0.03, mass=(0.7, 2.0), mean=(0.6, -0.3), t1=1.0):
    return bd.Problem(
        bd.Hamiltonian(Wells(jnp.asarray(quartic)), jnp.array(mass), 0.6),
        bd.GaussianWavePacket(list(mean), [0.3, 0.2], [0.2, 0.5]),
        t1=t1,
    )


def test_energy_is_conserved_and_a_second_solve_compiles_nothing():
    """Unequal masses and ħ ≠ 1; the fit is not exact, but the energy is kept all the same."""
    solution = bd.solve(wells(), METHOD, ts=TS)
    energy = np.asarray(solution.energy())
    np.testing.assert_allclose(energy, energy[0], atol=2e-6)
    problem = wells(0.04, (0.8, 1.5), (0.5, -0.2))
    before = len(TRACES)
    other = bd.solve(problem, METHOD, ts=0.9 * TS)
    assert len(TRACES) == before
    assert float(jnp.max(jnp.abs(other.std() - solution.std()))) > 1e-3


def line(solver, key=KEY):
    problem = bd.Problem(
        bd.Hamiltonian(Wells(jnp.asarray(0.03))), bd.GaussianWavePacket([0.6], 0.3), t1=1.0
    )
    return bd.solve(problem, bd.SequentialScoreMatching(3, 64, solver=solver, steps=32), ts=TS, key=key)


@pytest.mark.filterwarnings("ignore:The solution by SequentialScoreMatching may be wrong. density mismatch")
@pytest.mark.long
@pytest.mark.parametrize("solver", [bd.VelocityVerlet(), bd.BlanesMoan6()])
def test_solvers_agree(solver):
    ours, default = line(solver), line(bd.BlanesMoan4())
    np.testing.assert_allclose(ours.std(), default.std(), atol=5e-4)
    np.testing.assert_allclose(ours.mean(), default.mean(), atol=5e-4)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The solution by SequentialScoreMatching may be wrong. density mismatch")
def test_random_designs_need_a_key_and_repeat_with_it():
    with pytest.raises(ValueError, match=r"SobolPoints .* needs a key: pass key=jax.random.key\(0\)"):
        line(bd.BlanesMoan4(), key=None)
    first, again, other = (line(bd.BlanesMoan4(), k) for k in (KEY, KEY, jax.random.key(1)))
    np.testing.assert_array_equal(first.std(), again.std())
    assert not np.array_equal(first.std(), other.std())
    assert first.particles.weights.size == 64


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"degree": 1}, "degree must be at least 2, which describes a Gaussian, but 1"),
        ({"degree": 0}, "degree must be an integer of at least 1, but 0"),
        ({"degree": 2.5}, "degree must be an integer of at least 1, but 2.5"),
        ({"steps": 0}, "steps must be an integer of at least 1, but 0"),
        ({"solver": "verlet"}, "solver must be a solver such as BlanesMoan4.., but 'verlet'"),
        ({"solver": bd.Yoshida4}, "solver must be a solver"),
        ({"particles": 0}, "particles must be an integer of at least 1, but 0.*GaussHermitePoints"),
        ({"particles": "many"}, "particles must be an integer of at least 1, but 'many'"),
        ({"basis": 2}, r"basis must be a rule such as Interactions\(2\), but 2"),
        ({"window": 0.0}, "window must be positive, but 0.0"),
        ({"window": math.nan}, "window must be positive, but nan"),
        ({"window": "far"}, "window must be a number, but 'far'"),
    ],
)
def test_bad_options(options, match):
    with unchecked_types(), pytest.raises(ValueError, match=match):
        bd.SequentialScoreMatching(**options)


def test_too_few_particles():
    match = "14 particles cannot determine the 15 basis functions of degree 4 in 2 dimensions: pass more"
    with pytest.raises(ValueError, match=match):
        bd.solve(wells(), bd.SequentialScoreMatching(4, 14), key=KEY)


@pytest.mark.filterwarnings("ignore:The solution by SequentialScoreMatching may be wrong. density mismatch")
@pytest.mark.long
def test_fewer_terms_need_fewer_particles():
    solution = bd.solve(
        wells(), bd.SequentialScoreMatching(4, 14, basis=bd.Interactions(1), window=4.0), key=KEY
    )
    assert solution.fitted.path.evaluate(0.0).coefficients.shape == (8,)
    with pytest.raises(ValueError, match="8 particles cannot determine the 9 basis functions of degree 4"):
        bd.solve(wells(), bd.SequentialScoreMatching(4, 8, basis=bd.Interactions(1)), key=KEY)


@pytest.mark.filterwarnings("ignore:The solution by SequentialScoreMatching may be wrong. density mismatch")
@pytest.mark.long
def test_uncoupled_wells_need_no_interactions():
    """Where the density is a product, polynomials of single coordinates say all."""

    def potential(t, x):
        return jnp.sum(0.5 * x**2 + 0.05 * x**4)

    problem = bd.Problem(bd.Hamiltonian(potential), bd.GaussianWavePacket([0.6, -0.3], 0.4), t1=1.0)
    every, single, coupled = (
        bd.solve(problem, bd.SequentialScoreMatching(4, steps=20, basis=terms), ts=TS)
        for terms in (bd.TotalDegree(), bd.Interactions(1), bd.HyperbolicCross())
    )
    np.testing.assert_allclose(single.std(), every.std(), atol=1e-5)
    np.testing.assert_allclose(coupled.std(), every.std(), atol=1e-5)
    # A wrong rule would be seen: degree 2 by itself is off by far more.
    two = bd.solve(problem, bd.SequentialScoreMatching(2, steps=20), ts=TS)
    assert float(jnp.max(jnp.abs(two.std() - every.std()))) > 1e-3


def test_potential_that_is_not_finite():
    problem = bd.Problem(
        bd.Hamiltonian(lambda t, x: jnp.log(x[0])), bd.GaussianWavePacket([1.0], 1.0), t1=1.0
    )
    with pytest.raises(ValueError, match=r"potential\(t, x\) must be finite at the initial points"):
        bd.solve(problem, METHOD)


def test_degenerate_fit_says_when_and_how_badly():
    """Steps much too long: the particles fly apart."""
    match = (
        r"singular at t = \d+\.?\d*, in step \d+ of 40: the condition number of its 14 x 14 linear "
        r"system is .*, and 5e\+14 is the limit\. Either particles ran away \(pass a lower degree"
    )
    with pytest.raises(bd.DegenerateFitError, match=match):
        bd.solve(wells(t1=400.0), METHOD, ts=TS)


def test_particles_in_the_far_tail_stay(chain_solution):
    assert chain_solution.particles.weights.size == 100
    assert np.all(np.isfinite(chain_solution.farthest))
    assert float(chain_solution.farthest[0]) > 6.5
    assert float(jnp.max(chain_solution.farthest)) < 12
    # Some of them beyond the window.
    assert float(jnp.max(chain_solution.farthest)) > chain_solution.method.window_in(2) + 2
    np.testing.assert_allclose(chain_solution.energy(), chain_solution.energy()[0], atol=1e-6)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The solution by SequentialScoreMatching may be wrong. density mismatch")
def test_runaways_do_not_spoil_the_fit():
    """After interference in a well; without a window the same particles go out to 360 standard deviations."""
    problem = bd.Problem(
        bd.Hamiltonian(bd.MorseChain(depth=12.5, width=0.2, coupling=0.0)),
        bd.GaussianWavePacket([1.0], 0.5),
        t1=6.3,
    )
    method = bd.SequentialScoreMatching(4, bd.GaussHermitePoints(200), steps=320)
    solution = bd.solve(problem, method)
    assert float(jnp.max(solution.farthest)) < 30
    np.testing.assert_allclose(solution.energy(), solution.energy()[0], rtol=1e-5)
    assert float(jnp.max(solution.condition_number)) < 100


@pytest.mark.long
def test_single_precision():
    packet = bd.GaussianWavePacket(jnp.array([0.6, -0.3], jnp.float32), [0.3, 0.2], [0.2, 0.5])
    single = bd.solve(eqx.tree_at(lambda p: p.initial, wells(), packet), METHOD, ts=TS)
    double = bd.solve(wells(), METHOD, ts=TS)
    for got, exact in zip(
        (single.mean(), single.std(), single.energy()),
        (double.mean(), double.std(), double.energy()),
        strict=True,
    ):
        assert got.dtype == jnp.float32
        np.testing.assert_allclose(got, exact, atol=1e-4)
    x = jnp.array([0.3, 0.1], jnp.float32)
    assert single.score(0.5, x).dtype == single.log_density(0.5, x).dtype == jnp.float32


@pytest.mark.long
def test_gradient_in_a_parameter_of_the_potential():
    @eqx.filter_jit
    @jax.value_and_grad
    def width(quartic):
        problem = bd.Problem(
            bd.Hamiltonian(Wells(quartic), 1.0, 0.6), bd.GaussianWavePacket([0.6], 0.3), t1=1.0
        )
        method = bd.SequentialScoreMatching(
            3, bd.GaussHermitePoints(6), steps=8, solver=bd.VelocityVerlet()
        )
        return bd.solve(problem, method, ts=TS).std()[-1, 0]

    _, gradient = width(jnp.asarray(0.05))
    difference = (width(jnp.asarray(0.05 + 1e-4))[0] - width(jnp.asarray(0.05 - 1e-4))[0]) / 2e-4
    np.testing.assert_allclose(gradient, difference, rtol=1e-5)
    assert abs(float(gradient)) > 1e-3


@pytest.mark.long
def test_trajectories_are_those_of_the_fit_and_of_propagate(chain_solution):
    x0, weights = chain().initial.particles(chain_solution.method.particles)
    paths = np.asarray(chain_solution.trajectories(x0))
    mean = np.einsum("m,mki->ki", weights, paths)
    np.testing.assert_allclose(mean, chain_solution.mean(), atol=1e-5)
    variance = np.einsum("m,mki->ki", weights, (paths - mean) ** 2)
    np.testing.assert_allclose(np.sqrt(variance), chain_solution.std(), atol=1e-4)
    flow = bd.propagate(
        chain(),
        chain_solution.score,
        x0[44:46],
        ts=CHAIN_TS,
        solver=bd.BlanesMoan4(),
        steps=24,
        tangents=False,
    )
    np.testing.assert_allclose(paths[44:46], flow.position, atol=1e-10)


def test_samples_are_trajectories_from_random_starts(chain_solution):
    paths = chain_solution.sample(KEY, 100)
    assert paths.shape == (100, 9, 2)
    starts, _ = chain().initial.particles(bd.RandomPoints(100), KEY)
    np.testing.assert_array_equal(paths, chain_solution.trajectories(starts))
    # Four standard errors.
    np.testing.assert_allclose(jnp.mean(paths, 0), chain_solution.mean(), atol=4 * 0.8 / 100**0.5)
    np.testing.assert_allclose(jnp.std(paths, 0), chain_solution.std(), atol=4 * 0.8 / 200**0.5)
    with unchecked_types(), pytest.raises(ValueError, match="n must be an integer of at least 1, but 0"):
        chain_solution.sample(KEY, 0)


@pytest.mark.slow
def test_density_integrates_to_one_and_belongs_to_the_score(chain_solution):
    t = jnp.asarray(1.3)
    axis = np.linspace(-5, 5, 61)
    x = jnp.asarray(np.stack(np.meshgrid(axis, axis, indexing="ij"), -1).reshape(-1, 2))
    log_density = eqx.filter_jit(lambda solution, y: jax.vmap(lambda z: solution.log_density(t, z))(y))(
        chain_solution, x
    )
    total = float(jnp.sum(jnp.exp(log_density))) * (axis[1] - axis[0]) ** 2
    assert abs(total - 1) < 2e-2
    place = jnp.array([0.4, -0.2])
    slope = jax.grad(chain_solution.log_density, argnums=1)(t, place)
    np.testing.assert_allclose(slope, chain_solution.score(t, place), rtol=1e-10)


def test_has_no_wave_function(chain_solution):
    match = r"by SequentialScoreMatching has no wave_function.*log_density.*SplitOperator"
    with pytest.raises(bd.UnavailableError, match=match):
        chain_solution.wave_function(0.5, jnp.zeros(2))


def test_default_designs():
    assert bd.SequentialScoreMatching(4).design(4) == bd.GaussHermitePoints(6, discard=1e-5)
    assert bd.SequentialScoreMatching(4).design(8) == bd.SobolPoints(16_384)
    assert [bd.SequentialScoreMatching().window_in(d) for d in (1, 4, 16)] == [5.0, 6.0, 8.0]
    assert bd.SequentialScoreMatching(window=5.0).window_in(16) == 5.0
    assert bd.SequentialScoreMatching(4, 100).design(3) == bd.SobolPoints(100)
