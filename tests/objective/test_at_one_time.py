"""Every objective at one time, on an ensemble that no flow has made, against its definition in NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tests.objective.oracle import HBAR, MASS, MEAN, SCORE, VARIANCE, setting

import bohmdiff as bd
from bohmdiff.flow import HalfState
from bohmdiff.objective import Ensemble, own_score, squared_residuals

T = 0.4
STIFFNESS, STRENGTH = 1.5 - 0.2 * T, 0.3
draws = np.random.default_rng(1)
START, X = draws.normal(size=(2, 4, 2))
F = np.eye(2) + 0.3 * draws.normal(size=(4, 2, 2))
SECOND = draws.normal(size=(4, 2, 2, 2))
KEPT = np.array([True, True, False, True])
WEIGHTS = np.array([0.5, 0.2, 0.0, 0.3])
EQUAL = np.full(4, 0.25)
DETERMINANT = np.array([1.2, 0.3, -0.1, 0.05])
F[2], SECOND[2] = np.eye(2), 0.0


def ensemble(directions):
    """With second tangents along these."""
    each = np.broadcast_to(directions, (4, *directions.shape[-2:]))
    second = np.einsum("mijk,mnk->mijn", SECOND, each)
    position = HalfState(*(jnp.asarray(part) for part in (X, np.zeros(4), F, second)))
    others = (jnp.asarray(part) for part in (WEIGHTS, KEPT, directions, DETERMINANT, EQUAL))
    return Ensemble(jnp.asarray(START), position, *others)


ALL = ensemble(np.eye(2))
PROBLEM = setting(2)[0]
INITIAL_SCORE = -(START - np.array(MEAN[:2])) / VARIANCE
OWN = np.array(
    [
        np.linalg.inv(f).T @ (s0 - [np.trace(np.linalg.inv(f) @ second[:, :, k]) for k in range(2)])
        for f, s0, second in zip(F, INITIAL_SCORE, SECOND, strict=True)
    ]
)
OURS = -STIFFNESS * X + STRENGTH * np.sin(X + X[:, ::-1])
CLIP = 2.0
ERROR = OURS - np.clip(OWN, -CLIP, CLIP)
close = {"rtol": 1e-12, "atol": 1e-12}


def at(objective, state):
    return jax.jit(lambda t: objective.at(PROBLEM, SCORE, t, state))(jnp.asarray(T))


def residuals(objective, state):
    return jax.jit(lambda t: squared_residuals(objective, PROBLEM, SCORE, t, state))(jnp.asarray(T))


def cauchy(square, scale):
    return scale**2 * np.log1p(square / scale**2)


def test_own_score_and_its_clipping():
    assert np.any(np.abs(OWN) > CLIP)
    np.testing.assert_allclose(own_score(PROBLEM, ALL, np.inf), OWN, **close)
    np.testing.assert_allclose(own_score(PROBLEM, ALL, CLIP), np.clip(OWN, -CLIP, CLIP), **close)


def test_fisher_divergence():
    square = np.sum(ERROR**2, axis=1)
    plain, robust = (bd.FisherDivergence(0.1, CLIP, *scale) for scale in ((), (1.3,)))
    np.testing.assert_allclose(at(plain, ALL), WEIGHTS @ square, **close)
    np.testing.assert_allclose(at(robust, ALL), WEIGHTS @ cauchy(square, 1.3), **close)
    rows = np.sqrt(WEIGHTS)[:, None] * ERROR
    np.testing.assert_allclose(residuals(plain, ALL), rows, **close)
    np.testing.assert_allclose(
        residuals(robust, ALL), rows / np.sqrt(1 + square / 1.3**2)[:, None], **close
    )


@pytest.mark.parametrize("shape", [(1, 2), (3, 2), (4, 1, 2), (4, 3, 2)])
def test_directional_divergence(shape):
    directions = draws.normal(size=shape)
    each = np.broadcast_to(directions, (4, *shape[-2:]))
    errors = np.einsum("mnk,mk->mn", each, np.einsum("mik,mi->mk", F, OURS - OWN))
    objective, state = bd.DirectionalDivergence(), ensemble(directions)
    np.testing.assert_allclose(at(objective, state), WEIGHTS @ np.sum(errors**2, axis=1), **close)
    np.testing.assert_allclose(residuals(objective, state), np.sqrt(WEIGHTS)[:, None] * errors, **close)


def test_log_density_variance():
    ours = -0.5 * STIFFNESS * np.sum(X**2, axis=1) - STRENGTH * np.cos(X[:, 0] + X[:, 1])
    start = -0.5 * np.sum((START - np.array(MEAN[:2])) ** 2, axis=1) / VARIANCE
    error = ours - start + np.log(np.abs(np.linalg.det(F)))
    square = (error - WEIGHTS @ error) ** 2
    np.testing.assert_allclose(at(bd.LogDensityVariance(), ALL), WEIGHTS @ square, **close)
    scale = 0.6
    trust = WEIGHTS / (1 + square / scale**2)
    square = (error - trust @ error / trust.sum()) ** 2
    robust = bd.LogDensityVariance(outlier_scale=scale)
    np.testing.assert_allclose(at(robust, ALL), WEIGHTS @ cauchy(square, scale), **close)


def test_implicit_score_matching():
    divergence = -2 * STIFFNESS + 2 * STRENGTH * np.cos(X[:, 0] + X[:, 1])
    expected = WEIGHTS @ (0.5 * np.sum(OURS**2, axis=1) + divergence)
    np.testing.assert_allclose(at(bd.ImplicitScoreMatching(), ALL), expected, **close)


def test_caustic_penalty():
    missing = np.maximum(0, 1 - DETERMINANT / 0.4)
    assert list(missing > 0) == [False, True, True, True]
    np.testing.assert_allclose(at(bd.CausticPenalty(0.4), ALL), EQUAL @ missing**2, **close)
    np.testing.assert_allclose(residuals(bd.CausticPenalty(0.4), ALL)[:, 0], 0.5 * missing, **close)


def test_energy_drift():
    power = np.sum(ERROR * 0.2 * X / np.array(MASS[:2]), axis=1)
    expected = (0.25 * float(HBAR) ** 2 * WEIGHTS @ power) ** 2
    np.testing.assert_allclose(at(bd.EnergyDrift(0.1, CLIP), ALL), expected, rtol=1e-12)


def test_sums():
    fisher, caustic, drift = (
        bd.FisherDivergence(0.1, CLIP),
        bd.CausticPenalty(0.4),
        bd.EnergyDrift(0.1, CLIP),
    )
    summed = 0.5 * fisher + 3.0 * caustic + 2.0 * drift
    each = [at(one, ALL) for one in (fisher, caustic, drift)]
    np.testing.assert_allclose(at(summed, ALL), np.dot([0.5, 3.0, 2.0], each), **close)
    # The drift is no sum over particles, and what weighs nothing or less has no say.
    parts = [np.sqrt(0.5) * residuals(fisher, ALL), np.sqrt(3.0) * residuals(caustic, ALL)]
    np.testing.assert_allclose(residuals(summed, ALL), np.concatenate(parts, axis=1), **close)
    np.testing.assert_allclose(residuals(-1.0 * caustic + summed, ALL), residuals(summed, ALL), **close)
    assert residuals(0.5 * fisher + 0.0 * caustic, ALL).shape == (4, 2)
