"""A wave function trained to solve the Schrödinger equation, against closed forms and the exact propagation."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.method.test_deep_stochastic import errors, oscillator
from tests.training.runs import divided
from tests.unchecked import unchecked_types

import bohmdiff as bd
import bohmdiff.testing
from bohmdiff.method.physics_informed.method import schroedinger_residual

KEY = jax.random.key(1)
ONCE = bd.Training(epochs=1)


def trained(problem, epochs, network=None, **options):
    psi = bd.NeuralWaveFunction(problem, **({"width": 16, "key": jax.random.key(0)} | (network or {})))
    training, options = divided({"epochs": epochs} | options)
    return bd.solve(problem, bd.PhysicsInformedNetwork(psi, training=training, **options), key=KEY)


def test_residual_against_the_definition():
    mass, hbar = jnp.array([0.8, 1.7]), 0.9
    hamiltonian = bd.Hamiltonian(lambda t, x: jnp.sin(x[0]) * x[1] ** 2 + t * x[0], mass, hbar)

    def psi(t, x):
        real, imaginary = jnp.sin(x[0] * x[1] + t), x[0] ** 2 * x[1] + jnp.cos(t * x[1])
        return jax.lax.complex(real, imaginary)

    def part(which):
        return lambda t, x: which(psi(t, x))

    t, x = jnp.asarray(0.7), jnp.array([0.4, -0.6])
    parts = part(jnp.real), part(jnp.imag)
    rate = sum(unit * jax.grad(one)(t, x) for unit, one in zip((1, 1j), parts, strict=True))
    curvature = sum(
        unit * jnp.diag(jax.hessian(one, 1)(t, x)) for unit, one in zip((1, 1j), parts, strict=True)
    )
    energy = -0.5 * hbar**2 * jnp.sum(curvature / mass) + hamiltonian.potential(t, x) * psi(t, x)
    expected = 1j * hbar * rate - energy
    value, residual = schroedinger_residual(hamiltonian, psi, t, x)
    np.testing.assert_allclose(residual, [expected.real, expected.imag], rtol=1e-12)
    np.testing.assert_allclose(value, [psi(t, x).real, psi(t, x).imag], rtol=1e-14)


@settings(max_examples=25)
@given(bohmdiff.testing.driven_gaussians(2), st.floats(0, 1), bohmdiff.testing.vectors(2, -2, 2))
def test_exact_wave_functions_leave_nothing(case, t, x):
    """But for a phase that depends on time alone, and is left out of this ψ: the same ratio at any two places."""
    t, pair = jnp.asarray(t), jnp.stack([jnp.array(x), case.centre_at(t)[0]])
    first, second = ratios(case, case.problem().hamiltonian, t, pair)
    assert np.max(np.abs(first - second)) < 1e-8


@jax.jit
def ratios(case, hamiltonian, t, places):
    def psi(t, x):
        logarithm = jax.lax.complex(
            0.5 * case.log_density(t, x), case.phase(t, x, 0.0 * t) / hamiltonian.hbar
        )
        return jnp.exp(logarithm)

    def ratio(x):
        value, residual = schroedinger_residual(hamiltonian, psi, t, x)
        return jax.lax.complex(residual[0], residual[1]) / jax.lax.complex(value[0], value[1])

    return jax.vmap(ratio)(places)


@pytest.mark.long
def test_an_oscillator():
    problem = oscillator(momentum=-0.05)
    solution = trained(problem, 40)
    found = errors(solution)
    assert max(found.values()) < 1e-2, found
    history = solution.history
    assert history["residual"][-1] < 1e-3 * history["residual"][0]
    exact = bd.solve(problem, bd.GaussianDynamics(), ts=solution.ts)
    x = jnp.linspace(-0.8, 1.0, 801)[:, None]
    step = float(x[1, 0] - x[0, 0])
    own, right = (jax.vmap(lambda y, s=s: s.wave_function(1.0, y))(x) for s in (solution, exact))
    distance = np.sqrt(np.sum(np.abs(own - right) ** 2) * step)
    # What is missing adds up, and is not the distance of something else.
    assert distance < np.sqrt(float(history["residual"][-1])) * 1.1 < 0.1
    np.testing.assert_allclose(
        jax.vmap(lambda y: solution.log_density(1.0, y))(x), 2 * np.log(np.abs(own)), atol=1e-9
    )
    paths = bd.nelson_process(solution, 4096, key=KEY, ts=[1.0], steps=32)
    np.testing.assert_allclose(np.std(paths), solution.std()[-1, 0], rtol=0.06)
    assert solution.trajectories([[0.0], [0.3]]).shape == (2, 101, 1)


@pytest.mark.parametrize(
    ("network", "options"),
    [
        pytest.param({"exact_start": False}, {"box": (-3.0, 3.0)}, id="box", marks=pytest.mark.long),
        pytest.param({"logarithmic": False}, {}, id="factor", marks=pytest.mark.long),
    ],
)
def test_other_points_and_networks(network, options):
    """An ħ that is not small: phases of a few radians, where uniform points will do."""
    problem = bd.Problem(
        bd.Hamiltonian(bd.Quadratic(1.0, centre=[0.3])), bd.GaussianWavePacket([0.0], 0.3), t1=1.0
    )
    found = errors(trained(problem, 50, network, **options))
    assert max(found.values()) < 5e-2, found


@pytest.mark.long
def test_resumed_to_the_bit(tmp_path):
    options = {"particles": 16, "steps": 4, "validate_every": 3, "checkpoint_every": 2}

    def parameters(solution):
        return jax.tree.leaves(eqx.filter(solution.psi, eqx.is_array))

    whole = trained(oscillator(), 5, directory=tmp_path / "whole", **options)
    trained(oscillator(), 4, directory=tmp_path / "parts", **options)
    parts = trained(oscillator(), 5, directory=tmp_path / "parts", resume=True, **options)
    for one, other in zip(parameters(whole), parameters(parts), strict=True):
        np.testing.assert_array_equal(one, other)
    with pytest.raises(ValueError, match=r"another run: its box is not the same"):
        trained(oscillator(), 6, directory=tmp_path / "parts", resume=True, box=(-1, 1), **options)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"psi": 1.0}, r"psi must be a callable psi\(t, x\)"),
        ({"psi": lambda t, x: 1j * x[0]}, "psi has no parameters to train"),
        ({"particles": 0}, "particles must be an integer of at least 1"),
        ({"steps": 0}, "steps must be an integer of at least 1"),
        ({"initial_weight": -1.0}, "initial_weight must not be negative, but -1.0"),
        ({"boundary_weight": np.nan}, "boundary_weight must not be negative, but nan"),
        ({"box": 3.0}, "box must be a pair of lower and upper ends"),
        ({"box": (1.0, [0.0, 2.0])}, "box must have lower ends below the upper ones"),
        ({"training": 30}, r"such as Training\(epochs=30\), but 30"),
    ],
)
def test_bad_options(options, match):
    psi = bd.NeuralWaveFunction(oscillator(), width=2, key=KEY)
    with unchecked_types(), pytest.raises(ValueError, match=match):
        bd.PhysicsInformedNetwork(**({"psi": psi, "training": ONCE} | options))


class Flat(eqx.Module):
    level: jax.Array

    def __call__(self, t, x):
        return self.level


def test_what_only_shows_when_it_runs():
    psi = bd.NeuralWaveFunction(oscillator(), width=2, key=KEY)
    method = bd.PhysicsInformedNetwork(psi, training=ONCE, particles=4)
    with pytest.raises(ValueError, match="needs a key"):
        bd.solve(oscillator(), method)
    with pytest.raises(ValueError, match="psi could not be evaluated"):
        bd.solve(oscillator(2), method, key=KEY)
    with pytest.raises(ValueError, match=r"psi\(t, x\) must return a complex array of shape \(\)"):
        bd.solve(oscillator(), bd.PhysicsInformedNetwork(Flat(jnp.ones(())), training=ONCE), key=KEY)
    for box in (([0.0, 0.0], 1.0), (0.0, [1.0, 2.0, 3.0])):
        method = bd.PhysicsInformedNetwork(psi, training=ONCE, box=box)
        with pytest.raises(
            ValueError, match=r"box must have ends of shape \(\) or \(1,\) for this problem"
        ):
            bd.solve(oscillator(), method, key=KEY)


class Runaway(eqx.Module):
    """A phase in which particles run away within a moment."""

    strength: jax.Array

    def __call__(self, t, x):
        return jnp.exp(jax.lax.complex(-jnp.sum(x**2), self.strength * jnp.sum(x**4)))


@pytest.mark.long
def test_nothing_is_lost_if_particles_are():
    still = bd.Training(optax.sgd(0.0), epochs=1)
    method = bd.PhysicsInformedNetwork(Runaway(jnp.array(1e6)), training=still, particles=4, steps=2)
    with pytest.raises(bd.TrainingDivergedError, match=r"after epoch 1, .* loses particles") as caught:
        bd.solve(oscillator(), method, key=KEY)
    assert caught.value.fitted.strength == 1e6
