"""The Fisher divergence as a diagnostic: its values, masks and messages."""

import re

import jax.numpy as jnp
import numpy as np
import pytest
from tests.objective.oracle import MASS, SCORE, T1, oracle, potential, setting, squares, trapezoid
from tests.unchecked import unchecked_types

import bohmdiff as bd

STEPS = 8


def divergence(problem, score, x0, **options):
    options = {"steps": STEPS, "solver": bd.VelocityVerlet(), **options}
    return bd.fisher_divergence(problem, score, x0, **options)


def test_value_against_the_oracle():
    problem, x0 = setting(2)
    flow = oracle(SCORE, x0, potential, T1, STEPS)
    square = squares(flow, SCORE)
    report = divergence(problem, SCORE, x0)
    np.testing.assert_allclose(report.ts, np.linspace(0, T1, STEPS + 1), rtol=1e-12)
    np.testing.assert_allclose(report.per_time, np.mean(square, axis=0), rtol=1e-9)
    np.testing.assert_allclose(report.value, trapezoid(np.mean(square, axis=0)), rtol=1e-9)
    np.testing.assert_allclose(report.minimum_determinant, np.min(flow.determinant()), rtol=1e-9)
    assert float(report.masked_fraction) == 0
    numbers = [float(word) for word in re.findall(r"\d\.\d*(?:e[-+]\d+)?", str(report))]
    expected = [report.value, np.max(report.per_time), 0, report.minimum_determinant]
    np.testing.assert_allclose(numbers, np.array(expected), rtol=0.06)
    # Weights need no normalisation.
    weights = np.array([2.0, 0.5, 1.5])
    weighted = divergence(problem, SCORE, x0, weights=weights)
    np.testing.assert_allclose(weighted.per_time, weights @ square / 4, rtol=1e-9)
    equal = divergence(problem, SCORE, x0, weights=7 * np.ones(3))
    np.testing.assert_allclose(equal.per_time, report.per_time, rtol=1e-12)


def no_score(t, x):
    return jnp.zeros_like(x)


def test_masks_particles_at_a_caustic():
    """Classical motion in a quartic well: particles are focused, each at a time of its own."""
    problem, x0 = setting(1, t1=3.0)
    weights = np.array([0.5, 0.2, 0.3])
    flow = oracle(no_score, x0, potential, 3.0, STEPS)
    square, determinant = squares(flow, no_score), np.asarray(flow.determinant())
    threshold = 0.4
    kept = determinant >= threshold
    assert not np.all(kept)
    assert np.all(np.any(kept, axis=0))
    report = divergence(problem, no_score, x0, weights=2 * weights, min_determinant=threshold)
    share = weights @ kept
    np.testing.assert_allclose(report.per_time, weights @ (kept * square) / share, rtol=1e-9)
    np.testing.assert_allclose(report.masked_fraction, trapezoid(1 - share), rtol=1e-12)
    np.testing.assert_allclose(report.minimum_determinant, np.min(determinant), rtol=1e-9)


def oscillator(t, x):
    return 0.5 * MASS[0] * x[0] ** 2


@pytest.mark.slow
def test_caustic_of_the_classical_oscillator():
    """F = cos t for all particles at once: nothing is left at t = π/2."""
    problem, x0 = setting(1, oscillator, t1=np.pi / 2 - 0.02)

    def run(threshold):
        return divergence(
            problem, no_score, x0, steps=20, solver=bd.BlanesMoan6(), min_determinant=threshold
        )

    report = run(0.0)
    np.testing.assert_allclose(report.minimum_determinant, np.sin(0.02), rtol=1e-6)
    own = (np.asarray(x0)[:, 0] - 0.4) / 0.6
    np.testing.assert_allclose(report.per_time, np.mean(own**2) / np.cos(report.ts) ** 2, rtol=1e-5)
    with pytest.raises(ValueError, match=r"not finite: .* every particle is masked .* Take more steps"):
        run(0.1)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"steps": 0}, "steps must be an integer of at least 1, but 0"),
        ({"solver": bd.VelocityVerlet}, "solver must be a solver such as"),
        ({"weights": [1.0, 2.0]}, r"weights must have shape \(3,\), one per particle, but shape \(2,\)"),
        ({"weights": [1.0, -1.0, 1.0]}, r"weights must not be negative .* but \[ 1., -1.,  1.\]"),
        ({"weights": [0.0, 0.0, 0.0]}, "not all be zero"),
        ({"weights": [1.0, np.nan, 1.0]}, "weights must be finite"),
        ({"min_determinant": -0.1}, "min_determinant must not be negative, but -0.1"),
        ({"min_determinant": np.nan}, "min_determinant must not be negative, but nan"),
    ],
)
def test_bad_options(options, match):
    problem, x0 = setting(2)
    with unchecked_types(), pytest.raises(ValueError, match=match):
        divergence(problem, SCORE, x0, **options)


@pytest.mark.parametrize(
    ("score", "x0", "match"),
    [
        (lambda t, x: x[0], jnp.zeros((3, 2)), r"score\(t, x\) must return a real array of shape \(2,\)"),
        (lambda t, x: x / x, jnp.zeros((3, 2)), r"score\(t, x\) must be finite .* 3 of them"),
        (lambda t, x: x, jnp.zeros((3, 3)), r"x0 must have shape \(M, 2\).* shape \(3, 3\)"),
    ],
)
def test_bad_score_and_particles(score, x0, match):
    with unchecked_types(), pytest.raises(ValueError, match=match):
        divergence(setting(2)[0], score, x0)
