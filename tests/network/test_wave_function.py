"""A wave function as a network: where it starts, and of what kind it is."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import bohmdiff as bd
from tests.network.test_velocity import narrow, on
from tests.unchecked import unchecked_types

KEY = jax.random.key(0)


@pytest.mark.slow
@pytest.mark.parametrize("logarithmic", [True, False])
def test_exact_at_the_start_by_construction(logarithmic):
    problem = narrow(3)
    psi = bd.NeuralWaveFunction(problem, logarithmic=logarithmic, width=8, key=KEY)
    x = problem.initial.particles(bd.RandomPoints(50), KEY)[0]
    density, phase = jax.jit(
        jax.vmap(lambda y: (problem.initial.log_density(y), problem.initial.phase(y)))
    )(x)
    exact = np.exp(0.5 * density + 1j * phase / problem.hamiltonian.hbar)
    np.testing.assert_allclose(on(psi, 0.5, x), exact, rtol=1e-12)
    assert np.max(np.abs(on(psi, 0.6, x) / exact - 1)) > 1e-3
    free = bd.NeuralWaveFunction(problem, logarithmic=logarithmic, exact_start=False, width=8, key=KEY)
    assert np.max(np.abs(on(free, 0.5, x) / exact - 1)) > 0.1


@pytest.mark.parametrize("exact_start", [True, False])
def test_the_frame_that_spreads_keeps_the_norm(exact_start):
    """Without the parameters ψ is a packet that widens, and stays normalised."""
    problem = narrow(1)
    psi = bd.NeuralWaveFunction(problem, exact_start=exact_start, width=4, key=KEY)
    psi = without_head(psi)
    psi = eqx.tree_at(last_layer, psi, jnp.zeros_like(last_layer(psi)))
    x = np.linspace(-20, 20, 8001)
    for t in (0.5, 1.1, 2.0):
        density = np.abs(on(psi, t, x[:, None])) ** 2
        np.testing.assert_allclose(np.sum(density) * (x[1] - x[0]), 1, rtol=1e-6)
        mean = np.sum(density * x) * (x[1] - x[0])
        widths = np.sqrt(np.sum(density * (x - mean) ** 2) * (x[1] - x[0])) / psi.start.frame.std_at(t)
        np.testing.assert_allclose(widths, 1, rtol=1e-6)


def test_a_factor_adds_to_psi_and_a_logarithm_multiplies_it():
    """Twice the network is twice the factor, less one; or the square of ψ over ψ0."""
    problem, t, x = narrow(1), 2.0, jnp.array([[0.3]])
    for logarithmic in (True, False):
        psi = bd.NeuralWaveFunction(problem, logarithmic=logarithmic, width=8, key=KEY)
        silent = without_head(psi)
        base = eqx.tree_at(last_layer, silent, jnp.zeros_like(last_layer(silent)))
        twice = eqx.tree_at(last_layer, silent, 2 * last_layer(silent))
        here, none, two = (complex(on(one, t, x)[0]) for one in (silent, base, twice))
        once = here / none
        assert abs(once - 1) > 1e-3
        expected = once**2 if logarithmic else 2 * once - 1
        np.testing.assert_allclose(two / none, expected, rtol=1e-12)


def without_head(psi):
    """With no coefficients, and no bias in the end."""
    head = jax.tree.map(lambda leaf: 0.0 * leaf if eqx.is_array(leaf) else leaf, psi.layers.head)
    psi = eqx.tree_at(lambda one: one.layers.head, psi, head)
    return eqx.tree_at(lambda one: one.layers.body.layers[-1].bias, psi, jnp.zeros(2))


def last_layer(psi):
    return psi.layers.body.layers[-1].weight


def test_same_key_same_network():
    problem = narrow(1)
    one, same, other = (bd.NeuralWaveFunction(problem, width=4, key=jax.random.key(i)) for i in (0, 0, 1))
    x = jnp.array([[0.3]])
    assert on(one, 1.1, x) == on(same, 1.1, x) != on(other, 1.1, x)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"width": 0}, "width must be an integer of at least 1"),
        ({"depth": 1.5}, "depth must be an integer of at least 1"),
        ({"logarithmic": None}, "logarithmic must be True or False"),
        ({"exact_start": "yes"}, "exact_start must be True or False"),
        ({"key": 3}, "key must be one random key"),
        ({"problem": 3}, "problem must be a Problem"),
    ],
)
def test_bad_options(options, match):
    given = {"problem": narrow(1), "key": KEY} | options
    with unchecked_types(), pytest.raises(ValueError, match=match):
        bd.NeuralWaveFunction(given.pop("problem"), **given)
