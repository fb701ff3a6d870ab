"""Functions compared by their values at fixed times and places, whatever their names are."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array
from scipy.stats import qmc

_TOLERANCE = 1e-6


def uniform_places(number: int, dimension: int) -> np.ndarray:
    """The same well spread places in the unit cube every time; `number` is a power of two."""
    # Shifted, as the first point of the sequence lies in a corner.
    return qmc.Sobol(dimension, scramble=False).random(number) + 0.5 / number


def values_at(function: Callable[..., Any], t: np.ndarray, x: np.ndarray) -> np.ndarray | None:
    """The values of a function; `None` if it is not one of a time and a place."""
    try:
        if isinstance(function, eqx.Module):
            out = _at_each(function, jnp.asarray(t), jnp.asarray(x))
        else:
            # Compiled anew each time, as a plain function may read global names that have changed.
            out = jax.jit(lambda t, x: jax.vmap(function)(t, x))(jnp.asarray(t), jnp.asarray(x))
    except Exception:
        return None
    return np.asarray(out) if isinstance(out, jax.Array) else None


@eqx.filter_jit
def _at_each(function: Any, t: Array, x: Array) -> Any:
    return jax.vmap(lambda one, place: function(one, place))(t, x)


def off(passed: np.ndarray, saved: np.ndarray) -> np.ndarray:
    """By how much values differ; zero up to a small part of how much they vary, and up to rounding."""
    finite = saved[np.isfinite(saved)]
    middle = np.median(finite) if finite.size else 0.0
    typical = np.median(np.abs(finite - middle)) if finite.size else 0.0
    # Infinite values are equal or not: they are near to nothing, as NaN makes the comparison false.
    with np.errstate(invalid="ignore"):
        off, spread = np.abs(passed - saved), np.where(np.isfinite(saved), np.abs(saved - middle), np.nan)
        rounding = 100 * np.finfo(saved.dtype).eps * np.abs(saved)
        near = off <= _TOLERANCE * (spread + typical) + rounding
    same = near | (passed == saved) | (np.isnan(passed) & np.isnan(saved))
    return np.where(same, 0, np.nan_to_num(off, nan=np.inf))
