import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.stats import multivariate_normal
from tests.unchecked import unchecked_types

import bohmdiff as bd
from bohmdiff._check import cast_floats

D = 3
vectors = arrays(np.float64, (D,), elements=st.floats(-2.0, 2.0))
matrices = arrays(np.float64, (D, D), elements=st.floats(-1.0, 1.0))
MASS = jnp.array([1.0, 2.0, 0.5])


@eqx.filter_jit
def everything(packet, x, mass):
    return (
        packet.log_density(x),
        packet.score(x),
        packet.phase(x),
        packet.velocity(x, mass),
        packet.velocity_gradient(x, mass),
    )


@given(mean=vectors, root=matrices, momentum=vectors, chirp=matrices, x=vectors)
@settings(max_examples=40)
def test_closed_forms(mean, root, momentum, chirp, x):
    covariance, chirp = root @ root.T + 0.2 * np.eye(D), chirp + chirp.T
    packet = bd.GaussianWavePacket(mean, covariance, momentum, chirp)
    log_density, score, phase, velocity, gradient = everything(packet, jnp.asarray(x), MASS)
    y = x - mean
    close = {"rtol": 1e-9, "atol": 1e-9}
    np.testing.assert_allclose(log_density, multivariate_normal(mean, covariance).logpdf(x), **close)
    np.testing.assert_allclose(score, -np.linalg.solve(covariance, y), **close)
    np.testing.assert_allclose(phase, momentum @ y + 0.5 * y @ chirp @ y, **close)
    np.testing.assert_allclose(velocity, (momentum + chirp @ y) / MASS, **close)
    np.testing.assert_allclose(gradient, chirp / MASS[:, None], **close)


def test_a_scalar_mass_and_a_packet_at_rest():
    packet = bd.GaussianWavePacket([0.5, 0.0], 0.5)
    x = jnp.array([1.0, 2.0])
    assert packet.phase(x) == 0.0
    np.testing.assert_array_equal(packet.velocity(x, jnp.array(2.0)), [0.0, 0.0])
    moving = bd.GaussianWavePacket([0.5, 0.0], 0.5, momentum=[1.0, -3.0])
    np.testing.assert_array_equal(moving.velocity(x, jnp.array(2.0)), [0.5, -1.5])


@pytest.mark.parametrize(
    ("covariance", "full"),
    [
        (0.5, 0.5 * np.eye(2)),
        (2, 2 * np.eye(2)),
        ([0.5, 2.0], np.diag([0.5, 2.0])),
        ([[1.0, 0.3], [0.3, 0.7]], np.array([[1.0, 0.3], [0.3, 0.7]])),
    ],
)
def test_forms_of_the_covariance(covariance, full):
    packet = bd.GaussianWavePacket([1.0, -1.0], covariance)
    np.testing.assert_array_equal(packet.covariance, full)
    x = np.array([0.3, 0.4])
    expected = multivariate_normal([1.0, -1.0], full).logpdf(x)
    np.testing.assert_allclose(packet.log_density(jnp.asarray(x)), expected, rtol=1e-13)


def test_the_density_is_that_of_the_points():
    packet = bd.GaussianWavePacket([1.0, -1.0], [[1.0, 0.3], [0.3, 0.7]])
    points, weights = packet.particles(bd.GaussHermitePoints(8))
    np.testing.assert_allclose(weights.sum(), 1.0, rtol=1e-14)
    mean = weights @ points
    np.testing.assert_allclose(mean, [1.0, -1.0], atol=1e-12)
    spread = (points - mean).T * weights @ (points - mean)
    np.testing.assert_allclose(spread, packet.covariance, atol=1e-4)


