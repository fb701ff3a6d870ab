"""The Fisher divergence between a score and the density that its own flow makes."""

from typing import Any

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .._check import as_real_array, describe, require
from .._types import Numbers, Points, Scalar, Times, Weights
from ..flow import (
    HalfState,
    Score,
    bohmian_terms,
    check_ensemble,
    check_integration,
    initial_halves,
    integrate,
    pushed_score,
)
from ..problem import Problem


class FisherReport(eqx.Module):
    r"""What [`fisher_divergence`][bohmdiff.fisher_divergence] returns.

    - `value`: $\frac1T\int dt\, E_\rho|s_\theta - s_\rho|^2$, a scalar in units of inverse length squared.
    - `ts`, `per_time`: the expectation at every step, shape `(steps + 1,)` each.
    - `masked_fraction`: how much of the weight, averaged over time, was left out because the flow is
        close to a caustic there, $|\det F|$ below the threshold.
    - `minimum_determinant`: the smallest $|\det F|$ of any particle at any step, before masking.
    """

    value: Scalar
    ts: Times
    per_time: Times
    masked_fraction: Scalar
    minimum_determinant: Scalar


def fisher_divergence(
    problem: Problem,
    score: Score,
    x0: Numbers,
    *,
    steps: int,
    solver: diffrax.AbstractSolver,
    weights: Numbers | None = None,
    smallest_determinant: float = 0.1,
) -> FisherReport:
    r"""How far a score is from the score of the density that its own flow makes.

    Zero means that the flow is the solution of the Schrödinger equation. With an exact score what
    is left is the solver's error, which falls as the step to the power of twice its order.

    ```python
    x0, weights = problem.initial.points(bd.GaussHermitePoints(6))
    report = bd.fisher_divergence(
        problem, solution.score, x0, weights=weights, steps=100, solver=bd.BlanesMoan4()
    )
    report.value, report.masked_fraction
    ```

    **Arguments:**

    - `problem`, `score`, `x0`, `steps`, `solver`: as for [`propagate`][bohmdiff.propagate].
    - `weights`: of the particles, shape `(M,)`, positive sum; equal if not given.
    - `smallest_determinant`: particles with $|\det F|$ below are masked at that time, and the mean
        is over the others.

    **Returns:** a [`FisherReport`][bohmdiff.FisherReport].

    **Raises:** `ValueError` for bad input, and if the divergence is not finite.
    """
    problem, score, x0 = check_ensemble(problem, score, x0)
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
    if not smallest_determinant >= 0:
        raise ValueError(
            f"smallest_determinant must not be negative, but {smallest_determinant!r} was given."
        )
    report = _fisher_divergence(
        problem, score, x0, mass / jnp.sum(mass), solver, steps, float(smallest_determinant)
    )
    return require(
        report,
        jnp.isfinite(report.value),
        "The Fisher divergence is not finite: a particle escaped, or every particle is masked at some "
        "time. Take more steps, a smaller smallest_determinant, or initial points that lie less far out.",
    )


@eqx.filter_jit
def _fisher_divergence(
    problem: Problem,
    score: Score,
    x0: Points,
    weights: Weights,
    solver: diffrax.AbstractSolver,
    steps: int,
    smallest_determinant: float,
) -> FisherReport:
    everywhere = jnp.eye(problem.dimension, dtype=x0.dtype)

    def residual(t: Any, start: Array, position: HalfState) -> tuple[Scalar, Scalar]:
        assert position.tangent is not None
        assert position.second is not None
        determinant = jnp.abs(jnp.linalg.det(position.tangent))
        own = pushed_score(problem, start, position.tangent, position.second)
        return jnp.sum((score(t, position.motion) - own) ** 2), determinant

    def save(t: Any, y: tuple[HalfState, HalfState], args: Any) -> tuple[Scalar, Scalar, Scalar]:
        position, _ = y
        square, determinant = jax.vmap(residual, in_axes=(None, 0, 0))(t, x0, position)
        kept = determinant >= smallest_determinant
        total = jnp.sum(jnp.where(kept, weights, 0))
        mean = jnp.sum(jnp.where(kept, weights * square, 0)) / total
        return mean, 1 - total, jnp.min(determinant)

    solution = integrate(
        problem,
        bohmian_terms(problem, score, everywhere),
        initial_halves(problem, x0, directions=everywhere),
        diffrax.SaveAt(t0=True, steps=True, fn=save),
        solver,
        steps,
    )
    assert solution.ts is not None
    assert solution.ys is not None
    per_time, masked, determinant = solution.ys
    return FisherReport(
        value=_time_mean(per_time),
        ts=solution.ts,
        per_time=per_time,
        masked_fraction=_time_mean(masked),
        minimum_determinant=jnp.min(determinant),
    )


def _time_mean(values: Float[Array, " K"]) -> Scalar:
    """The mean over equal steps by the trapezoidal rule."""
    return 0.5 * jnp.mean(values[1:] + values[:-1])
