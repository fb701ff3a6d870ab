"""Atoms and where they are, from a file, text or a `Mole` of PySCF."""

import os
import re
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from .. import units
from .._check import is_whole_number, on_host
from .._types import Numbers

_SYMBOL = re.compile(r"[A-Z][a-z]?")


class Geometry(NamedTuple):
    """Symbols of the elements, and positions in bohr, shape `(N, 3)`."""

    symbols: tuple[str, ...]
    positions: np.ndarray


def _read(geometry: str | Path) -> Geometry:
    """A geometry from a file in the XYZ format, or from its text: lines of a symbol and three numbers in
    ångström, with or without the two lines before them."""
    is_text = isinstance(geometry, str) and "\n" in geometry
    if is_text:
        where, text = "The geometry", str(geometry)
    else:
        path = Path(os.path.expanduser(geometry))
        if not path.is_file():
            raise FileNotFoundError(
                f"There is no file {str(path)!r}. geometry must be the path of an XYZ file, or its text, which "
                "has a line for each atom."
            )
        where, text = f"The geometry in {path}", path.read_text(encoding="utf-8")
    lines = text.strip("\n").splitlines()
    number = None
    if lines and re.fullmatch(r"\s*\d+\s*", lines[0]):
        number, lines = int(lines[0]), lines[2:]
    atoms = [_atom(line, where) for line in lines if line.strip()]
    if number is not None and len(atoms) != number:
        raise ValueError(
            f"{where} announces {number} atoms in its first line, but {len(atoms)} follow. One geometry is "
            "wanted: the number of atoms, a comment, and one line for each atom."
        )
    symbols, positions = tuple(symbol for symbol, _ in atoms), [position for _, position in atoms]
    return _checked(Geometry(symbols, np.array(positions).reshape(-1, 3) * units.angstrom), where)


def _atom(line: str, where: str) -> tuple[str, list[float]]:
    first, *numbers = line.split()
    symbol = first.capitalize()
    try:
        position = [float(number) for number in numbers[:3]]
    except ValueError:
        position = []
    if not _SYMBOL.fullmatch(symbol) or len(position) != 3:
        raise ValueError(
            f"{where} has the line {line!r}, which is no atom: it must be the symbol of an element and three "
            "numbers in ångström, such as 'O 0.0 0.0 0.117'."
        )
    return symbol, position


def _checked(geometry: Geometry, where: str) -> Geometry:
    """`geometry`, if it is that of a molecule."""
    n = len(geometry.symbols)
    if n < 2:
        raise ValueError(f"{where} has {n} atoms, but vibrations need at least two.")
    if not np.all(np.isfinite(geometry.positions)):
        raise ValueError(f"{where} has positions that are not finite.")
    i, j = np.triu_indices(n, k=1)
    distances = np.linalg.norm(geometry.positions[i] - geometry.positions[j], axis=1)
    nearest = int(np.argmin(distances))
    if distances[nearest] < 0.5:
        raise ValueError(
            f"{where} has atoms {i[nearest]} and {j[nearest]} at a distance of {distances[nearest]:.3g} bohr. "
            "Positions must be in ångström."
        )
    return geometry


def _of_mole(mole: Any) -> Geometry:
    """The geometry of a `Mole` of PySCF."""
    symbols = tuple(mole.atom_pure_symbol(k) for k in range(mole.natm))
    return _checked(Geometry(symbols, np.array(mole.atom_coords(unit="Bohr"))), "The Mole")


def molecule_of(
    geometry: Any, basis: str | None, charge: int | None, spin: int | None
) -> tuple[Geometry, tuple[str, ...], dict[str, Any]]:
    """The atoms, how PySCF labels them, and its other keywords."""
    for name, value in (("charge", charge), ("spin", spin)):
        if value is not None and not is_whole_number(value):
            raise ValueError(f"{name} must be a whole number, but {value!r} was given.")
    if isinstance(geometry, str | os.PathLike):
        if not isinstance(basis, str):
            raise ValueError(
                f"basis must be the name of a basis of PySCF, such as '6-31g*', but {basis!r} was given."
            )
        atoms = _read(geometry if isinstance(geometry, str) else Path(geometry))
        build = {"basis": basis.lower(), "charge": int(charge or 0), "spin": int(spin or 0)}
        return atoms, atoms.symbols, build
    if not (
        type(geometry).__module__.startswith("pyscf.") and callable(getattr(geometry, "atom_coords", None))
    ):
        raise ValueError(
            "geometry must be the path of an XYZ file, its text, or a Mole of PySCF, but "
            f"{geometry!r} was given."
        )
    if (basis, charge, spin) != (None, None, None):
        raise ValueError("A Mole has its own basis, charge and spin. Leave out basis=, charge= and spin=.")
    labels = tuple(geometry.atom_symbol(k) for k in range(geometry.natm))
    build = {
        "basis": geometry._basis,
        "ecp": geometry._ecp,
        "charge": int(geometry.charge),
        "spin": int(geometry.spin),
        "cart": bool(geometry.cart),
    }
    return _of_mole(geometry), labels, build


def masses_of(masses: Numbers, n: int) -> np.ndarray:
    """Masses in u as the user gives them."""
    array = np.asarray(on_host(masses, "masses"))
    if array.dtype.kind not in "fiu" or array.shape != (n,) or not np.all(array > 0):
        raise ValueError(
            f"masses must be positive numbers in u, one for each of the {n} atoms, but {masses!r} was given."
        )
    return array.astype(float)
