"""The objective along the flow, as a loss for training, and at a place."""

import math
from typing import Any

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from ..._types import Key, Points, Scalar, Time, Vector, Weights
from ...flow import HalfState
from ...objective import (
    AbstractObjective,
    Ensemble,
    evaluate,
    residual_rows,
    squared_residuals,
    squared_terms,
)
from ...problem import Problem
from ...score import as_score
from ...training import AbstractLoss

_PARTICLES = 4


class ObjectiveLoss(AbstractLoss):
    """An objective along the flow of the score with given parameters."""

    problem: Problem
    fixed: PyTree
    objective: AbstractObjective
    solver: diffrax.AbstractSolver
    steps: int
    times: int | None

    def __call__(
        self, parameters: PyTree, x: Points, weights: Weights, key: Key
    ) -> tuple[Scalar, dict[str, Scalar]]:
        score = eqx.combine(parameters, self.fixed)
        report = evaluate(
            self.problem,
            score,
            self.objective,
            x,
            weights,
            self.solver,
            self.steps,
            times=self.times,
            key=key,
        )
        figures = {
            "masked_fraction": report.masked_fraction,
            "minimum_determinant": report.minimum_determinant,
        }
        return report.value, figures

    def residual_rows(
        self, parameters: PyTree, x: Points, weights: Weights, key: Key, projections: int
    ) -> PyTree:
        return residual_rows(
            self.problem,
            parameters,
            self.fixed,
            self.objective,
            x,
            weights,
            self.solver,
            self.steps,
            projections=projections,
            key=key,
        )


class ObjectiveAt(eqx.Module):
    """What tells an objective from another one: its value on a few particles around a place, with a deformation
    made up for them, a sum over its residuals, and all its numbers."""

    problem: Problem
    score: Any
    objective: AbstractObjective

    def __call__(self, t: Time, x: Vector) -> Float[Array, " figures"]:
        problem, score, objective, d = self.problem, as_score(self.score), self.objective, x.size

        def made_up(*shape: int) -> Array:
            count = jnp.arange(_PARTICLES * math.prod(shape), dtype=x.dtype)
            return 0.1 * jnp.cos(count).reshape(_PARTICLES, *shape)

        directions, second = None, None
        if objective.second_tangents == "all":
            directions, second = jnp.eye(d, dtype=x.dtype), made_up(d, d, d)
        elif objective.second_tangents == "random":
            directions, second = 10 * made_up(1, d), made_up(d, d, 1)
        tangent = jnp.eye(d, dtype=x.dtype) + made_up(d, d) / d
        weights = jnp.arange(1, _PARTICLES + 1, dtype=x.dtype) / (0.5 * _PARTICLES * (_PARTICLES + 1))
        ensemble = Ensemble(
            x * (1 + made_up(d)),
            HalfState(x * (1 - made_up(d)), jnp.zeros(_PARTICLES, x.dtype), tangent, second),
            weights,
            kept=jnp.ones(_PARTICLES, bool),
            directions=directions,
            determinant=jnp.linalg.det(tangent),
            equal_weights=jnp.full(_PARTICLES, 1 / _PARTICLES, x.dtype),
        )
        figures = [objective.at(problem, score, t, ensemble)]
        if squared_terms(objective):
            residuals = squared_residuals(objective, problem, score, t, ensemble)
            figures.append(
                jnp.sum(residuals * jnp.cos(jnp.arange(residuals.size)).reshape(residuals.shape))
            )
        numbers = [leaf for leaf in jax.tree.leaves(objective) if not callable(leaf)]
        return jnp.concatenate([jnp.ravel(jnp.asarray(one, x.dtype)) for one in (*figures, *numbers)])
