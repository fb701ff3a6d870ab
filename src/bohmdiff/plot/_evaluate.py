"""Densities at many points, and the range to draw."""

import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from .._check import as_float
from .._types import Numbers, Points, Time
from ..solution import Solution
from ._style import Units

_DEVIATIONS = 4
_SUPERSCRIPTS = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")


def density_at(solution: Solution, t: Numbers, x: np.ndarray) -> np.ndarray:
    """ρ(t, x) at points of shape `(..., d)`, any number at once."""
    points = jnp.asarray(x.reshape(-1, x.shape[-1]), solution.ts.dtype)
    log_density = _log_density(solution, jnp.asarray(t), points)
    with np.errstate(over="ignore"):
        return np.exp(np.asarray(log_density)).reshape(x.shape[:-1])


@eqx.filter_jit
def _log_density(solution: Solution, t: Time, points: Points) -> Array:
    return jax.vmap(lambda y: solution.log_density(t, y))(points)


def reach(
    solution: Solution, coordinate: int, lower: float | None, upper: float | None
) -> tuple[float, float]:
    """The range of the density over all saved times, unless limits are given."""
    mean = np.asarray(solution.mean())[:, coordinate]
    std = np.asarray(solution.std())[:, coordinate]
    low = float(np.min(mean - _DEVIATIONS * std)) if lower is None else as_float(lower, "lower")
    high = float(np.max(mean + _DEVIATIONS * std)) if upper is None else as_float(upper, "upper")
    if not -math.inf < low < high < math.inf:
        raise ValueError(
            f"upper must be larger than lower, and both finite, but {high:g} and {low:g} were given."
        )
    return low, high


def as_label(label: Any) -> str:
    """Checks that `label` is text and returns it."""
    if not isinstance(label, str):
        raise ValueError(f"label must be text, but {label!r} was given.")
    return label


def density_unit(solution: Solution, units: Units) -> str:
    """One over a length, an area, a volume ..."""
    d = solution.problem.dimension
    unit = units.length if d == 1 else f"({units.length}){str(d).translate(_SUPERSCRIPTS)}"
    return f"1/{unit}"
