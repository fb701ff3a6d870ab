"""Options that are one number for all coordinates, or one for each."""

from typing import Any

import numpy as np

from ..._check import on_host


def one_or_each(value: Any, name: str, kind: type) -> Any:
    """A number, a tuple with one for each coordinate, or `None`."""
    if value is None:
        return None
    array = on_host(value, name)
    integer = np.issubdtype(array.dtype, np.integer)
    right = integer if kind is int else integer or np.issubdtype(array.dtype, np.floating)
    if not right or array.ndim > 1 or array.size == 0 or not np.all(np.isfinite(array)):
        what = "an integer" if kind is int else "a finite number"
        raise ValueError(
            f"{name} must be {what}, or one for each coordinate, shape (d,), but {value!r} was given."
        )
    return kind(array) if array.ndim == 0 else tuple(kind(entry) for entry in array)


def each(value: Any, name: str, d: int) -> tuple[Any, ...]:
    """An option that is given, for each of `d` coordinates."""
    values = value if isinstance(value, tuple) else (value,) * d
    if len(values) != d:
        raise ValueError(
            f"{name} must be a number or have shape ({d},), since the problem has {d} coordinates, but "
            f"{value!r} was given."
        )
    return values
