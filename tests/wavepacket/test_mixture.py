import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.stats import kstest, multivariate_normal, norm
from tests.unchecked import unchecked_types

import bohmdiff as bd
from bohmdiff._check import cast_floats

KEY = jax.random.key(7)
N, D = 3, 2
weights = arrays(np.float64, (N,), elements=st.floats(0.1, 2.0))
means = arrays(np.float64, (N, D), elements=st.floats(-2.0, 2.0))
roots = arrays(np.float64, (N, D, D), elements=st.floats(-1.0, 1.0))
vectors = arrays(np.float64, (D,), elements=st.floats(-2.0, 2.0))
MASS = jnp.array([1.0, 2.0])


def twist(x):
    return 0.3 * jnp.sin(x[0]) * x[1]


def example(dtype=float, **others):
    return bd.GaussianMixture(
        jnp.array([0.6, 0.1, 0.3], dtype),
        jnp.array([[-1.0, 0.0], [1.0, 0.5], [0.0, 1.5]], dtype),
        np.array([[[0.5, 0.2], [0.2, 0.4]], [[0.3, 0.0], [0.0, 0.9]], [[0.6, -0.1], [-0.1, 0.2]]]),
        **others,
    )


def moments(mixture):
    """Mean and covariance, from those of the components."""
    w, mu = np.asarray(mixture.weights), np.asarray(mixture.means)
    mean = w @ mu
    y = mu - mean
    return mean, np.einsum("k,kij->ij", w, mixture.covariances + y[:, :, None] * y[:, None, :])


@eqx.filter_jit
def everything(state, x, mass):
    return (
        state.log_density(x),
        state.score(x),
        state.phase(x),
        state.velocity(x, mass),
        state.velocity_gradient(x, mass),
    )


@given(w=weights, mu=means, root=roots, momentum=vectors, x=vectors)
@settings(max_examples=30)
def test_closed_forms(w, mu, root, momentum, x):
    covariances = root @ np.swapaxes(root, 1, 2) + 0.2 * np.eye(D)
    mixture = bd.GaussianMixture(w, mu, covariances, momentum, twist)
    log_density, score, phase, velocity, gradient = everything(mixture, jnp.asarray(x), MASS)
    close = {"rtol": 1e-9, "atol": 1e-9}
    w = w / w.sum()
    parts = [w[k] * multivariate_normal(mu[k], covariances[k]).pdf(x) for k in range(N)]
    slopes = [-np.linalg.solve(covariances[k], x - mu[k]) for k in range(N)]
    np.testing.assert_allclose(log_density, np.log(np.sum(parts)), **close)
    np.testing.assert_allclose(score, np.asarray(parts) @ slopes / np.sum(parts), **close)
    a, b = x
    np.testing.assert_allclose(phase, momentum @ (x - w @ mu) + 0.3 * np.sin(a) * b, **close)
    np.testing.assert_allclose(
        velocity, (momentum + np.array([0.3 * np.cos(a) * b, 0.3 * np.sin(a)])) / MASS, **close
    )
    hessian = [[-0.3 * np.sin(a) * b, 0.3 * np.cos(a)], [0.3 * np.cos(a), 0.0]]
    np.testing.assert_allclose(gradient, np.asarray(hessian) / MASS[:, None], **close)


def test_the_density_is_normalised():
    mixture, axis = example(), jnp.linspace(-8, 8, 161)
    grid = jnp.stack(jnp.meshgrid(axis, axis), axis=-1).reshape(-1, 2)
    density = jnp.exp(jax.vmap(mixture.log_density)(grid))
    np.testing.assert_allclose(jnp.sum(density) * 0.1**2, 1.0, rtol=1e-12)


