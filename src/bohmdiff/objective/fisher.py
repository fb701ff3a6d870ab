"""The Fisher divergence as a diagnostic, for any score."""

import diffrax
import jax.numpy as jnp

from .._check import as_real_array, describe, require
from .._precision import in_full_precision
from .._types import Numbers
from ..flow import check_ensemble, check_integration
from ..problem import Problem
from ..score import Score
from .divergences import FisherDivergence
from .evaluate import ObjectiveReport, evaluate


@in_full_precision
def fisher_divergence(
    problem: Problem,
    score: Score,
    x0: Numbers,
    *,
    steps: int,
    solver: diffrax.AbstractSolver,
    weights: Numbers | None = None,
    min_determinant: float = 0.1,
    max_target: float = 100.0,
) -> ObjectiveReport:
    r"""The distance of a score from the score of the density that its own flow produces:
    $\frac1T\int dt\, E_\rho|s_\theta - s_\rho|^2$, in units of inverse length squared.

    Zero means that the flow solves the Schrödinger equation. With an exact score only the error of the
    solver is left, which falls as the step to the power of twice the solver's order.

    ```python
    x0, weights = problem.initial.particles(bd.GaussHermitePoints(6))
    report = bd.fisher_divergence(
        problem,
        solution.score,
        x0,
        weights=weights,
        steps=100,
        solver=bd.BlanesMoan4(),
    )
    report.value, report.masked_fraction
    ```

    **Arguments:**

    - `problem`, `score`, `x0`, `steps`, `solver`: as for [`propagate`][bohmdiff.propagate].
    - `weights`: of the particles, shape `(M,)`, positive sum; equal if not given.
    - `min_determinant`: particles with $|\det F|$ below this are masked at that time, and the mean
        is over the others.
    - `max_target`: components of the flow's own score are clipped to plus or minus this.

    **Returns:** an [`ObjectiveReport`][bohmdiff.ObjectiveReport].

    **Raises:** `ValueError` for bad input, and if the divergence is not finite.
    """
    problem, field, x0 = check_ensemble(problem, score, x0)
    steps = check_integration(solver, steps)
    number = x0.shape[0]
    mass = jnp.ones(number) if weights is None else as_real_array(weights, "weights")
    if mass.shape != (number,):
        raise ValueError(
            f"weights must have shape ({number},), one per particle, but shape {mass.shape} was given."
        )
    mass = require(
        mass,
        jnp.all(mass >= 0) & (jnp.sum(mass) > 0),
        f"weights must not be negative and not all be zero, but {describe(mass)} was given.",
    ).astype(x0.dtype)
    objective = FisherDivergence(min_determinant, max_target)
    report = evaluate(problem, field, objective, x0, mass / jnp.sum(mass), solver, steps)
    return require(
        report,
        jnp.isfinite(report.value),
        "The Fisher divergence is not finite: a particle escaped, or every particle is masked at some "
        "time. Take more steps, a smaller min_determinant, or initial points that lie less far out.",
    )
