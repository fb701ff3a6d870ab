"""Measures of a score on particles that stay the same throughout the training."""

from typing import Any

import diffrax
import jax
import jax.numpy as jnp

from ..._types import Points, Times, Weights
from ...flow import check_ensemble, follow
from ...objective import FisherDivergence, evaluate
from ...problem import Problem
from ...score import asymmetry
from ...training import energy_figures


def validate(
    problem: Problem, score: Any, x0: Points, weights: Weights, solver: diffrax.AbstractSolver, steps: int
) -> dict[str, float]:
    """Fisher divergence, mean energy and its drift, smallest |det F| and masked fraction; NaN where
    particles escaped."""
    report = evaluate(problem, score, FisherDivergence(), x0, weights, solver, steps)

    def energies_at(ts: Times) -> Times:
        # The steps of the training, which are judged at its end.
        _, field, start = check_ensemble(problem, score, x0)
        flow = follow(problem, field, start, ts, solver, steps, tangents=False)
        return weights @ flow.energy

    return {
        "fisher": float(report.value),
        "fisher_masked_fraction": float(report.masked_fraction),
        "fisher_minimum_determinant": float(report.minimum_determinant),
    } | energy_figures(problem, energies_at)


def largest_asymmetry(problem: Problem, score: Any, x0: Points) -> float:
    """The largest deviation of the score from a gradient, at the starts of the particles."""
    if problem.dimension == 1:
        return 0.0
    middle = 0.5 * (problem.t0 + problem.t1)
    at_times = [jax.vmap(lambda x, t=t: asymmetry(score, t, x))(x0) for t in (problem.t0, middle)]
    return float(jnp.max(jnp.stack(at_times)))
