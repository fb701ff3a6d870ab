import re
from functools import cache

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from jaxtyping import Array, Float
from scipy.integrate import cumulative_trapezoid, quad
from scipy.special import gamma
from scipy.stats import kstest
from tests.unchecked import unchecked_types

import bohmdiff as bd
from bohmdiff._check import cast_floats
from bohmdiff.wavepacket._transport import fit_transport

KEY = jax.random.key(3)
MASS = jnp.array([1.0, 2.0])


def quartic(x):
    return -0.25 * jnp.sum(x**4)


def coupled(x):
    """Not a product in any coordinates, and not centred."""
    return -0.7 * jnp.sum(x**2) - 0.06 * jnp.sum(x**4) - 0.3 * x[0] * x[1] + 0.2 * x[0]


def skew(x):
    return -jnp.sum(jnp.exp(x) - x)


def twist(x):
    return 0.3 * x[0] * x[1]


@cache
def of_a_pair():
    return bd.LogDensity(coupled, [0.0, 0.0], 0.5, momentum=[0.5, 2.0], phase=twist)


@pytest.fixture(scope="module")
def pair():
    return of_a_pair()


@pytest.fixture(scope="module")
def line():
    return bd.LogDensity(skew, [0.0], 1.0)


def on_grid():
    """A fine grid and the probabilities of `coupled` on it."""
    axis = jnp.linspace(-7, 7, 281)
    grid = jnp.stack(jnp.meshgrid(axis, axis, indexing="ij"), axis=-1).reshape(-1, 2)
    density = np.exp(jax.vmap(coupled)(grid))
    return np.asarray(grid), density / density.sum(), np.log(density.sum() * 0.05**2)


@eqx.filter_jit
def everything(state, x, mass):
    return (
        state.log_density(x),
        state.score(x),
        state.phase(x),
        state.velocity(x, mass),
        state.velocity_gradient(x, mass),
    )


def test_the_normaliser_in_one_coordinate(line):
    # ∫ exp(x - eˣ) dx = 1, with an exponential tail.
    np.testing.assert_allclose(line.log_density(jnp.array([0.4])), 0.4 - np.exp(0.4), atol=1e-9)
    state = bd.LogDensity(lambda x: 3.0 + quartic(x), [0.5], 2.0)
    normaliser = quad(lambda x: np.exp(-(x**4) / 4), -np.inf, np.inf, epsabs=1e-13)[0]
    np.testing.assert_allclose(state.log_density(jnp.zeros(1)), -np.log(normaliser), rtol=1e-11)


def test_the_normaliser_in_two_coordinates(pair):
    _, _, log_normaliser = on_grid()
    x = jnp.array([0.3, 0.4])
    np.testing.assert_allclose(pair.log_density(x), coupled(x) - log_normaliser, rtol=1e-10)


@pytest.mark.parametrize(
    ("dimension", "tolerance"), [(3, 1e-9), (4, 1e-7), pytest.param(6, 1e-5, marks=pytest.mark.slow)]
)
def test_the_normaliser_in_many_coordinates(dimension, tolerance):
    state = bd.LogDensity(quartic, [0.0] * dimension, 0.7)
    normaliser = quad(lambda x: np.exp(-(x**4) / 4), -np.inf, np.inf, epsabs=1e-13)[0]
    np.testing.assert_allclose(
        state.log_density(jnp.zeros(dimension)), -dimension * np.log(normaliser), atol=tolerance
    )


@given(x=arrays(np.float64, (2,), elements=st.floats(-2.0, 2.0)))
@settings(max_examples=30)
def test_score_phase_and_velocity(x):
    pair, x = of_a_pair(), jnp.asarray(x)
    _, score, phase, velocity, gradient = everything(pair, x, MASS)
    h = 1e-5
    for i, step in enumerate(h * jnp.eye(2)):
        difference = (pair.log_density(x + step) - pair.log_density(x - step)) / (2 * h)
        np.testing.assert_allclose(score[i], difference, atol=1e-8)
        difference = (pair.phase(x + step) - pair.phase(x - step)) / (2 * h * MASS[i])
        np.testing.assert_allclose(velocity[i], difference, atol=1e-8)
    np.testing.assert_allclose(velocity, (np.array([0.5, 2.0]) + 0.3 * x[::-1]) / MASS, rtol=1e-12)
    np.testing.assert_allclose(gradient, [[0.0, 0.3], [0.15, 0.0]], atol=1e-14)
    np.testing.assert_allclose(
        phase - pair.phase(0 * x), 0.5 * x[0] + 2 * x[1] + 0.3 * x[0] * x[1], atol=1e-12
    )


