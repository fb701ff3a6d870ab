"""The time steps of a method: chosen or given, with the figure that tells how good their number is."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp

from ..flow._steps import DEFAULT_TOLERANCE as DEFAULT_TOLERANCE
from ..flow._steps import FEWER as FEWER
from ..flow._steps import MOST_STEPS, needs_a_number, with_steps
from ..flow._steps import Moments as Moments
from ..flow._steps import as_steps as as_steps
from ..flow._steps import as_tolerance as as_tolerance
from ..flow._steps import comparison_times as comparison_times
from ..solution import Figure


class Stepped(NamedTuple):
    """A run, its number of steps, and the figure that tells how good that number is, unless it is traced."""

    result: Any
    steps: int
    figures: dict[str, Figure]


def run_with_steps(
    method: Any,
    run: Callable[[int], tuple[Any, Moments]],
    *,
    first: int,
    order: int,
    compare: Callable[[int], Moments] | None = None,
    fewest: int = 1,
    most: int = MOST_STEPS,
) -> Stepped:
    """Runs with the steps of `method`, or with the first of `first`, `2 first`, ... that suits the moments.

    `compare` gives the moments alone, where that costs less than `run`, with at least `fewest` steps.
    """
    result, steps, error = with_steps(
        run,
        method.steps,
        method.tolerance,
        refuse=lambda moments: require_steps(method, first, moments),
        first=first,
        order=order,
        compare=compare,
        fewest=fewest,
        most=most,
    )
    return Stepped(result, steps, {} if error is None else _figure(error, method.tolerance))


def require_steps(method: Any, first: int, moments: Any) -> None:
    """Raises if `moments`, by which the steps are to be chosen, are traced."""
    if method.steps is None:
        needs_a_number(
            type(method).__name__,
            first,
            moments,
            ", or take the `method` of a solution that was found outside of the transformation, which has the "
            "chosen one",
        )


def _figure(value: float, tolerance: float) -> dict[str, Figure]:
    figure = Figure(
        jnp.asarray(value),
        limit=tolerance,
        meaning="The length of the time steps causes this error of means and standard deviations, in standard "
        "deviations.",
        remedy="Pass more steps.",
    )
    return {"time step": figure}
