"""Pulses of light, and the potential of a dipole moment in them."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tests.unchecked import unchecked_types

import bohmdiff as bd
from bohmdiff._check import cast_floats
from bohmdiff.hamiltonian import PolynomialDipole, depends_on_time
from bohmdiff.testing import check_potential

NUMBERS = {"amplitude": 0.3, "frequency": 2.0, "centre": 1.5, "duration": 4.0, "phase": 0.4}
AXIS = [1.0, -2.0, 2.0]  # of length 3
PULSES = [bd.GaussianPulse, bd.SineSquaredPulse]
CURVATURE = np.random.default_rng(0).normal(size=(3, 3, 3))
DIPOLE = PolynomialDipole(
    jnp.array([0.1, 0.2, 0.3]),
    jnp.array([[0.5, 0.0, -0.4], [0.1, 0.2, 0.0], [0.0, -0.3, 0.6]]),
    jnp.array(CURVATURE + CURVATURE.transpose(0, 2, 1)),
    jnp.array(5.0),
)
X = jnp.array([0.4, -0.7, 0.9])
every_pulse = pytest.mark.parametrize("kind", PULSES)


@every_pulse
def test_the_field_is_an_envelope_times_a_carrier(kind):
    pulse, along = kind(**NUMBERS), kind(**NUMBERS, polarisation=AXIS)
    assert pulse.envelope(1.5) == 1
    np.testing.assert_allclose(pulse(1.5), 0.3 * np.cos(0.4), rtol=1e-14)
    for t in (0.2, 1.0, 2.3, 3.1):
        expected = 0.3 * pulse.envelope(t) * np.cos(2.0 * (t - 1.5) + 0.4)
        np.testing.assert_allclose(pulse(t), expected, rtol=1e-12)
        np.testing.assert_allclose(along(t), expected * np.array(AXIS) / 3, rtol=1e-12)


def test_the_duration_of_a_gaussian_is_the_width_of_its_intensity():
    pulse = bd.GaussianPulse(**NUMBERS)
    np.testing.assert_allclose(pulse.envelope(1.5 + 2.0) ** 2, 0.5, rtol=1e-12)
    np.testing.assert_allclose(pulse.envelope(1.5 - 2.0) ** 2, 0.5, rtol=1e-12)


def test_a_sine_squared_pulse_begins_and_ends():
    pulse = bd.SineSquaredPulse(**NUMBERS)
    start, end = -0.5, 3.5
    for t in (start - 10.0, start, end, end + 10.0):
        np.testing.assert_allclose(pulse(t), 0.0, atol=1e-30)
        np.testing.assert_allclose(jax.grad(pulse)(t), 0.0, atol=1e-15)
    np.testing.assert_allclose(pulse.envelope(start + 1.0), np.sin(np.pi / 4) ** 2, rtol=1e-12)
    np.testing.assert_allclose(pulse.envelope(1.5 + 0.182 * 4.0) ** 2, 0.5, atol=1e-3)


@every_pulse
@pytest.mark.parametrize("name", [*NUMBERS, "polarisation"])
def test_every_parameter_is_differentiable(kind, name):
    given = NUMBERS | {"polarisation": AXIS}
    direction = np.array([0.3, 0.5, -0.2]) if name == "polarisation" else 1.0

    def field(shift):
        return jnp.sum(kind(**given | {name: jnp.asarray(given[name]) + shift * direction})(0.9) ** 2)

    h = 1e-5
    difference = (field(h) - field(-h)) / (2 * h)
    np.testing.assert_allclose(jax.grad(field)(0.0), difference, rtol=1e-6, atol=1e-9)


def test_the_potential_is_minus_field_times_dipole():
    scalar = bd.Laser(lambda t: 0.5 * t, lambda x: x[0] ** 2)
    np.testing.assert_allclose(scalar(0.6, X), -0.3 * 0.16, rtol=1e-12)
    pulse = bd.GaussianPulse(**NUMBERS, polarisation=AXIS)
    expected = -np.asarray(pulse(0.6)) @ np.asarray(DIPOLE(X))
    np.testing.assert_allclose(bd.Laser(pulse, DIPOLE)(0.6, X), expected, rtol=1e-12)


def test_a_dipole_is_its_polynomial_near_the_minimum_and_bounded_far_out():
    x = np.array([0.4, -2.7, 3.9])
    curvature = np.asarray(DIPOLE.curvature)
    expected = np.asarray(DIPOLE.constant) + np.asarray(DIPOLE.gradient) @ x + 0.5 * curvature @ x @ x
    np.testing.assert_allclose(DIPOLE(jnp.asarray(x)), expected, atol=3e-5)
    far = [DIPOLE(jnp.asarray(scale * x)) for scale in (1e2, 1e6, 1e200)]
    np.testing.assert_allclose(far[0], far[1], rtol=1e-12)
    np.testing.assert_allclose(far[0], far[2], rtol=1e-12)


@pytest.mark.slow
def test_terms_of_few_coordinates_add_up():
    laser = bd.Laser(bd.GaussianPulse(**NUMBERS, polarisation=AXIS), DIPOLE)
    terms = laser.separable_terms(3)
    assert sorted(term.coordinates for term in terms) == [(0,), (0, 1), (0, 2), (1,), (1, 2), (2,)]
    for t in (0.2, 1.4):
        total = sum(term.potential(t, X[jnp.array(term.coordinates)]) for term in terms)
        np.testing.assert_allclose(total, laser(t, X), rtol=1e-12)
    linear = eqx.tree_at(lambda dipole: dipole.curvature, DIPOLE, jnp.zeros((3, 3, 3)))
    assert len(bd.Laser(laser.field, linear).separable_terms(3)) == 3


def test_any_other_dipole_is_one_term():
    laser = bd.Laser(lambda t: t, lambda x: jnp.sin(x[0]) * x[1])
    (term,) = laser.separable_terms(2)
    assert term.coordinates == (0, 1)
    np.testing.assert_allclose(term.potential(0.3, X[:2]), laser(0.3, X[:2]), rtol=1e-14)


@pytest.mark.slow
def test_law():
    check_potential(
        bd.Laser(bd.GaussianPulse(**NUMBERS, polarisation=AXIS), DIPOLE), 3, time_dependent=True
    )


@every_pulse
def test_float32(kind):
    laser = cast_floats(bd.Laser(kind(**NUMBERS, polarisation=AXIS), DIPOLE), jnp.float32)
    value, slope = jax.eval_shape(
        jax.value_and_grad(laser, argnums=1), jnp.float32(0.3), X.astype(jnp.float32)
    )
    assert value.dtype == slope.dtype == jnp.float32
    # A field of the user in double precision.
    given = bd.Laser(lambda t: jnp.ones(3), cast_floats(DIPOLE, jnp.float32))
    assert jax.eval_shape(given, jnp.float32(0.3), X.astype(jnp.float32)).dtype == jnp.float32
    assert jax.eval_shape(laser.dipole, X.astype(jnp.float32)).dtype == jnp.float32


def test_a_driven_hamiltonian_depends_on_time():
    hamiltonian = bd.Hamiltonian(bd.Quadratic(1.0))
    laser = bd.Laser(bd.GaussianPulse(**NUMBERS), lambda x: x[0])
    assert not depends_on_time(hamiltonian, 1, jnp.float64)
    assert depends_on_time(hamiltonian + laser, 1, jnp.float64)


@pytest.mark.slow
def test_a_driven_oscillator_follows_the_closed_form():
    mass, omega, charge = 1.3, 1.7, 0.8
    pulse = bd.GaussianPulse(**NUMBERS)
    hamiltonian = bd.Hamiltonian(bd.Quadratic(mass * omega**2), mass) + bd.Laser(
        pulse, lambda x: charge * x[0]
    )
    problem = bd.Problem(hamiltonian, bd.GaussianWavePacket([0.0], 0.5 / (mass * omega)), t0=-0.5, t1=4.0)
    solution = bd.solve(problem, bd.GaussianDynamics(), ts=[2.0, 4.0])
    for t, mean in zip(solution.ts, solution.mean()[:, 0], strict=True):
        nodes, weights = np.polynomial.legendre.leggauss(200)
        s = -0.5 + 0.5 * (t + 0.5) * (nodes + 1)
        force = charge * np.asarray(jax.vmap(pulse)(jnp.asarray(s)))
        expected = 0.5 * (t + 0.5) * np.sum(weights * np.sin(omega * (t - s)) * force) / (mass * omega)
        np.testing.assert_allclose(mean, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: bd.Laser(0.5, DIPOLE), "field must be a function of the time t"),
        (lambda: bd.Laser(lambda t: t, [0.1, 0.2, 0.3]), "dipole must be a function of the position x"),
        (lambda: bd.Laser(lambda t: jnp.ones(2), DIPOLE), r"field .* returned shape \(2,\)"),
        (lambda: bd.Laser(lambda t: "strong", DIPOLE), "field must return a number or a vector"),
        (lambda: bd.Laser(lambda t: 1j * t, DIPOLE), "field must return .* its dtype is complex"),
        (lambda: bd.Laser(lambda t: t, DIPOLE)(0.1, X), r"field\(t\) has shape \(\) .* polarisation"),
        (lambda: bd.Laser(lambda t: t, lambda x: x)(0.1, X[:2]), r"dipole .* returned shape \(2,\)"),
        (lambda: bd.Laser(lambda t: jnp.ones(3), DIPOLE)(0.1, X[:2]), r"x must have shape \(3,\)"),
        (lambda: bd.GaussianPulse(1.0, 1.0, 0.0, 0.0), "duration must be positive, but 0. was given"),
        (lambda: bd.SineSquaredPulse(1.0, 1.0, 0.0, -1.0), "duration must be positive"),
        (lambda: bd.GaussianPulse([1.0, 2.0], 1.0, 0.0, 1.0), "amplitude must be a single number"),
        (lambda: bd.GaussianPulse(**NUMBERS, polarisation=[1.0, 0.0]), r"polarisation .* shape \(2,\)"),
        (lambda: bd.SineSquaredPulse(**NUMBERS, polarisation=[0.0] * 3), "polarisation must not be zero"),
    ],
)
def test_errors(make, message):
    with unchecked_types(), pytest.raises(ValueError, match=message):
        make()
