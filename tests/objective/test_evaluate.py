"""What an objective is shown along the flow, and how its values at the times are put together."""

import sys
from collections.abc import Callable
from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tests.objective.oracle import setting

import bohmdiff as bd
from bohmdiff.flow import HalfState
from bohmdiff.objective.evaluate import checkpoints_for, evaluate, masked, time_mean

T0, T1, STEPS = 1.0, 2.5, 6
TIMES = np.linspace(T0, T1, STEPS + 1)
X0 = jnp.array([[0.1, 0.4], [0.9, -0.8], [-0.7, -0.2], [0.3, 0.5]])
WEIGHTS = jnp.array([0.5, 0.2, 0.0, 0.3])
DIGITS = jnp.array([1.0, 10.0, 100.0, 1000.0])


class Through(bd.AbstractObjective):
    """Whatever is to be seen of the particles."""

    second_tangents = "none"
    seen: Callable = eqx.field(static=True)
    min_determinant: float | None = None

    def at(self, problem, score, t, ensemble):
        return self.seen(t, ensemble)


class Held(Through):
    through_flow: ClassVar[bool] = False


def free(t, x):
    return 0.0 * x[0]


def no_score(t, x):
    return jnp.zeros_like(x)


def report(objective, **options):
    """Of free particles without a quantum potential, which move with the momenta of the oracle's setting."""
    hamiltonian = setting(2, free)[0].hamiltonian
    initial = bd.GaussianWavePacket([0.4, -0.3], 0.6, [0.3, 0.5])
    problem = bd.Problem(hamiltonian, initial, t1=T1, t0=T0)
    return evaluate(problem, no_score, objective, X0, WEIGHTS, bd.VelocityVerlet(), STEPS, **options)


@pytest.mark.parametrize("kind", [Through, Held])
def test_what_is_seen(kind):
    velocity = np.array([0.3, 0.5]) / np.array([0.8, 1.7])

    def seen(t, ensemble):
        return ensemble.weights @ ensemble.position.motion[:, 0] + DIGITS @ ensemble.equal_weights + 5 * t

    expected = WEIGHTS @ X0[:, 0] + velocity[0] * (TIMES - T0) + 1011 / 3 + 5 * TIMES
    result = report(kind(seen))
    np.testing.assert_allclose(result.per_time, expected, rtol=1e-12)
    np.testing.assert_allclose(result.value, np.trapezoid(expected, TIMES) / (T1 - T0), rtol=1e-12)
    np.testing.assert_allclose(result.ts, TIMES, rtol=1e-12)
    np.testing.assert_allclose(result.minimum_determinant, 1, rtol=1e-12)
    assert result.masked_fraction == 0


@pytest.mark.parametrize("kind", [Through, Held])
def test_a_random_subset_of_times(kind):
    objective = kind(lambda t, ensemble: t)
    results = [report(objective, times=2, key=jax.random.key(seed)) for seed in range(30)]
    for result in results:
        chosen = np.asarray(result.per_time) > 0
        assert np.sum(chosen) == 2
        np.testing.assert_allclose(result.per_time, np.where(chosen, TIMES, 0), rtol=1e-12)
        share = 2 / (STEPS + 1)
        np.testing.assert_allclose(result.value, time_mean(result.per_time) / share, rtol=1e-12)
    assert np.all(np.any([np.asarray(result.per_time) > 0 for result in results], axis=0))


def test_time_mean_is_the_trapezoidal_rule():
    values = np.array([3.0, -1.0, 2.0, 7.0])
    np.testing.assert_allclose(time_mean(jnp.asarray(values)), np.trapezoid(values) / 3, rtol=1e-12)


DETERMINANTS = [1.0, 0.5, 0.3, 0.3 - 1e-9, -0.2, 0.0, np.nan]


@pytest.mark.parametrize(
    ("limit", "kept"),
    [(None, [1, 1, 1, 1, 1, 1, 1]), (0.3, [1, 1, 1, 0, 0, 0, 1])],
)
def test_what_is_masked(limit, kept):
    tangent = jnp.array([[[1.0, 2.0], [0.0, value]] for value in DETERMINANTS])
    second = jnp.full((len(DETERMINANTS), 2, 2, 1), 3.0)
    motion = jnp.ones((len(DETERMINANTS), 2))
    shown, mask, determinant = masked(
        Through(lambda t, ensemble: t, limit), HalfState(motion, jnp.zeros(7), tangent, second)
    )
    np.testing.assert_allclose(determinant, DETERMINANTS, atol=1e-12)
    kept = np.array(kept, bool)
    np.testing.assert_array_equal(mask, kept)
    np.testing.assert_array_equal(shown.tangent, np.where(kept[:, None, None], tangent, np.eye(2)))
    np.testing.assert_array_equal(shown.second, np.where(kept[:, None, None, None], second, 0))


@pytest.mark.parametrize(("fitting", "states"), [(20, 9), (9, 9), (5, 5), (4, None), (3, None), (1, None)])
def test_checkpoints_are_as_many_as_fit(monkeypatch, fitting, states):
    """Of nine steps; about the square root of eighteen if that is more."""
    half = HalfState(jnp.zeros((3, 2)), jnp.zeros(3), jnp.zeros((3, 2, 2)), None)
    size = 2 * 8 * (6 + 3 + 12)
    # The package has a function of the same name as its module.
    module = sys.modules["bohmdiff.objective.evaluate"]
    monkeypatch.setattr(module, "_CHECKPOINT_BYTES", fitting * size)
    assert checkpoints_for((half, half), 9) == states