@pytest.mark.long
def test_the_score_against_finite_differences_four_times_over():
    mixture = bd.GaussianMixture([0.5, 0.5], [[-0.8], [0.9]], [0.4, 0.3])

    def derivative(order):
        function = lambda x: mixture.score(x[None])[0]  # noqa: E731
        for _ in range(order):
            function = jax.grad(function)
        return function

    x, h = 0.3, 1e-4
    for order in range(5):
        lower = derivative(order - 1) if order else lambda x: mixture.log_density(x[None])
        difference = (lower(jnp.array(x + h)) - lower(jnp.array(x - h))) / (2 * h)
        np.testing.assert_allclose(derivative(order)(jnp.array(x)), difference, rtol=1e-5)


def test_far_out_it_is_the_widest_component():
    mixture = example()
    x = jnp.array([-40.0, 900.0])
    assert np.all(np.isfinite(mixture.score(x)))
    k = 1
    np.testing.assert_allclose(
        mixture.score(x), -np.linalg.solve(mixture.covariances[k], x - mixture.means[k]), rtol=1e-12
    )


def test_one_component_is_a_gaussian():
    covariance = [[1.0, 0.3], [0.3, 0.7]]
    mixture = bd.GaussianMixture([3.0], [[1.0, -1.0]], [covariance], momentum=[0.5, 2.0])
    packet = bd.GaussianWavePacket([1.0, -1.0], covariance, momentum=[0.5, 2.0])
    x = jnp.array([0.3, 0.4])
    for one, other in zip(everything(mixture, x, MASS), everything(packet, x, MASS), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-13)
    for design in (bd.GaussHermitePoints(5), bd.TruncatedPoints(bd.GaussHermitePoints(4))):
        for one, other in zip(mixture.particles(design), packet.particles(design), strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-13)


@pytest.mark.parametrize(
    ("covariances", "full"),
    [
        (0.5, [0.5 * np.eye(2), 0.5 * np.eye(2)]),
        ([0.5, 2.0], [0.5 * np.eye(2), 2.0 * np.eye(2)]),
        ([[0.5, 2.0], [1.0, 3.0]], [np.diag([0.5, 2.0]), np.diag([1.0, 3.0])]),
    ],
)
def test_forms_of_the_covariances(covariances, full):
    mixture = bd.GaussianMixture([1, 3], [[0, 0], [1, 1]], covariances)
    np.testing.assert_array_equal(mixture.covariances, full)
    np.testing.assert_array_equal(mixture.weights, [0.25, 0.75])


@pytest.mark.parametrize(
    ("design", "number", "tolerance"),
    [
        (bd.GaussHermitePoints(5, discard=0.0), 75, 1e-13),
        (bd.GaussHermitePoints(8), None, 1e-5),
        (bd.SobolPoints(4096), 4096, 4e-3),
        (bd.RandomPoints(4096), 4096, 6e-2),
        (bd.TruncatedPoints(bd.SobolPoints(4096)), 4096, 1e-2),
        (bd.WidenedPoints(bd.SobolPoints(4096), 1.4), 4096, 6e-3),
        (bd.WidenedPoints(bd.TruncatedPoints(bd.RandomPoints(4096), 3.3), 1.2), 4096, 6e-2),
        (bd.TruncatedPoints(bd.GaussHermitePoints(8, discard=0.0), 5.0), 192, 1e-3),
    ],
    ids=repr,
)
def test_moments_of_points(design, number, tolerance):
    mixture = example()
    points, weights = mixture.particles(design, KEY)
    assert points.shape == (weights.size, 2)
    assert number is None or weights.size == number
    np.testing.assert_allclose(weights.sum(), 1.0, rtol=1e-13)
    mean, covariance = moments(mixture)
    np.testing.assert_allclose(weights @ points, mean, atol=tolerance)
    y = points - mean
    np.testing.assert_allclose((y.T * weights) @ y, covariance, atol=tolerance)
    np.testing.assert_array_equal(points, mixture.particles(design, KEY)[0])


