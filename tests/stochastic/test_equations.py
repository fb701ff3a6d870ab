"""The equations of the two velocities."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import bohmdiff as bd
import bohmdiff.testing

KEY = jax.random.key(0)


@settings(max_examples=40)
@given(bohmdiff.testing.driven_gaussians(3), st.floats(0, 1), bohmdiff.testing.vectors(3, -2, 2))
def test_exact_velocities_leave_nothing(case, t, x):
    problem = case.problem()
    osmotic = bd.Velocities(problem, case, case.velocity).osmotic
    residuals = residuals_of(problem.hamiltonian, osmotic, case.velocity, t, jnp.array(x))
    assert np.max(np.abs(residuals)) < 1e-8


@jax.jit
def residuals_of(hamiltonian, osmotic, current, t, x):
    return jnp.stack(bd.velocity_residuals(hamiltonian, osmotic, current, t, x))


@pytest.mark.slow
def test_against_the_definition():
    """Of fields that are no gradients, and in which nothing cancels."""
    mass, hbar = jnp.array([0.8, 1.7]), 0.9
    hamiltonian = bd.Hamiltonian(lambda t, x: jnp.sin(x[0]) * x[1] ** 2 + t * x[0], mass, hbar)

    def u(t, x):
        return jnp.array([jnp.sin(x[0] * x[1] + t), x[0] ** 2 * x[1] + jnp.cos(t)])

    def v(t, x):
        return jnp.array([x[1] ** 3 - t * x[0], jnp.exp(-(x[0] ** 2)) + x[0] * x[1] * t**2])

    t, x = jnp.asarray(0.7), jnp.array([0.4, -0.6])
    du, dv = jax.jacfwd(u, 1)(t, x), jax.jacfwd(v, 1)(t, x)
    ddu, ddv = jax.jacfwd(jax.jacfwd(u, 1), 1)(t, x), jax.jacfwd(jax.jacfwd(v, 1), 1)(t, x)
    product = jax.grad(lambda y: jnp.sum(mass * u(t, y) * v(t, y)))(x)
    force = jax.grad(hamiltonian.potential, 1)(t, x)
    of_u = jax.jacfwd(u)(t, x) + (product + 0.5 * hbar * jnp.einsum("jji->i", ddv)) / mass
    of_v = jax.jacfwd(v)(t, x) + (force - 0.5 * hbar * jnp.einsum("jji->i", ddu)) / mass
    of_v = of_v - du @ u(t, x) + dv @ v(t, x)
    found = bd.velocity_residuals(hamiltonian, u, v, t, x)
    np.testing.assert_allclose(found[0], of_u, rtol=1e-12)
    np.testing.assert_allclose(found[1], of_v, rtol=1e-12)


def test_bad_points():
    hamiltonian = bd.Hamiltonian(bd.Quadratic(0.5), mass=[1.0, 2.0])

    def field(t, x):
        return x

    with pytest.raises(ValueError, match=r"x one point, .* shapes \(\) and \(3,\)"):
        bd.velocity_residuals(hamiltonian, field, field, 0.0, jnp.zeros(3))
    with pytest.raises(ValueError, match=r"current\(t, x\) must return a real array of shape \(2,\)"):
        bd.velocity_residuals(hamiltonian, field, lambda t, x: x[0], 0.0, jnp.zeros(2))
