"""Solutions as labelled data: what the attributes of a dataset say about the problem and the method."""

import re
from collections.abc import Iterable
from dataclasses import fields
from importlib import metadata
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import xarray

from ..problem import Problem
from ..units import Units, as_units

# How many numbers of one array are written out in the text of a potential. One that holds a network or a
# table has too many to be read.
_MOST_NUMBERS = 1024

Attribute = str | int | float | np.ndarray


def moments_dataset(
    mean: np.ndarray, std: np.ndarray, energy: np.ndarray, ts: np.ndarray, units: Units
) -> xarray.Dataset:
    """Moments and energy over time, each with its name and units."""
    units = as_units(units)
    both = ("time", "coordinate")
    return xarray.Dataset(
        {
            "mean": (both, mean, {"long_name": "mean position", "units": units.length}),
            "std": (both, std, {"long_name": "standard deviation of the position", "units": units.length}),
            "energy": ("time", energy, {"long_name": "mean energy", "units": units.energy}),
        },
        coords={
            "time": ("time", ts, {"long_name": "time", "units": units.time}),
            "coordinate": (
                "coordinate",
                np.arange(mean.shape[1]),
                {"long_name": "index of the coordinate", "units": "1"},
            ),
        },
    )


def attributes(problem: Problem, method: eqx.Module) -> dict[str, Attribute]:
    """Where data come from, as text, numbers and lists of numbers, which is what NetCDF can hold."""
    hamiltonian, initial = problem.hamiltonian, problem.initial
    numbers = {
        f"initial_{field.name}": _numbers(value)
        for field in fields(initial)
        if eqx.is_array(value := getattr(initial, field.name)) and not jnp.iscomplexobj(value)
    }
    return {
        "bohmdiff_version": _version(),
        "method": text_of(method, 1),
        "potential": text_of(hamiltonian.potential, _MOST_NUMBERS),
        "mass": _numbers(hamiltonian.mass),
        "hbar": _numbers(hamiltonian.hbar),
        "t0": _numbers(problem.t0),
        "t1": _numbers(problem.t1),
        "initial": type(initial).__name__,
        **numbers,
        "dimension": problem.dimension,
        "dtype": np.dtype(problem.dtype).name,
    }


def text_of(value: Any, most: int) -> str:
    """A module in words: all its options, defaults too, and the numbers of arrays that have at most `most`.

    The same in every process, so without addresses.
    """

    def named(pairs: Iterable[tuple[str, Any]]) -> str:
        return ", ".join(f"{name}={text_of(one, most)}" for name, one in pairs)

    if hasattr(value, "__self__") and hasattr(value, "__func__"):
        # A bound method: written out it would be all of the solution that a score was taken from.
        return f"<{type(value.__self__).__name__}.{value.__func__.__name__}>"
    if isinstance(value, eqx.Module):
        options = ((field.name, getattr(value, field.name)) for field in fields(value))
        return f"{type(value).__name__}({named(options)})"
    if isinstance(value, jax.Array | np.ndarray):
        if value.size <= most and value.dtype.kind in "biufc":
            return repr(_shortest(value).tolist())
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


def _numbers(value: Any) -> float | np.ndarray:
    """One number, or a list of them, matrices row by row: NetCDF has no others, and no lists of one."""
    flat = _shortest(value).astype(float).reshape(-1)
    return float(flat[0]) if flat.size == 1 else flat


def _shortest(array: jax.Array | np.ndarray) -> np.ndarray:
    """Single precision in as many digits as it has: 0.2 rather than 0.20000000298."""
    values = np.asarray(array)
    return values.astype(str).astype(float) if values.dtype == np.float32 else values


def _version() -> str:
    try:
        return metadata.version("bohmdiff")
    except metadata.PackageNotFoundError:  # run from its source, without being installed
        return "unknown"
