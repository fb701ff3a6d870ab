"""Velocity fields as networks: where they start, and of what kind they are."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import bohmdiff as bd
from tests.unchecked import unchecked_types

KEY = jax.random.key(0)


@eqx.filter_jit
def on(field, t, x):
    """A field on many points (M, d), of which one compilation serves all of its kind."""
    return jax.vmap(lambda y: field(t, y))(x)


def narrow(d=2):
    """It has spread sixfold in the end."""
    return bd.Problem(
        bd.Hamiltonian(bd.Quadratic(0.5), mass=jnp.arange(1.0, d + 1), hbar=0.7),
        bd.GaussianMixture([0.6, 0.4], [[0.1] * d, [-0.1] * d], [0.05, 0.08], momentum=[0.3] * d),
        t1=2.0,
        t0=0.5,
    )


@pytest.mark.parametrize("gradient", [pytest.param(True, marks=pytest.mark.slow), False])
def test_exact_at_the_start_by_construction(gradient):
    problem = narrow()
    u, v = bd.velocity_networks(problem, gradient=gradient, width=8, key=KEY)
    x = problem.initial.particles(bd.RandomPoints(50), KEY)[0]
    hamiltonian = problem.hamiltonian
    exact_u = 0.5 * hamiltonian.hbar / hamiltonian.mass * jax.jit(jax.vmap(problem.initial.score))(x)
    exact_v = jax.jit(jax.vmap(lambda y: problem.initial.velocity(y, hamiltonian.mass)))(x)
    np.testing.assert_allclose(on(u, 0.5, x), exact_u, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(on(v, 0.5, x), exact_v, rtol=1e-12, atol=1e-12)
    free_u, free_v = bd.velocity_networks(problem, exact_start=False, width=8, key=KEY)
    assert np.max(np.abs(on(free_u, 0.5, x) - exact_u)) > 0.1
    assert np.max(np.abs(on(free_v, 0.5, x) - exact_v)) > 0.01


def test_gradients_are_free_of_curl_and_others_are_not():
    problem = narrow()
    mass = problem.hamiltonian.mass
    for gradient in (True, False):
        for field in bd.velocity_networks(problem, gradient=gradient, width=8, key=KEY):
            slope = jax.jit(jax.jacfwd(lambda y, w=field: mass * w(1.3, y)))(jnp.array([0.2, -0.3]))
            curl = abs(float(slope[0, 1] - slope[1, 0])) / float(np.max(np.abs(slope)))
            assert (curl < 1e-12) == gradient


@pytest.mark.slow
def test_networks_are_arrays_and_static_options():
    """They pass through the transformations of JAX itself."""
    problem = narrow(1)
    fields = bd.velocity_networks(problem, width=4, key=KEY)
    wave = bd.NeuralWaveFunction(problem, width=4, key=KEY)
    for network in (*fields, wave):
        assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(network))
        x = jnp.array([0.3])
        once = jax.jit(lambda n, y: n(1.1, y))(network, x)
        np.testing.assert_allclose(once, network(1.1, x), rtol=1e-12)


@pytest.mark.slow
def test_same_key_same_networks():
    problem = narrow(1)
    one, same, other = (
        bd.NeuralVelocity(problem, "current", width=4, key=jax.random.key(seed)) for seed in (0, 0, 1)
    )
    x = jnp.array([[0.3]])
    assert on(one, 1.1, x) == on(same, 1.1, x) != on(other, 1.1, x)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"kind": "forward"}, "kind must be 'osmotic' or 'current', but 'forward'"),
        ({"width": 0}, "width must be an integer of at least 1"),
        ({"depth": 1.5}, "depth must be an integer of at least 1"),
        ({"gradient": None}, "gradient must be True or False"),
        ({"key": 3}, "key must be one random key"),
        ({"problem": 3}, "problem must be a Problem"),
    ],
)
def test_bad_options(options, match):
    given = {"problem": narrow(1), "kind": "osmotic", "key": KEY} | options
    with unchecked_types(), pytest.raises(ValueError, match=match):
        bd.NeuralVelocity(given.pop("problem"), given.pop("kind"), **given)