def test_a_gaussian_is_a_gaussian():
    covariance = jnp.array([[1.0, 0.3], [0.3, 0.7]])
    packet = bd.GaussianWavePacket([1.0, -1.0], covariance, momentum=[0.5, 2.0])
    # The guess is off.
    state = bd.LogDensity(packet.log_density, [0.0, 0.0], 2.0, momentum=[0.5, 2.0])
    x = jnp.array([0.3, 0.4])
    for one, other in zip(everything(state, x, MASS), everything(packet, x, MASS), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6)
    np.testing.assert_allclose(state.effective_share, 1.0, atol=1e-9)
    for design in (bd.GaussHermitePoints(8), bd.SobolPoints(64), bd.TruncatedPoints(bd.SobolPoints(64))):
        points, weights = state.particles(design, KEY)
        expected, equal = packet.particles(design, KEY)
        np.testing.assert_allclose(points, expected, atol=1e-5)
        np.testing.assert_allclose(weights, equal, rtol=1e-4)


def test_a_bad_guess_costs_nothing():
    states = [
        bd.LogDensity(quartic, mean, covariance)
        for mean, covariance in (([0.0], 0.7), ([1.0], 0.1), ([-1.0], 12.0))
    ]
    design = bd.GaussHermitePoints(12)
    points = [state.particles(design)[0] for state in states]
    np.testing.assert_allclose(points[1], points[0], atol=1e-5)
    np.testing.assert_allclose(points[2], points[0], atol=1e-5)


@pytest.mark.parametrize(
    ("design", "tolerance"),
    [
        (bd.GaussHermitePoints(4), 1e-2),
        (bd.GaussHermitePoints(8, discard=0.0), 6e-4),
        (bd.GaussHermitePoints(32, discard=1e-9), 1e-6),
        (bd.SobolPoints(4096), 2e-3),
        (bd.RandomPoints(4096), 6e-2),
        (bd.TruncatedPoints(bd.SobolPoints(4096)), 1e-2),
        (bd.WidenedPoints(bd.SobolPoints(4096), 1.4), 2e-3),
        (bd.TruncatedPoints(bd.RandomPoints(4096), 4.0), 6e-2),
    ],
    ids=repr,
)
def test_moments_of_points(pair, design, tolerance):
    points, weights = pair.particles(design, KEY)
    assert points.shape == (weights.size, 2)
    np.testing.assert_allclose(weights.sum(), 1.0, rtol=1e-13)
    grid, probability, _ = on_grid()
    mean = probability @ grid
    np.testing.assert_allclose(weights @ points, mean, atol=tolerance)
    y, z = points - mean, grid - mean
    np.testing.assert_allclose((y.T * weights) @ y, (z.T * probability) @ z, atol=tolerance)
    np.testing.assert_array_equal(points, pair.particles(design, KEY)[0])


def test_weights_are_equal_in_one_coordinate(line):
    _, weights = line.particles(bd.SobolPoints(256), KEY)
    np.testing.assert_allclose(256 * weights, 1.0, atol=1e-4)


@pytest.mark.slow
def test_random_points_are_equally_weighted_draws(line, pair):
    points, weights = line.particles(bd.RandomPoints(4000), KEY)
    np.testing.assert_array_equal(weights, np.full(4000, 1 / 4000))
    # eˣ is exponentially distributed.
    assert kstest(np.exp(points[:, 0]), "expon").pvalue > 1e-3
    points, weights = pair.particles(bd.RandomPoints(4000), KEY)
    np.testing.assert_array_equal(weights, np.full(4000, 1 / 4000))
    grid, probability, _ = on_grid()
    axis, table = np.unique(grid[:, 0]), probability.reshape(281, 281)
    for i in range(2):
        marginal = table.sum(1 - i)
        below = cumulative_trapezoid(marginal, axis, initial=0.0)
        distribution = np.interp(points[:, i], axis, below / below[-1])
        assert kstest(distribution, "uniform").pvalue > 1e-3
    assert np.all(pair.particles(bd.RandomPoints(8), jax.random.key(8))[0] != points[:8])
    for design in (bd.RandomPoints(8), bd.SobolPoints(8)):
        with pytest.raises(ValueError, match="needs a key"):
            pair.particles(design)


@pytest.mark.slow
def test_random_points_of_two_humps_are_unbiased():
    """Far from a product, so that the chains have something to do."""

    state = bd.LogDensity(humps, [0.0, 0.0], 1.0)
    assert 0.5 < state.effective_share < 0.9
    points, _ = state.particles(bd.RandomPoints(8000), KEY)
    # Along (1, 1)/√2 there are two humps at ±√2, across there is one: both of variance ½.
    along, across = (points @ np.array([[1.0, 1.0], [1.0, -1.0]]).T / np.sqrt(2)).T
    spread = np.sqrt([np.mean(across**2), np.mean(along**2)])
    np.testing.assert_allclose(spread, np.sqrt([0.5, 2.5]), rtol=0.02)
    np.testing.assert_allclose(np.mean(along**4), 4 + 6 * 2 * 0.5 + 3 * 0.25, rtol=0.03)


