"""Normal modes as a file that people can read, and the folder of those that were computed before."""

import hashlib
import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np

from .. import units
from .._check import warn
from ._constants import symmetric

FORMAT = "bohmdiff normal modes, version 1"
_POTENTIAL = (
    "V = sum_i w_i q_i^2 / 2 + sum_ijk c_ijk q_i q_j q_k / 6 + sum_ijkl c_ijkl q_i q_j q_k q_l / 24, "
    "T = sum_i w_i p_i^2 / 2; w: frequencies; c: cubic and quartic, symmetric, with sums over all indices and "
    "lists of those in order; the atoms are at geometry + sum_i q_i displacements_i"
)
_UNITS = {
    "frequencies": "cm^-1",
    "cubic": "cm^-1",
    "quartic": "cm^-1",
    "dipole": "e bohr",
    "dipole_gradient": "e bohr",
    "dipole_curvature": "e bohr",
    "geometry": "bohr",
    "displacements": "bohr",
    "masses": "u",
}
_FACTORS = {"cm^-1": units.inverse_cm, "e bohr": 1.0, "bohr": 1.0, "u": units.amu}
# Where a field is missing, the modes have none.
_REQUIRED = ("frequencies", "cubic", "quartic")


def write(path: Path, content: dict[str, Any]) -> None:
    """Writes a file as a whole, or not at all.

    - `content`: arrays in atomic units under the names of `_UNITS`, and text.
    """
    lines = [f'"format": {json.dumps(FORMAT)}', f'"potential": {json.dumps(_POTENTIAL)}']
    lines.append(f'"units": {json.dumps({name: _UNITS[name] for name in content if name in _UNITS})}')
    lines += [f'"{name}": {_as_json(name, value)}' for name, value in content.items() if value is not None]
    text = "{\n" + ",\n".join(lines) + "\n}\n"
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_text(text, encoding="utf-8")
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _as_json(name: str, value: Any) -> str:
    if name not in _UNITS:
        return json.dumps(value, ensure_ascii=False)
    numbers = np.asarray(value, float) / _FACTORS[_UNITS[name]]
    if name not in ("cubic", "quartic"):
        rows = numbers.tolist()
        # One line for each atom, or each direction in space.
        if numbers.ndim < 2:
            return json.dumps(rows)
        return "[\n  " + ",\n  ".join(map(json.dumps, rows)) + "\n]"
    indices = [where for where in np.ndindex(numbers.shape) if list(where) == sorted(where)]
    constants = [[*where, float(numbers[where])] for where in indices if numbers[where] != 0]
    return "[\n  " + ",\n  ".join(map(json.dumps, constants)) + "\n]" if constants else "[]"


def read(path: Path) -> dict[str, Any]:
    """What `write` has written."""
    text = path.read_text(encoding="utf-8")
    try:
        stored = json.loads(text)
        if not isinstance(stored, dict) or "format" not in stored:
            raise ValueError("it does not say its format")
        if stored["format"] != FORMAT:
            raise ValueError(f"its format is {stored['format']!r}, and {FORMAT!r} is read")
        if missing := [name for name in _REQUIRED if name not in stored]:
            raise ValueError(f"it lacks {', '.join(missing)}")
        return {
            name: _from_json(name, value, stored) for name, value in stored.items() if name not in _HEAD
        }
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise ValueError(f"{path} is no file of normal modes: {str(error).rstrip('.')}.") from error


_HEAD = ("format", "potential", "units")


def _from_json(name: str, value: Any, stored: dict[str, Any]) -> Any:
    if name not in _UNITS:
        return tuple(value) if isinstance(value, list) else value
    unit = stored["units"][name]
    if unit not in _FACTORS:
        raise ValueError(f"the unit of {name} is {unit!r}, and these are known: {', '.join(_FACTORS)}")
    if name in ("cubic", "quartic"):
        order = {"cubic": 3, "quartic": 4}[name]
        constants = {tuple(entry[:order]): entry[order] for entry in value}
        tensor = symmetric(constants, len(stored["frequencies"]), order, name)
        return tensor * _FACTORS[unit]
    return np.array(value, float) * _FACTORS[unit]


def cache_folder(cache: str | Path | None) -> Path:
    """The folder that was asked for, or that which the platform has for data that can be computed again."""
    if cache is not None:
        return Path(os.path.expanduser(cache))
    home = Path.home()
    if sys.platform == "darwin":
        base = home / "Library" / "Caches"
    elif sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA") or home / "AppData" / "Local")
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME") or home / ".cache")
    return base / "bohmdiff"


def name_of(content: dict[str, Any], symbols: tuple[str, ...]) -> str:
    """A name that is the same for equal content only."""
    text = json.dumps([FORMAT, content], sort_keys=True)
    return f"{''.join(symbols)[:32]}-{hashlib.sha256(text.encode()).hexdigest()[:24]}.json"


def cached(path: Path) -> dict[str, Any] | None:
    """What the file of a result holds, or `None` if there is none that can be read."""
    if not path.is_file():
        return None
    try:
        return read(path)
    except ValueError as error:
        warn(f"A result that was kept cannot be read, and is computed again: {error}")
        return None


def kept(path: Path, content: dict[str, Any]) -> dict[str, Any]:
    """`content` as it is read from the file in which it is kept, so that the next call returns the same bits."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write(path, content)
        return read(path)
    except OSError as error:
        warn(
            f"The result could not be kept in {path.parent} ({error}), and will be computed again. Pass another "
            "folder as cache=."
        )
        return content
