"""Solutions as labelled data: what the attributes of a dataset say about the problem and the method."""

from dataclasses import fields
from importlib import metadata
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import xarray

from .._text import shortest, text_of
from ..problem import Problem
from ..units import Units

# How many numbers of one array are written out in the text of a potential. One that holds a network or a
# table has too many to be read.
_MOST_NUMBERS = 1024

Attribute = str | int | float | np.ndarray


def moments_dataset(
    mean: np.ndarray,
    std: np.ndarray,
    energy: np.ndarray,
    ts: np.ndarray,
    observables: dict[str, np.ndarray],
    units: Units,
) -> xarray.Dataset:
    """Moments, energy and observables over time, each with its name and units. Observables are not converted."""
    mean, std = units.convert(mean, length=1), units.convert(std, length=1)
    energy, ts, length = (
        units.convert(energy, energy=1),
        units.convert(ts, time=1),
        units.attributes("length"),
    )
    extra = {}
    for name, values in observables.items():
        axes = ("time", *(f"{name}_{i}" for i in range(1, values.ndim)))
        if np.iscomplexobj(values):
            for part, numbers in (("real", np.real(values)), ("imag", np.imag(values))):
                extra[f"{name}_{part}"] = (
                    axes,
                    numbers,
                    {"long_name": f"expectation value of {name}, {part}"},
                )
        else:
            extra[name] = (axes, values, {"long_name": f"expectation value of {name}"})
    both = ("time", "coordinate")
    return xarray.Dataset(
        {
            "mean": (both, mean, {"long_name": "mean position"} | length),
            "std": (both, std, {"long_name": "standard deviation of the position"} | length),
            "energy": ("time", energy, {"long_name": "mean energy"} | units.attributes("energy")),
        }
        | extra,
        coords={
            "time": ("time", ts, {"long_name": "time"} | units.attributes("time")),
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


def _numbers(value: Any) -> float | np.ndarray:
    """One number, or a list of them, matrices row by row: NetCDF has no others, and no lists of one."""
    flat = shortest(value).astype(float).reshape(-1)
    return float(flat[0]) if flat.size == 1 else flat


def _version() -> str:
    try:
        return metadata.version("bohmdiff")
    except metadata.PackageNotFoundError:  # run from its source, without being installed
        return "unknown"