@pytest.mark.slow
def test_the_derivative_of_the_map(pair):
    fit = fit_transport(coupled, jnp.zeros(2), 0.5 * jnp.eye(2))
    for xi in (jnp.array([0.3, -1.2]), jnp.array([4.0, -9.0]), jnp.array([20.0, 0.0])):
        _, stretch = fit.transport(xi)
        jacobian = jax.jacfwd(lambda p: fit.transport(p)[0])(xi)
        np.testing.assert_allclose(stretch, jnp.linalg.slogdet(jacobian)[1], atol=1e-9)


class Steep(eqx.Module):
    steepness: Float[Array, ""]

    def __call__(self, x):
        return -self.steepness * jnp.sum(x**4)


@pytest.mark.long
def test_points_and_normaliser_are_differentiable_in_parameters():
    def means(steepness):
        state = bd.LogDensity(Steep(steepness), [0.0], 0.5)
        points, weights = state.particles(bd.GaussHermitePoints(24))
        return weights @ points[:, 0] ** 2, state.log_normaliser

    # E x² falls as steepness^(-1/2), and the normaliser as steepness^(-1/4).
    value, _ = means(jnp.array(0.8))
    slopes = jax.jacfwd(means)(jnp.array(0.8))
    np.testing.assert_allclose(slopes, [-0.5 * value / 0.8, -0.25 / 0.8], rtol=1e-4)


@pytest.mark.parametrize("design", [bd.GaussHermitePoints(8), bd.SobolPoints(512), bd.RandomPoints(512)])
def test_float32(design, pair):
    state = bd.LogDensity(coupled, jnp.zeros(2, jnp.float32), 0.5, momentum=[0.5, 2.0], phase=twist)
    assert state.dtype == jnp.float32
    assert cast_floats(state, jnp.float32) == state
    points, weights = state.particles(design, KEY)
    assert points.dtype == weights.dtype == jnp.float32
    for value in everything(state, points[0], jnp.ones(2, jnp.float32)):
        assert value.dtype == jnp.float32
    np.testing.assert_allclose(state.log_normaliser, pair.log_normaliser, atol=2e-5)
    if not isinstance(design, bd.RandomPoints):
        np.testing.assert_allclose(points, pair.particles(design, KEY)[0], atol=2e-2)
    np.testing.assert_allclose(weights @ points, [0.116, -0.0196], atol=0.1)


@pytest.mark.long
def test_two_coordinates_move_as_in_the_exact_solution():
    initial = bd.LogDensity(coupled, [0.0, 0.0], 0.5, phase=twist)
    potential = lambda t, x: 0.5 * jnp.sum(x**2) + 0.1 * x[0] * x[1]  # noqa: E731
    problem = bd.Problem(bd.Hamiltonian(potential), initial, t1=1.0)
    exact = bd.solve(problem, bd.SplitOperator(points=64, lower=-7.0, upper=7.0))
    found = bd.compare(bd.solve(problem, bd.SequentialScoreMatching(degree=4)), exact)
    assert np.all(found.mean_max < 3e-5)
    assert np.all(found.std_max < 3e-4)
    assert found.energy_max < 2e-3
    # Without the terms of fourth order it would not be.
    gaussian = bd.solve(problem, bd.SequentialScoreMatching(degree=2))
    assert np.all(bd.compare(gaussian, exact).std_max > 10 * found.std_max)


def test_what_needs_a_gaussian_says_so(pair):
    problem = bd.Problem(bd.Hamiltonian(lambda t, x: 0.5 * jnp.sum(x**2)), pair, t1=1.0)
    with pytest.raises(ValueError, match=r"needs a GaussianWavePacket .* but LogDensity was given"):
        bd.solve(problem, bd.GaussianDynamics())
    with pytest.raises(ValueError, match=r"of a GaussianWavePacket, but .* LogDensity"):
        bd.HarmonicScore(problem)


def test_a_bad_density_under_jit_is_nan():
    @eqx.filter_jit
    def log_density(steepness):
        return bd.LogDensity(Steep(steepness), [0.0], 0.5).log_density(jnp.zeros(1))

    assert jnp.isfinite(log_density(jnp.array(0.8)))
    assert jnp.isnan(log_density(jnp.array(0.0)))