def test_parameters_are_differentiable():
    mean, covariance = jnp.array([1.0, -1.0]), jnp.array([[1.0, 0.3], [0.3, 0.7]])
    x = jnp.array([0.2, 0.4])

    def log_density(mean, covariance):
        return bd.GaussianWavePacket(mean, covariance).log_density(x)

    by_mean, by_covariance = jax.jit(jax.grad(log_density, argnums=(0, 1)))(mean, covariance)
    z = np.linalg.solve(covariance, x - mean)
    np.testing.assert_allclose(by_mean, z, rtol=1e-12)
    np.testing.assert_allclose(
        0.5 * (by_covariance + by_covariance.T),
        0.5 * (np.outer(z, z) - np.linalg.inv(covariance)),
        rtol=1e-12,
    )


def test_points_are_differentiable_in_the_packet():
    def second_moment(scale):
        points, weights = bd.GaussianWavePacket([1.0], scale).particles(bd.GaussHermitePoints(5, discard=0))
        return weights @ points[:, 0] ** 2

    np.testing.assert_allclose(jax.grad(second_moment)(0.7), 1.0, rtol=1e-12)


@pytest.mark.parametrize("design", [bd.GaussHermitePoints(4), bd.SobolPoints(8), bd.RandomPoints(8)])
def test_float32(design):
    packet = bd.GaussianWavePacket(jnp.ones(2, jnp.float32), 0.5, momentum=[1.0, 2.0], chirp=np.eye(2))
    assert packet.dtype == jnp.float32
    assert cast_floats(packet, jnp.float32) == packet
    points, weights = packet.particles(design, jax.random.key(0))
    assert points.dtype == weights.dtype == jnp.float32
    for value in everything(packet, points[0], jnp.ones(2, jnp.float32)):
        assert value.dtype == jnp.float32


def test_bad_covariance_under_jit_is_nan():
    @eqx.filter_jit
    def log_density(covariance):
        return bd.GaussianWavePacket([0.0, 0.0], covariance).log_density(jnp.zeros(2))

    assert jnp.isfinite(log_density(jnp.eye(2)))
    assert jnp.isnan(log_density(-jnp.eye(2)))


NAN = float("nan")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"mean": 1.0}, r"mean must have shape \(d,\).*mean=\[value\]"),
        ({"mean": [[1.0, 0.0]]}, r"mean must have shape .* \(1, 2\)"),
        ({"mean": []}, "mean must have shape"),
        ({"mean": [1.0, NAN]}, r"mean must be finite, but \[ 1., nan\]"),
        ({"mean": "here"}, "mean must be a real number"),
        ({"mean": [1j, 0]}, "mean must be a real number"),
        ({"mean": None}, "mean must be a real number"),
        ({"mean": [[1.0], [1.0, 2.0]]}, "mean must be a real number"),
        ({"covariance": [1.0, 1.0, 1.0]}, r"shape \(2,\) or \(2, 2\).*shape \(3,\)"),
        ({"covariance": [[1.0, 0.2], [0.1, 1.0]]}, r"covariance must be symmetric, but \[\[1. , 0.2\]"),
        ({"covariance": [[1.0, 2.0], [2.0, 1.0]]}, "covariance must be positive definite"),
        ({"covariance": -1.0}, "covariance must be positive definite"),
        ({"covariance": [1.0, 0.0]}, "covariance must be positive definite"),
        ({"covariance": np.inf}, "covariance must be finite"),
        ({"covariance": "wide"}, "covariance must be a real number"),
        ({"momentum": 1.0}, r"momentum must have shape \(2,\), but shape \(\)"),
        ({"momentum": [1.0, 2.0, 3.0]}, r"momentum must have shape \(2,\), but shape \(3,\)"),
        ({"momentum": [1.0, NAN]}, "momentum must be finite"),
        ({"chirp": 1.0}, r"chirp must have shape \(2, 2\), but shape \(\)"),
        ({"chirp": [[0.0, 1.0], [0.0, 0.0]]}, "chirp must be symmetric, since S0 is a scalar"),
        ({"chirp": [[NAN, 1.0], [1.0, 0.0]]}, "chirp must be finite"),
    ],
)
def test_errors(arguments, message):
    with unchecked_types(), pytest.raises(ValueError, match=message):
        bd.GaussianWavePacket(**{"mean": [0.0, 0.0], "covariance": 1.0, **arguments})
