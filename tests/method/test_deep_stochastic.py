"""Deep stochastic mechanics against closed forms, and its trainings like those of the other method."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from tests.training.runs import divided
from tests.unchecked import unchecked_types

import bohmdiff as bd

KEY = jax.random.key(1)


def oscillator(d=1, momentum=0.0):
    """Displaced, much wider than its ground state, with little ħ."""
    return bd.Problem(
        bd.Hamiltonian(bd.Quadratic(1.0, centre=jnp.full(d, 0.1)), mass=1.0, hbar=0.01),
        bd.GaussianWavePacket(jnp.zeros(d), 0.1, momentum=jnp.full(d, momentum)),
        t1=1.0,
    )


def free_packet():
    return bd.Problem(
        bd.Hamiltonian(lambda t, x: 0.0 * x[0], mass=1.0, hbar=0.01),
        bd.GaussianWavePacket([0.0], 1e-4),
        t1=1.0,
    )


def trained(problem, epochs, network=None, **options):
    network = {"width": 16, "key": jax.random.key(0)} | (network or {})
    u, v = bd.velocity_networks(problem, **network)
    training, options = divided({"epochs": epochs} | options)
    return bd.solve(problem, bd.DeepStochasticMechanics(u, v, training=training, **options), key=KEY)


def errors(solution):
    """Of the variance, and of u and v in the norm of L2 over the exact density, by Sobol points at 11 times; all
    relative. Their own uncertainty, from other points, is below a tenth of themselves."""
    exact = bd.solve(solution.problem, bd.GaussianDynamics(), ts=solution.ts)
    normal, _ = bd.SobolPoints(256)(solution.problem.dimension, jax.random.key(5))
    missed, size = np.zeros(2), np.zeros(2)
    for k in range(0, 101, 10):
        x = exact.mean()[k] + normal @ jnp.linalg.cholesky(exact.covariance()[k]).T
        for i, name in enumerate(("score", "velocity")):
            own, right = (
                jax.vmap(lambda y, s=s, k=k, name=name: getattr(s, name)(solution.ts[k], y))(x)
                for s in (solution, exact)
            )
            missed[i] += float(jnp.sum((own - right) ** 2))
            size[i] += float(jnp.sum(right**2))
    variance = np.max(np.abs(solution.std() ** 2 / exact.std() ** 2 - 1))
    mean = np.max(np.abs(solution.mean() - exact.mean()) / exact.std())
    energy = np.max(np.abs(solution.energy() / exact.energy() - 1))
    return {"variance": variance, "mean": mean, "energy": energy} | dict(
        zip("uv", np.sqrt(missed / size), strict=True)
    )


@pytest.mark.long
def test_an_oscillator():
    solution = trained(oscillator(momentum=-0.05), 40)
    found = errors(solution)
    assert max(found.values()) < 1e-2, found
    assert solution.history["residual"][-1] < 1e-3 * solution.history["residual"][0]
    assert set(solution.history) >= {
        "loss",
        "gradient_norm",
        "skipped",
        "residual",
        "energy_drift",
        "seconds",
    }
    x = solution.trajectories([[0.0], [0.3]])
    assert x.shape == (2, 101, 1)
    assert solution.sample(KEY, 5).shape == (5, 101, 1)
    exact = bd.solve(solution.problem, bd.GaussianDynamics())
    for t in (0.0, 0.5, 1.0):
        for x in (jnp.array([0.1]), jnp.array([-0.4])):
            np.testing.assert_allclose(solution.log_density(t, x), exact.log_density(t, x), atol=1e-2)
            own, right = solution.wave_function(t, x), exact.wave_function(t, x)
            np.testing.assert_allclose(own / right, 1, atol=3e-2)
    paths = bd.nelson_process(solution, 4096, key=KEY, ts=[1.0], steps=32)
    np.testing.assert_allclose(np.std(paths), solution.std()[-1, 0], rtol=0.06)
    bd.plot.training(solution.history)


@pytest.mark.parametrize(
    ("problem", "network"),
    [
        pytest.param(oscillator(3), {"exact_start": False}, id="loose", marks=pytest.mark.long),
        pytest.param(free_packet(), {}, id="free", marks=pytest.mark.long),
    ],
)
def test_closed_forms(problem, network):
    found = errors(trained(problem, 60, network))
    assert max(found.values()) < 1e-2, found


@pytest.mark.long
def test_pure_diffusion_is_not_an_answer():
    """Networks that stay where they start, at the initial osmotic velocity and at rest, have the paths of a
    diffusion in place of a packet that spreads; the residual says so."""
    problem = free_packet()
    u = bd.Velocities(problem, lambda t, x: -x / 1e-4, lambda t, x: 0.0 * x).osmotic
    t, x = 0.3, jnp.array([0.01])
    _, missing = bd.velocity_residuals(problem.hamiltonian, u, lambda t, x: 0.0 * x, t, x)
    np.testing.assert_allclose(missing, -((0.5 * 0.01 / 1e-4) ** 2) * x, rtol=1e-9)
    solution = trained(problem, 1, particles=64)
    assert abs(float(solution.std()[-1, 0]) ** 2 - 0.2501) > 0.2
    assert solution.history["residual"][-1] > 1


@pytest.mark.long
def test_resumed_to_the_bit(tmp_path):
    """Also in the middle of the epochs for which paths are kept."""
    options = {"particles": 16, "steps": 4, "resample_every": 4, "validate_every": 3, "checkpoint_every": 2}

    def fields(solution):
        return jax.tree.leaves((solution.osmotic, solution.current))

    whole = trained(oscillator(), 7, directory=tmp_path / "whole", **options)
    trained(oscillator(), 6, directory=tmp_path / "parts", **options)
    parts = trained(oscillator(), 7, directory=tmp_path / "parts", resume=True, **options)
    for one, other in zip(fields(whole), fields(parts), strict=True):
        np.testing.assert_array_equal(one, other)
    np.testing.assert_array_equal(whole.history["loss"], parts.history["loss"])
    fresh = trained(oscillator(), 7, **(options | {"resample_every": 1}))
    assert np.max(np.abs(np.asarray(fresh.history["loss"] - whole.history["loss"])[1:])) > 0
    with pytest.raises(
        ValueError, match=r"another run: its particles is not the same \(16 there, 8 here\)"
    ):
        trained(oscillator(), 8, directory=tmp_path / "parts", resume=True, **(options | {"particles": 8}))


@pytest.mark.long
def test_first_order_and_outliers():
    """Any optimiser of optax will do; beyond the scale of outliers residuals count logarithmically."""
    adam = trained(oscillator(), 3, optimizer=optax.adam(1e-3), particles=32)
    assert adam.history["loss"].size == 3
    squares, robust = (
        float(trained(oscillator(), 1, optimizer=optax.sgd(0.0), outlier_scale=scale).history["loss"][0])
        for scale in (np.inf, 0.1)
    )
    assert robust < 0.1 * squares
    lenient = trained(oscillator(), 1, optimizer=optax.sgd(0.0), outlier_scale=1e4)
    np.testing.assert_allclose(lenient.history["loss"][0], squares, rtol=1e-4)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"u": 1.0}, r"u must be a callable u\(t, x\)"),
        ({"u": lambda t, x: x, "v": lambda t, x: x}, "u and v have no parameters to train"),
        ({"particles": 0}, "particles must be an integer of at least 1"),
        ({"steps": 0}, "steps must be an integer of at least 1"),
        ({"resample_every": 0}, "resample_every must be an integer of at least 1"),
        ({"initial_weight": -1.0}, "initial_weight must not be negative, but -1.0"),
        ({"outlier_scale": 0.0}, "outlier_scale must be positive, but 0.0"),
        ({"training": 30}, r"such as Training\(epochs=30\), but 30"),
    ],
)
def test_bad_options(options, match):
    u, v = bd.velocity_networks(oscillator(), width=2, key=KEY)
    with unchecked_types(), pytest.raises(ValueError, match=match):
        bd.DeepStochasticMechanics(**({"u": u, "v": v, "training": bd.Training(epochs=1)} | options))


def test_what_only_shows_when_it_runs():
    u, v = bd.velocity_networks(oscillator(), width=2, key=KEY)
    method = bd.DeepStochasticMechanics(u, v, training=bd.Training(epochs=1), particles=4)
    with pytest.raises(ValueError, match="needs a key"):
        bd.solve(oscillator(), method)
    with pytest.raises(ValueError, match=r"u\(t, x\)|u could not be evaluated"):
        bd.solve(oscillator(2), method, key=KEY)


class Cubic(eqx.Module):
    """Particles run away in it within a moment."""

    strength: jax.Array

    def __call__(self, t, x):
        return self.strength * x**3


def test_a_way_back_that_does_not_end_is_no_density():
    u, _ = bd.velocity_networks(oscillator(), width=2, key=KEY)
    # Backward in time particles run away in it.
    inward = Cubic(jnp.array(-1e4))
    problem, ts, weights = oscillator(), jnp.array([0.0, 1.0]), jnp.ones(1)
    solution = bd.VelocitySolution.of(
        problem, bd.GaussianDynamics(), ts, (u, inward), jnp.zeros((1, 1)), weights, {}
    )
    assert np.isfinite(solution.log_density(0.0, jnp.ones(1)))
    for what in (solution.log_density, solution.wave_function):
        with pytest.raises(bd.ParticlesLostError, match="Could not trace x back to t0"):
            what(1.0, jnp.ones(1))


@pytest.mark.long
def test_nothing_is_lost_if_particles_are():
    u, _ = bd.velocity_networks(oscillator(), width=2, key=KEY)
    runaway = Cubic(jnp.array(1e4))
    still = bd.Training(optax.sgd(0.0), epochs=1)
    method = bd.DeepStochasticMechanics(u, runaway, training=still, particles=4, steps=2)
    with pytest.raises(bd.TrainingDivergedError, match=r"after epoch 1, .* loses particles") as caught:
        bd.solve(oscillator(), method, key=KEY)
    osmotic, current = caught.value.fitted
    assert isinstance(osmotic, bd.NeuralVelocity)
    assert current.strength == 1e4
