"""Solutions in files: NetCDF, written and read by h5netcdf."""

import hashlib
import json
import os
import re
import uuid
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

import equinox as eqx
import numpy as np
import optax

from .._check import cast_floats, is_concrete
from .._precision import in_full_precision
from ..problem import Problem, as_problem
from ._checks import checks_of, compare_checks
from ._parts import Labels, Own, differences, own_parts, text
from ._tree import Reader, UnsavedError, Writer
from .solution import Solution, as_solution

_FORMAT = 1
_GROUP = "solution"
# The last line of a file; everything before the sum is summed up.
_SEAL = re.compile(rb"\nbohmdiff solution ([0-9]+) sha256 ([0-9a-f]{64})\n\Z")
_LONGEST_SEAL = 128
_STORED_AS_NUMBERS = re.compile(r"u?int(8|16|32|64)|float(32|64)")
_STORED_AS_BITS = re.compile(r"bool|b?float(8|16).*")


def save(solution: Solution, path: str | Path) -> None:
    """Writes a solution to a file, all at once: an interrupted call leaves an old file as it was."""
    solution, target = as_solution(solution, "solution"), _as_path(path)
    if not is_concrete(solution):
        raise ValueError(
            "A solution that jit, vmap or grad traces has no values yet and cannot be saved. Return it from the "
            "transformed function and save it outside."
        )
    if target.is_dir() or not target.parent.is_dir():
        why = "it is a folder" if target.is_dir() else f"there is no folder {target.parent}"
        raise ValueError(f"The solution cannot be saved as {target}: {why}. Pass the name of a file.")
    # A link is followed, not replaced.
    target = Path(os.path.realpath(target))
    own: list[Own] = []
    own_parts(solution.problem, ("problem",), own)
    own_parts(solution.method, ("method",), own)
    writer = Writer(own)
    try:
        # These two first, so that other parts share with them and not they with others.
        tree = {name: writer.node(getattr(solution, name), (name,)) for name in ("problem", "method")}
        tree["solution"] = writer.node(solution, ("solution",))
        tree["checks"] = writer.node(checks_of(solution, [part.where for part in own]), ("checks",))
    except UnsavedError as error:
        raise ValueError(f"The solution cannot be saved: {error}") from error
    tree["own"] = [{"where": part.where, "name": part.name} for part in own]
    moments = solution.to_xarray()
    temporary = target.parent / f".{uuid.uuid4().hex}.tmp"
    try:
        moments.to_netcdf(temporary, engine="h5netcdf")
        _write(temporary, json.dumps(tree), writer.arrays)
        _seal(temporary)
        os.replace(temporary, target)
    except OSError as error:
        raise ValueError(f"{target} cannot be written: {error}") from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


@in_full_precision
def load(path: str | Path, problem: Problem | None = None, method: eqx.Module | None = None) -> Solution:
    """Reads a solution that [`save`][bohmdiff.Solution.save] has written.

    ```python
    solution.save("solution.nc")
    again = bd.load("solution.nc")
    again.mean()[-1]
    ```

    The loaded solution equals the saved one to the last bit, and has the same methods. Loading runs nothing that
    is in the file: every class and function that it names must belong to bohmdiff or to a library that bohmdiff
    uses.

    The file does not hold functions and classes of your own. If the potential or a function of the initial state
    is your own, pass the problem again; if a part of the method is, pass the method:

    ```python
    stiff = bd.Problem(
        bd.Hamiltonian(lambda t, x: 0.6 * x @ x), initial, t1=1.0
    )
    bd.solve(stiff, bd.GaussianDynamics(), ts=[0.0, 1.0]).save("stiff.nc")
    again = bd.load("stiff.nc", problem=stiff)
    ```

    Your functions of a time and a place are compared with the file by their values at 64 places near the density.
    Everything else comes from the file, and what you pass must agree with it. An optimizer of optax consists of
    functions too, but no solution needs it: without `method`, the optimizer of `again.method` raises an error
    when it is used.

    The file is NetCDF 4, written by h5netcdf. `xarray.open_dataset` shows the data of
    [`to_xarray`][bohmdiff.Solution.to_xarray]. Everything else is in the group `solution`, complex arrays as two
    parts. A checksum covers the whole file, so that `load` refuses a file that was damaged or changed.

    **Arguments:**

    - `path`: of the file.
    - `problem`: the problem that was solved; needed if a part of it is your own.
    - `method`: the method that solved it; needed if a part of it is your own.

    **Units:** those of the problem.

    **Returns:** a [`Solution`][bohmdiff.Solution] of the same class, with arrays of the same shapes.

    **Raises:** `ValueError` if the file is missing, damaged, of a newer format or not one of bohmdiff; if a part
    of your own is not passed; if what is passed differs from what was saved; or if the file holds 64-bit arrays
    and JAX's 64-bit mode is off.
    """
    path, passed = _as_path(path), {}
    if problem is not None:
        problem = as_problem(problem)
        passed["problem"] = cast_floats(problem, problem.dtype)
    if method is not None:
        if not isinstance(method, eqx.Module):
            raise ValueError(f"method must be a method such as SplitOperator, but {method!r} was given.")
        passed["method"] = method
    _check_seal(path)
    import h5netcdf

    with h5netcdf.File(path, "r") as file:
        group = file.groups[_GROUP]
        tree = json.loads(group.variables["structure"][...].item())
        own = [(tuple(part["where"]), part["name"]) for part in tree["own"]]
        _require_passed(path, own, passed)
        reader = Reader(lambda *of: _read(group, *of), own, passed, _NO_OPTIMIZER)
        try:
            for name in ("problem", "method"):
                stored = reader.value(tree[name], (name,))
                for difference in differences(stored, passed.get(name, stored), (name,)):
                    raise ValueError(f"{difference}. Pass the {name} that was solved.")
            solution = reader.value(tree["solution"], ("solution",))
            checks = reader.value(tree["checks"], ("checks",))
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            raise ValueError(f"{path} cannot be loaded: {error}") from error
    if not isinstance(solution, Solution):
        raise ValueError(
            f"{path} cannot be loaded: it holds a {type(solution).__name__} instead of a solution."
        )
    compare_checks(solution, [where for where, _ in own], checks, path)
    return solution


