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

# At most so many are chosen; a doubling that takes off less than half of the change, past the first number,
# is one that does not converge.
MOST_STEPS = 4096
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

    def change(self, other: "Moments") -> float:
        """The largest of any mean or standard deviation, in units of the latter."""
        with np.errstate(all="ignore"):  # a run of too few steps may be anything
            changes = np.abs(np.stack([other.mean - self.mean, other.std - self.std])) / np.asarray(
                other.std
            )
            return float(np.max(changes))


class Stepped(NamedTuple):
    """A run, its number of steps, and the error that they cause in what is compared; `None` if it is traced."""

    result: Any
    steps: int
    error: float | None


def as_steps(value: Any) -> int | None:
    """A number of steps, or `None` where it is chosen."""
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


def with_steps(
    run: Callable[[int], tuple[Any, Any]],
    steps: int | None,
    tolerance: float,
    *,
    refuse: Callable[[Any], None],
    first: int,
    order: int,
    compare: Callable[[int], Any] | None = None,
    fewest: int = 1,
    most: int = MOST_STEPS,
) -> Stepped:
    """Runs with `steps`, or with the first of `first`, `2 first`, ... that is enough: what is compared differs
    from that with half as many steps by no more than the tolerance, as far as the order tells.

    `run` returns its result and what is compared: an object such as `Moments`, whose method `change(other)`
    gives a number. `compare` gives that alone, where it costs less than `run`, with at least `fewest` steps.
    `refuse` raises if what is compared is traced.
    """
    compare = compare or (lambda steps: run(steps)[1])
    if steps is None:
        return _chosen(run, compare, tolerance, refuse, first, order, most)
    result, compared = run(steps)
    if not is_concrete(compared):
        return Stepped(result, steps, None)
    # With less than twice the fewest the two may be the same run.
    if steps >= 2 * fewest:
        fewer = max(steps // FEWER, fewest)
        change = _change(_compared(compare, fewer), compared)
        if change < _ASYMPTOTIC:
            return Stepped(result, steps, _error(change, order, steps / fewer))
    # So few steps say nothing about an error: compare with twice as many.
    return Stepped(result, steps, _change(compared, _compared(compare, 2 * steps)))


def needs_a_number(name: str, first: int, compared: Any, otherwise: str = "") -> None:
    """Raises if `compared`, by which the steps are to be chosen, is traced."""
    if not is_concrete(compared):
        raise ValueError(
            f"{name} compares numbers to choose its steps, which it cannot under jit, grad or vmap. Pass a "
            f"number: {name}(..., steps={first}){otherwise}."
        )


def _chosen(
    run: Callable[[int], tuple[Any, Any]],
    compare: Callable[[int], Any],
    tolerance: float,
    refuse: Callable[[Any], None],
    first: int,
    order: int,
    most: int,
) -> Stepped:
    steps, ratio, before, previous = first, FEWER, _compared(compare, first // FEWER), np.inf
    refuse(before)
    while True:
        last = 2 * steps > most
        try:
            result, compared = run(steps)
        except BohmdiffError:
            # A failure of the physics, as far as it can be told from steps that are too long.
            if last or steps >= _PATIENCE:
                raise
            before = None
        else:
            change = _change(before, compared)
            stalled = steps > _PATIENCE and change > 0.5 * previous
            if change <= tolerance * (ratio / 2) ** order or last or stalled:
                return Stepped(result, steps, _error(change, order, ratio))
            before, previous = compared, change
        steps, ratio = 2 * steps, 2


def _compared(compare: Callable[[int], Any], steps: int) -> Any:
    try:
        return compare(steps)
    except BohmdiffError:
        return None


def _change(one: Any, other: Any) -> float:
    """By `change`; infinite if one is unknown."""
    if one is None or other is None:
        return np.inf
    change = one.change(other)
    return change if np.isfinite(change) else np.inf


def _error(change: float, order: int, ratio: float | int) -> float:
    """Of the finer of two runs. A change that is not small says nothing about the order."""
    return change / (ratio**order - 1) if change < _ASYMPTOTIC else change