def test_a_gauss_hermite_grid_is_exact_for_polynomials():
    mixture = bd.GaussianMixture([0.2, 0.8], [[-1.0], [2.0]], [0.5, 0.3])
    points, weights = mixture.particles(bd.GaussHermitePoints(4, discard=0.0))
    for power in range(9):
        exact = sum(
            w * norm(m, np.sqrt(v)).moment(power) for w, m, v in ((0.2, -1.0, 0.5), (0.8, 2.0, 0.3))
        )
        error = abs(weights @ points[:, 0] ** power - exact)
        assert error < 1e-12 * exact if power < 8 else error > 1e-4 * exact


@pytest.mark.slow
def test_random_points_are_equally_weighted_draws():
    mixture = example()
    points, weights = mixture.particles(bd.RandomPoints(4000), KEY)
    np.testing.assert_array_equal(weights, np.full(4000, 1 / 4000))
    for axis in range(2):

        def distribution(x, axis=axis):
            spread = np.sqrt(mixture.covariances[:, axis, axis])
            return np.sum(
                mixture.weights * norm.cdf((x[:, None] - mixture.means[:, axis]) / spread), axis=1
            )

        assert kstest(np.asarray(points[:, axis]), distribution).pvalue > 0.01
        # A Gaussian of the same mean and variance is told apart, or the line above would say little.
    gaussian = norm(points[:, 1].mean(), points[:, 1].std()).cdf
    assert kstest(np.asarray(points[:, 1]), gaussian).pvalue < 1e-4
    assert np.all(mixture.particles(bd.RandomPoints(8), jax.random.key(8))[0] != points[:8])
    with pytest.raises(ValueError, match=r"needs a key"):
        mixture.particles(bd.RandomPoints(8))


@pytest.mark.parametrize("design", [bd.GaussHermitePoints(6), bd.SobolPoints(4096)], ids=repr)
def test_points_are_differentiable_in_the_mixture(design):
    def second_moment(share, mean, variance):
        mixture = bd.GaussianMixture([share, 1 - share], jnp.array([[0.0], [1.0]]) * mean, variance)
        points, weights = mixture.particles(design, KEY)
        return weights @ points[:, 0] ** 2 / jnp.sum(weights)

    slopes = jax.grad(second_moment, argnums=(0, 1, 2))(0.3, 2.0, 0.5)
    # E x² = variance + (1 - share) mean²
    np.testing.assert_allclose(slopes, [-4.0, 2.8, 1.0], rtol=1e-2)


@pytest.mark.parametrize("design", [bd.GaussHermitePoints(4), bd.SobolPoints(8), bd.RandomPoints(8)])
def test_float32(design):
    mixture = example(jnp.float32, momentum=[1.0, 2.0], phase=twist)
    assert mixture.dtype == jnp.float32
    assert cast_floats(mixture, jnp.float32) == mixture
    points, weights = mixture.particles(design, KEY)
    assert points.dtype == weights.dtype == jnp.float32
    for value in everything(mixture, points[0], jnp.ones(2, jnp.float32)):
        assert value.dtype == jnp.float32


def test_bad_weights_under_jit_are_nan():
    @eqx.filter_jit
    def log_density(weights):
        return bd.GaussianMixture(weights, [[0.0], [1.0]], 1.0).log_density(jnp.zeros(1))

    assert jnp.isfinite(log_density(jnp.array([0.5, 0.5])))
    assert jnp.isnan(log_density(jnp.array([0.5, -0.5])))


def test_a_phase_is_a_module_with_its_numbers_as_leaves():
    mixtures = [bd.GaussianMixture([1.0], [[0.0]], 1.0, phase=lambda x, s=s: s * x[0]) for s in (0.5, 2.0)]
    assert jax.tree.structure(mixtures[0]) == jax.tree.structure(mixtures[1])
    phase = jax.jit(lambda state: state.phase(jnp.ones(1)))
    np.testing.assert_allclose([phase(state) for state in mixtures], [0.5, 2.0])


