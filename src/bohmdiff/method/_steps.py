"""How many time steps: chosen by comparing two numbers, or given and checked."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .._check import as_float, as_positive_integer, is_concrete
from .._errors import BohmdiffError
from .._types import Times
from ..problem import Problem
from ..solution import Figure

# At most so many are chosen; a doubling that takes off less than half of the change, past the first number,
# is one that does not converge.
_MOST_STEPS = 4096
_PATIENCE = 512
# A first comparison is with a quarter of the steps, which costs little. Changes that are smaller than this follow
# the order of the solver.
FEWER = 4
_ASYMPTOTIC = 0.1
_TIMES = 33
DEFAULT_TOLERANCE = 1e-3  # in standard deviations


class Moments(NamedTuple):
    """Mean and standard deviation at some times, by which two runs are compared."""

    mean: Float[Array | np.ndarray, "T d"]
    std: Float[Array | np.ndarray, "T d"]


class Stepped(NamedTuple):
    """A run, its number of steps, and the figure that tells how good that number is, unless it is traced."""

    result: Any
    steps: int
    figures: dict[str, Figure]


def as_steps(value: Any) -> int | None:
    """A number of steps, or `None` where the method chooses."""
    if value is None:
        return None
    return as_positive_integer(value, "steps", "Pass the number of equal steps from t0 to t1, or None.")


def as_tolerance(value: Any) -> float:
    """The largest error of any mean or standard deviation, in units of the latter."""
    tolerance = as_float(value, "tolerance")
    if not tolerance > 0:
        raise ValueError(f"tolerance must be positive, but {value!r} was given.")
    return tolerance


def comparison_times(problem: Problem) -> Times:
    """When two runs are compared, whatever the saved times are."""
    return jnp.linspace(problem.t0, problem.t1, _TIMES, dtype=problem.dtype)


def run_with_steps(
    method: Any,
    run: Callable[[int], tuple[Any, Moments]],
    *,
    first: int,
    order: int,
    compare: Callable[[int], Moments] | None = None,
    fewest: int = 1,
    most: int = _MOST_STEPS,
) -> Stepped:
    """Runs with the steps of `method`, or with the first of `first`, `2 first`, ... that is enough: its moments
    differ from those with half as many steps by no more than the tolerance, as far as the order tells.

    `compare` gives the moments alone, where that costs less than `run`, with at least `fewest` steps.
    """
    steps = method.steps
    compare = compare or (lambda steps: run(steps)[1])
    if steps is None:
        return _chosen(method, run, compare, first, order, most)
    result, moments = run(steps)
    if not is_concrete(moments):
        return Stepped(result, steps, {})
    if steps > fewest:
        fewer = max(steps // FEWER, fewest)
        change = _change(_moments_of(compare, fewer), moments)
        if change < _ASYMPTOTIC:
            return Stepped(result, steps, _figure(_error(change, order, steps / fewer), method.tolerance))
    # So few steps say nothing about an error: compare with twice as many.
    return Stepped(
        result, steps, _figure(_change(moments, _moments_of(compare, 2 * steps)), method.tolerance)
    )


def require_steps(method: Any, first: int, moments: Any) -> None:
    """Raises if `moments`, by which the steps are to be chosen, are traced."""
    if method.steps is None and not is_concrete(moments):
        name = type(method).__name__
        raise ValueError(
            f"{name} compares numbers to choose its steps, which it cannot under jit, grad or vmap. Pass a "
            f"number: {name}(..., steps={first}), or take the `method` of a solution that was found outside of "
            "the transformation, which has the chosen one."
        )


def _chosen(
    method: Any,
    run: Callable[[int], tuple[Any, Moments]],
    compare: Callable[[int], Moments],
    first: int,
    order: int,
    most: int,
) -> Stepped:
    tolerance = method.tolerance
    steps, ratio, before, previous = first, FEWER, _moments_of(compare, first // FEWER), np.inf
    require_steps(method, first, before)
    while True:
        last = 2 * steps > most
        try:
            result, moments = run(steps)
        except BohmdiffError:
            # A failure of the physics, as far as it can be told from steps that are too long.
            if last or steps >= _PATIENCE:
                raise
            before = None
        else:
            change = _change(before, moments)
            stalled = steps > _PATIENCE and change > 0.5 * previous
            if change <= tolerance * (ratio / 2) ** order or last or stalled:
                return Stepped(result, steps, _figure(_error(change, order, ratio), tolerance))
            before, previous = moments, change
        steps, ratio = 2 * steps, 2


def _moments_of(compare: Callable[[int], Moments], steps: int) -> Moments | None:
    try:
        return compare(steps)
    except BohmdiffError:
        return None


def _change(one: Moments | None, other: Moments | None) -> float:
    """The largest of any mean or standard deviation, in units of the latter; infinite if one is unknown."""
    if one is None or other is None:
        return np.inf
    with np.errstate(all="ignore"):  # a run of too few steps may be anything; it is judged just below
        changes = np.abs(np.stack([other.mean - one.mean, other.std - one.std])) / np.asarray(other.std)
        largest = float(np.max(changes))
    return largest if np.isfinite(largest) else np.inf


def _error(change: float, order: int, ratio: float | int) -> float:
    """Of the finer of two runs. A change that is not small says nothing about the order."""
    return change / (ratio**order - 1) if change < _ASYMPTOTIC else change


def _figure(value: float, tolerance: float) -> dict[str, Figure]:
    figure = Figure(
        jnp.asarray(value),
        limit=tolerance,
        meaning="The length of the time steps causes this error of means and standard deviations, in standard "
        "deviations.",
        remedy="Pass more steps.",
    )
    return {"time step": figure}
