"""Modules in words, the same in every process: for attributes of data and for the settings of a training."""

import re
from collections.abc import Iterable
from dataclasses import fields
from typing import Any

import equinox as eqx
import jax
import numpy as np

from ._closure import ClosedFunction


def text_of(value: Any, most: int) -> str:
    """A module in words: all its options, defaults too, and the numbers of arrays that have at most `most`.

    It has no addresses in it, so it is the same in every process.
    """

    def named(pairs: Iterable[tuple[str, Any]]) -> str:
        return ", ".join(f"{name}={text_of(one, most)}" for name, one in pairs)

    if hasattr(value, "__self__") and hasattr(value, "__func__"):
        # A bound method: written out it would be all of the solution that a score was taken from.
        return f"<{type(value.__self__).__name__}.{value.__func__.__name__}>"
    if isinstance(value, ClosedFunction):
        return f"<function {value.name}>"
    if isinstance(value, eqx.Module):
        options = ((field.name, getattr(value, field.name)) for field in fields(value))
        return f"{type(value).__name__}({named(options)})"
    if isinstance(value, jax.Array | np.ndarray):
        if value.size <= most and value.dtype.kind in "biufc":
            return repr(shortest(value).tolist())
        return f"{value.dtype.name}{list(value.shape)}"
    if isinstance(value, tuple) and (names := getattr(value, "_fields", ())):
        return f"{type(value).__name__}({named((name, getattr(value, name)) for name in names)})"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key!r}: {text_of(one, most)}" for key, one in value.items()) + "}"
    if isinstance(value, tuple | list):
        inside = ", ".join(text_of(one, most) for one in value)
        return f"({inside}{',' * (len(value) == 1)})" if isinstance(value, tuple) else f"[{inside}]"
    if callable(value) and hasattr(value, "__qualname__"):
        return f"<{'class' if isinstance(value, type) else 'function'} {value.__qualname__}>"
    return re.sub(r" at 0x[0-9a-f]+", "", repr(value))


def shortest(array: jax.Array | np.ndarray) -> np.ndarray:
    """Single precision in as many digits as it has: 0.2 rather than 0.20000000298."""
    values = np.asarray(array)
    return values.astype(str).astype(float) if values.dtype == np.float32 else values