def _as_path(path: Any) -> Path:
    try:
        return Path(path)
    except TypeError:
        raise ValueError(
            f"path must be the name of a file, as text or a Path, but {path!r} was given."
        ) from None


def _require_passed(path: Path, own: list[tuple[Labels, str]], passed: dict[str, Any]) -> None:
    lacking: list[tuple[Labels, str]] = []
    for where, name in own:
        is_inside = any(where[: len(one)] == one for one, _ in lacking)
        if where[0] not in passed and not is_inside:
            lacking.append((where, name))
    if lacking:
        said = " and ".join(f"{text(where)} is {name}" for where, name in lacking)
        names = ", ".join(f"{name}=..." for name in dict.fromkeys(where[0] for where, _ in lacking))
        raise ValueError(
            f"{path} cannot be loaded alone: {said}, your own, which is not in the file. Pass what was solved: "
            f"bd.load(path, {names})."
        )


def _write(path: Path, structure: str, arrays: list[tuple[Labels, np.ndarray]]) -> None:
    """Adds the group of the solution to a file that has its moments."""
    import h5netcdf
    import h5py

    with h5netcdf.File(path, "a") as file:
        group = file.create_group(_GROUP)
        group.attrs["title"] = "All parts of the solution, for bohmdiff.load"
        group.create_variable("structure", (), h5py.string_dtype())[...] = structure
        for number, (where, array) in enumerate(arrays):
            # A dimension of length zero would be one without a limit.
            for name, part in _stored(array, text(where)) if array.size else ():
                shape = part.shape
                # Two axes of one array need two names.
                axes = tuple(f"size_{size}" + "_" * shape[:i].count(size) for i, size in enumerate(shape))
                for axis, size in zip(axes, shape, strict=True):
                    if axis not in group.dimensions:
                        group.dimensions[axis] = size
                variable = group.create_variable(f"array_{number}{name}", axes, part.dtype)
                variable[...] = part
                variable.attrs["long_name"] = text(where)


def _stored(array: np.ndarray, where: str) -> list[tuple[str, np.ndarray]]:
    """An array as NetCDF can hold it: one array or two parts, each with what it adds to the name."""
    dtype = array.dtype.name
    if dtype in ("complex64", "complex128"):
        return [("_real", np.real(array)), ("_imag", np.imag(array))]
    if _STORED_AS_NUMBERS.fullmatch(dtype):
        return [("", array)]
    if _STORED_AS_BITS.fullmatch(dtype):
        return [("_bits", array.view(f"u{array.dtype.itemsize}"))]
    raise ValueError(
        f"The solution cannot be saved: {where} is an array of dtype {dtype}, which NetCDF does not hold."
    )


def _read(group: Any, number: int, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """An array as it was before it was written."""
    if 0 in shape:
        return np.zeros(shape, dtype)

    def part(name: str) -> np.ndarray:
        return np.asarray(group.variables[f"array_{number}{name}"][...])

    if dtype.kind == "c":
        # Not real + 1j * imag, which changes infinite numbers and negative zeros.
        return np.asarray(np.stack([part("_real"), part("_imag")], axis=-1).view(dtype)[..., 0])
    return part("") if _STORED_AS_NUMBERS.fullmatch(dtype.name) else part("_bits").view(dtype)


def _digest(path: Path, end: int, last: bytes) -> bytes:
    """The checksum of a file up to byte `end`, and of what follows it."""
    checksum = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(min(end - file.tell(), 2**20)):
            checksum.update(block)
    checksum.update(last)
    return checksum.hexdigest().encode()


def _seal(path: Path) -> None:
    """Appends the checksum. HDF5 reads only up to the end that its header names."""
    line = f"\nbohmdiff solution {_FORMAT} sha256 ".encode()
    digest = _digest(path, path.stat().st_size, line)
    with path.open("ab") as file:
        file.write(line + digest + b"\n")
        file.flush()
        os.fsync(file.fileno())


def _check_seal(path: Path) -> None:
    """Raises unless the file is as it was written. HDF5, which may crash on a damaged one, opens it only then."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            start = file.seek(max(0, size - _LONGEST_SEAL))
            seal = _SEAL.search(file.read())
            intact = seal is not None and seal[2] == _digest(
                path, start + seal.start(), seal[0][: seal.start(2) - seal.start()]
            )
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error}") from error
    if seal is None:
        raise ValueError(
            f"{path} is not a solution that bohmdiff saved, or it was damaged or changed since. Pass a file that "
            "solution.save has written."
        )
    if not intact:
        raise ValueError(
            f"{path} was damaged or changed since it was saved: its checksum does not agree. Copy it again from "
            "where it was written, or save the solution again."
        )
    if int(seal[1]) > _FORMAT:
        raise ValueError(
            f"{path} has format {int(seal[1])}, but this version of bohmdiff reads formats up to {_FORMAT}. "
            "Install a newer version."
        )


def _not_loaded(*args: Any, **kwargs: Any) -> NoReturn:
    raise ValueError(
        "The file of this solution does not hold the optimizer of its method. Pass the method when you load the "
        "solution, bd.load(path, method=...), or give the method a new optimizer."
    )


_NO_OPTIMIZER = optax.GradientTransformation(_not_loaded, _not_loaded)
