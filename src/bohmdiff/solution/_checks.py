"""Functions of the user and files: the values at fixed places by which passed functions are compared."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from scipy.stats import qmc

from .._check import describe
from ..problem import Problem
from ._parts import Labels, follow, text
from .solution import Solution

# How many places, within how many widths of the density, and how closely values must agree.
_PLACES, _WIDTHS, _TOLERANCE = 64, 3.0, 1e-6


def checks_of(solution: Solution, own: list[Labels]) -> dict[str, Any]:
    """Places near the density, and the values there of all functions that are the user's own."""
    if not own:
        return {}
    d, ts = solution.problem.dimension, solution.ts
    index = np.linspace(0, ts.size - 1, _PLACES).round().astype(int)
    # Shifted, as the first point of the sequence lies in a corner.
    uniform = qmc.Sobol(d, scramble=False).random(_PLACES) + 0.5 / _PLACES
    x = solution.mean()[index] + _WIDTHS * solution.std()[index] * (2 * uniform - 1)
    t, x = np.asarray(ts)[index], np.asarray(x, ts.dtype)
    functions = _functions(solution.problem, solution.method, own)
    values = {name: _values(function, t, x) for name, function in functions.items()}
    return {"t": t, "x": x, "values": {name: array for name, array in values.items() if array is not None}}


def compare_checks(solution: Solution, own: list[Labels], checks: dict[str, Any], path: Path) -> None:
    """Raises if a function that was passed has other values than the saved one."""
    functions = _functions(solution.problem, solution.method, own)
    for name, saved in checks.get("values", {}).items():
        t, x = checks["t"], checks["x"]
        passed = _values(functions[name], t, x)
        if passed is None or passed.shape != saved.shape:
            raise ValueError(
                f"{path} cannot be loaded: {name} that was passed does not take a time and a place of shape "
                f"{x.shape[1:]} to an array of shape {saved.shape[1:]}. Pass what was solved."
            )
        off = _off(passed, saved).reshape(len(t), -1).max(axis=1)
        if off.any():
            worst = int(np.argmax(off))
            raise ValueError(
                f"{path} cannot be loaded: {name} that was passed differs from the saved one. At t = "
                f"{describe(t[worst])}, x = {describe(x[worst])} it is {describe(passed[worst])}, but "
                f"{describe(saved[worst])} was saved. Pass what was solved."
            )


def _functions(problem: Problem, method: Any, own: list[Labels]) -> dict[str, Callable[..., Any]]:
    """What is compared at a time and a place, by name."""
    functions: dict[str, Callable[..., Any]] = {}
    if any(where[0] == "problem" for where in own):
        functions["problem.hamiltonian.potential"] = problem.hamiltonian.potential
        functions["problem.initial.log_density"] = lambda t, x: problem.initial.log_density(x)
        functions["problem.initial.phase"] = lambda t, x: problem.initial.phase(x)
    outer: list[Labels] = []
    for where in own:
        is_inside = any(where[: len(one)] == one for one in outer)
        if where[0] == "method" and not is_inside and callable(part := follow(method, where[1:])):
            outer.append(where)
            functions[text(where)] = part
    return functions


def _values(function: Callable[..., Any], t: np.ndarray, x: np.ndarray) -> np.ndarray | None:
    """The values of a function; `None` if it is not one of a time and a place."""
    place = (jax.ShapeDtypeStruct((), t.dtype), jax.ShapeDtypeStruct(x.shape[1:], x.dtype))
    try:
        out = eqx.filter_eval_shape(function, *place)
    except Exception:
        return None
    if not isinstance(out, jax.ShapeDtypeStruct):
        return None
    return np.asarray(jax.jit(lambda t, x: jax.vmap(function)(t, x))(jnp.asarray(t), jnp.asarray(x)))


def _off(passed: np.ndarray, saved: np.ndarray) -> np.ndarray:
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