def test_functions_are_modules_with_their_numbers_as_leaves():
    traces = 0

    @jax.jit
    def log_density(state):
        nonlocal traces
        traces += 1
        return state.log_density(jnp.zeros(1)) + state.phase(jnp.ones(1))

    for steepness in (0.25, 0.5, 1.0):
        state = bd.LogDensity(
            lambda x, s=steepness: -s * jnp.sum(x**4), [0.0], 0.7, phase=lambda x, s=steepness: s * x[0]
        )
        assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(state))
        # ∫ exp(-s x⁴) dx = 2 Γ(5/4) s^(-1/4)
        expected = -np.log(2 * gamma(1.25) * steepness**-0.25) + steepness
        np.testing.assert_allclose(log_density(state), expected, atol=1e-9)
    assert traces == 1


class Hollow(eqx.Module):
    """A Gaussian with a zero where `matrix @ x = place`, or with a valley that has a floor there."""

    matrix: Float[Array, "n d"]
    place: Float[Array, " n"]
    floor: Float[Array, ""]

    def __call__(self, x):
        return -(x @ x) + jnp.log(jnp.sum((self.matrix @ x - self.place) ** 2) + self.floor)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_nodes_between_points_are_found(dtype):
    """A line at an angle, one far out, and a point; a deep valley is none of them."""

    def state(matrix, place, floor=0.0):
        hollow = Hollow(*(jnp.asarray(value, dtype) for value in (matrix, place, floor)))
        return bd.LogDensity(hollow, jnp.zeros(2, dtype), 0.5)

    line, point = [[1.0, 0.7], [0.0, 0.0]], [[1.0, 0.3], [0.0, 3.0]]
    for matrix, place in ((line, [0.31, 0.0]), (line, [2.4, 0.0]), (point, [0.31, -0.4])):
        with pytest.raises(ValueError, match=r"finite where particles are, but near x = .* node") as told:
            state(matrix, place)
        numbers = re.search(r"near x = \[(.*?)\]", str(told.value)).group(1)
        x = jnp.array([float(number) for number in numbers.split(",")])
        np.testing.assert_allclose(jnp.array(matrix) @ x, place, atol=1e-5)
    state(line, [0.31, 0.0], 1e-9)
    # The probability beyond is below a millionth.
    state(line, [6.0, 0.0])


def test_a_deep_smooth_valley_is_no_node():
    bd.LogDensity(lambda x: -60 * (x[0] ** 2 / 4 - 1) ** 2, [0.3], 4.0)


def humps(x):
    return jnp.logaddexp(-jnp.sum((x - 1) ** 2), -jnp.sum((x + 1) ** 2))


def far_humps(x):
    return jnp.logaddexp(-2 * jnp.sum((x - 2) ** 2), -2 * jnp.sum((x + 2) ** 2))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"log_density": lambda x: x}, r"log_density\(x\) must return a real array of shape \(\) for one"),
        ({"log_density": lambda t, x: 0.0}, r"log_density could not be evaluated as log_density\(x\)"),
        ({"log_density": lambda x: 1j * x[0]}, "log_density.x. must return a real array"),
        (
            {"log_density": lambda x: quartic(x) + 2 * jnp.log(jnp.abs(x[0]))},
            r"finite at the mean, but it is -inf at x = \[0., 0.\]",
        ),
        (
            {"log_density": lambda x: jnp.log(jnp.maximum(1 - x @ x, 0.0))},
            r"finite where particles are, but it is -inf at x = .*nodes",
        ),
        ({"log_density": lambda x: jnp.log(1 - x @ x)}, "finite where particles are, but it is nan"),
        ({"log_density": lambda x: 0.0 * x[0]}, "must fall off within ten standard deviations"),
        ({"log_density": lambda x: -jnp.log1p(x @ x)}, "must fall off within ten standard deviations"),
        ({"log_density": lambda x: 0.5 * x @ x}, "must fall off within ten standard deviations"),
        (
            {"log_density": far_humps, "mean": [0.0] * 4, "covariance": 4.0},
            r"Only a share of 0.*of the points would count.*GaussianMixture",
        ),
        ({"mean": 0.0}, r"mean must have shape \(d,\)"),
        ({"covariance": -1.0}, "covariance must be positive definite"),
        ({"momentum": [1.0]}, r"momentum must have shape \(2,\), but shape \(1,\)"),
        ({"phase": lambda x: x}, r"phase\(x\) must return a real array of shape \(\) .* shape \(2,\)"),
    ],
)
def test_errors(arguments, message):
    allowed = {"log_density": quartic, "mean": [0.0, 0.0], "covariance": 0.7}
    with unchecked_types(), pytest.raises(ValueError, match=message):
        bd.LogDensity(**{**allowed, **arguments})
