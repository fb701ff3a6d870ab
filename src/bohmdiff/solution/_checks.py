"""Functions of the user and files: the values at fixed places by which passed functions are compared."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from .._check import describe
from .._closure import off, uniform_places, values_at
from ..problem import Problem
from ._parts import Labels, follow, text
from .solution import Solution

# How many places, within how many widths of the density.
_PLACES, _WIDTHS = 64, 3.0


def checks_of(solution: Solution, own: list[Labels]) -> dict[str, Any]:
    """Places near the density, and the values there of all functions that are the user's own."""
    if not own:
        return {}
    d, ts = solution.problem.dimension, solution.ts
    index = np.linspace(0, ts.size - 1, _PLACES).round().astype(int)
    x = solution.mean()[index] + _WIDTHS * solution.std()[index] * (2 * uniform_places(_PLACES, d) - 1)
    t, x = np.asarray(ts)[index], np.asarray(x, ts.dtype)
    functions = _functions(solution.problem, solution.method, own)
    values = {name: values_at(function, t, x) for name, function in functions.items()}
    return {"t": t, "x": x, "values": {name: array for name, array in values.items() if array is not None}}


def compare_checks(solution: Solution, own: list[Labels], checks: dict[str, Any], path: Path) -> None:
    """Raises if a function that was passed has other values than the saved one."""
    functions = _functions(solution.problem, solution.method, own)
    for name, saved in checks.get("values", {}).items():
        t, x = checks["t"], checks["x"]
        passed = values_at(functions[name], t, x)
        if passed is None or passed.shape != saved.shape:
            raise ValueError(
                f"{path} cannot be loaded: {name} that was passed does not take a time and a place of shape "
                f"{x.shape[1:]} to an array of shape {saved.shape[1:]}. Pass what was solved."
            )
        missed = off(passed, saved).reshape(len(t), -1).max(axis=1)
        if missed.any():
            worst = int(np.argmax(missed))
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
