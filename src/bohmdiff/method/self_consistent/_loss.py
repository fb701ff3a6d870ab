"""The objective along the flow, as a loss for training."""

import diffrax
import equinox as eqx
from jaxtyping import PyTree

from ..._types import Key, Points, Scalar, Weights
from ...objective import AbstractObjective, evaluate, residual_rows
from ...problem import Problem
from ...training import AbstractLoss


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