@pytest.mark.long
def test_two_humps_move_as_in_the_exact_solution():
    initial = bd.GaussianMixture(
        [0.6, 0.4], [[-0.6], [0.7]], [0.4, 0.5], momentum=[0.5], phase=lambda x: 0.1 * jnp.sum(x**2)
    )
    problem = bd.Problem(bd.Hamiltonian(lambda t, x: 0.5 * jnp.sum(x**2)), initial, t1=1.0)
    exact = bd.solve(problem, bd.SplitOperator(points=128, lower=-8.0, upper=8.0))
    solution = bd.solve(problem, bd.SequentialScoreMatching(degree=6))
    found = bd.compare(solution, exact)
    assert found.mean_max < 2e-5
    assert found.std_max < 3e-3
    assert found.energy_max < 4e-3
    # More than the Gaussian of the same moments would do.
    mean, covariance = moments(initial)
    packet = bd.GaussianWavePacket(mean, covariance, momentum=[0.5])
    other = bd.solve(
        bd.Problem(problem.hamiltonian, packet, t1=1.0), bd.SplitOperator(128, lower=-8.0, upper=8.0)
    )
    assert abs(other.std()[-1] - exact.std()[-1])[0] > 10 * found.std_max[0]
    paths = solution.sample(KEY, 2000)
    np.testing.assert_allclose(paths[:, -1].mean(0), exact.mean()[-1], atol=0.06)
    np.testing.assert_allclose(paths[:, -1].std(0), exact.std()[-1], atol=0.06)


def test_what_needs_a_gaussian_says_so():
    problem = bd.Problem(bd.Hamiltonian(lambda t, x: 0.5 * jnp.sum(x**2)), example(), t1=1.0)
    with pytest.raises(ValueError, match=r"needs a GaussianWavePacket .* but GaussianMixture was given"):
        bd.solve(problem, bd.GaussianDynamics())
    with pytest.raises(ValueError, match=r"of a GaussianWavePacket, but .* GaussianMixture"):
        bd.HarmonicScore(problem)


NAN = float("nan")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"means": [0.0, 1.0]}, r"means must have shape \(n, d\).*shape \(2,\) was given.*\[\[first\]"),
        ({"means": []}, "means must have shape"),
        ({"means": [[0.0, NAN], [1.0, 1.0]]}, "means must be finite"),
        ({"means": "here"}, "means must be a real number"),
        ({"weights": [1.0]}, r"weights must have shape \(2,\), one per row of means, but shape \(1,\)"),
        ({"weights": 1.0}, r"weights must have shape \(2,\)"),
        ({"weights": [1.0, 0.0]}, r"weights must be positive, but \[1., 0.\].*Leave out"),
        ({"weights": [1.5, -0.5]}, "weights must be positive"),
        ({"weights": [1.0, NAN]}, "weights must be finite"),
        ({"covariances": [1.0, 1.0, 1.0]}, r"\(2,\), \(2, 2\) or \(2, 2, 2\).*shape \(3,\).*counts comp"),
        ({"covariances": [np.eye(2)]}, r"covariances must .*shape \(1, 2, 2\)"),
        ({"covariances": [np.eye(2), [[1.0, 0.2], [0.1, 1.0]]]}, "covariances must be symmetric"),
        ({"covariances": [np.eye(2), [[1.0, 2.0], [2.0, 1.0]]]}, "covariances must be positive definite"),
        ({"covariances": [1.0, -1.0]}, "covariances must be positive definite"),
        ({"covariances": np.inf}, "covariances must be finite"),
        ({"momentum": [1.0]}, r"momentum must have shape \(2,\), but shape \(1,\)"),
        ({"momentum": [1.0, NAN]}, "momentum must be finite"),
        ({"phase": lambda x: x}, r"phase\(x\) must return a real array of shape \(\) .* shape \(2,\)"),
        (
            {"phase": lambda t, x: x[0]},
            r"phase could not be evaluated as phase\(x\) with x of shape \(2,\)",
        ),
    ],
)
def test_errors(arguments, message):
    allowed = {"weights": [0.5, 0.5], "means": [[0.0, 0.0], [1.0, 1.0]], "covariances": 1.0}
    with unchecked_types(), pytest.raises(ValueError, match=message):
        bd.GaussianMixture(**{**allowed, **arguments})
