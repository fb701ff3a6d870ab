"""Conversion factors between atomic and other units, and the units of axes and of exported data.

```python
t1 = 400 * bd.units.fs
mass = 1.008 * bd.units.amu
solution.energy() / bd.units.eV
```

Each factor is the value of a unit in atomic units (ħ = mₑ = e = 1), from the CODATA constants of
`scipy.constants`. Multiply by it to enter a number, divide by it to read one.
"""

import unicodedata
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from scipy import constants

_SI = {name: constants.physical_constants[name][0] for name in ("atomic unit of time", "Bohr radius")}
_HARTREE = constants.physical_constants["Hartree energy"][0]

# Times
attosecond = 1e-18 / _SI["atomic unit of time"]
fs = 1e-15 / _SI["atomic unit of time"]
ps = 1e-12 / _SI["atomic unit of time"]

# Lengths
bohr = 1.0
pm = 1e-12 / _SI["Bohr radius"]
angstrom = 1e-10 / _SI["Bohr radius"]
nm = 1e-9 / _SI["Bohr radius"]

# Energies; a wavenumber and a temperature are those of h c / λ and k_B T.
hartree = 1.0
eV = constants.e / _HARTREE
meV = 1e-3 * eV
inverse_cm = 100 * constants.h * constants.c / _HARTREE
kelvin = constants.k / _HARTREE
kJ_per_mol = 1e3 / constants.N_A / _HARTREE
kcal_per_mol = 1e3 * constants.calorie / constants.N_A / _HARTREE

# Masses
electron_mass = 1.0
proton_mass = constants.m_p / constants.m_e
amu = constants.atomic_mass / constants.m_e

# Dipole moments: 1e-18 of the electrostatic units of charge times a centimetre
debye = 1e-21 / constants.c / (constants.e * _SI["Bohr radius"])

ATOMIC_UNITS = "a.u."
_OTHERS = "own units"  # of a problem that is not in atomic units and does not say in which
_VALUE = "value_in_atomic_units"
# How each unit is written on an axis, its value, and other ways to write it.
_KNOWN: dict[str, list[tuple[str, float, tuple[str, ...]]]] = {
    "time": [("as", attosecond, ("attosecond",)), ("fs", fs, ()), ("ps", ps, ())],
    "length": [
        ("bohr", bohr, ("a₀",)),
        ("pm", pm, ()),
        ("Å", angstrom, ("angstrom", "Angstrom")),
        ("nm", nm, ()),
    ],
    "energy": [
        ("hartree", hartree, ("Eₕ",)),
        ("eV", eV, ()),
        ("meV", meV, ()),
        ("cm⁻¹", inverse_cm, ("inverse_cm", "1/cm", "cm-1", "cm^-1")),
        ("K", kelvin, ("kelvin",)),
        ("kJ/mol", kJ_per_mol, ("kJ_per_mol",)),
        ("kcal/mol", kcal_per_mol, ("kcal_per_mol",)),
    ],
}
_SYMBOLS = {
    kind: {name: symbol for symbol, _, others in known for name in (symbol, *others)}
    | {ATOMIC_UNITS: ATOMIC_UNITS}
    for kind, known in _KNOWN.items()
}
_VALUES = {
    kind: {symbol: value for symbol, value, _ in known} | {ATOMIC_UNITS: 1.0}
    for kind, known in _KNOWN.items()
}


@dataclass(frozen=True)
class Label:
    """The name of a unit that numbers already have. Nothing is converted.

    For problems that are not written in atomic units:

    ```python
    units = bd.Units(
        time=bd.units.Label("1/ω"),
        length=bd.units.Label("√(ħ/mω)"),
        energy=bd.units.Label("ħω"),
    )
    ```

    **Arguments:**

    - `text`: the name, as it shall stand on an axis.

    **Raises:** `ValueError` if it is not text.
    """

    text: str

    def __post_init__(self):
        if not isinstance(self.text, str):
            raise ValueError(f"A label must be text, such as Label('ħω'), but {self.text!r} was given.")

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True)
class Units:
    """The units of the axes of plots and of exported data. Numbers are converted from atomic units.

    ```python
    units = bd.Units(time="fs", length="angstrom", energy="eV")
    bd.plot.moments(solution, units=units)
    solution.to_xarray(units=units)
    ```

    So the problem must be written in atomic units, for example with the factors of `bd.units`. If it is written
    in other units, name those as a [`Label`][bohmdiff.units.Label], and the numbers stay as they are.

    **Arguments:**

    - `time`: `"as"`, `"fs"` or `"ps"`.
    - `length`: `"bohr"`, `"pm"`, `"angstrom"` or `"nm"`.
    - `energy`: `"hartree"`, `"eV"`, `"meV"`, `"inverse_cm"`, `"kelvin"`, `"kJ/mol"` or `"kcal/mol"`.

    Each may also be a [`Label`][bohmdiff.units.Label]. Without it, the numbers are labelled `a.u.`, atomic
    units.

    **Raises:** `ValueError` for another name. Where the units are used, for a problem with `hbar` other than
    one, because it is not in atomic units.
    """

    time: str | Label = ATOMIC_UNITS
    length: str | Label = ATOMIC_UNITS
    energy: str | Label = ATOMIC_UNITS

    def __post_init__(self):
        for field in fields(self):
            name = getattr(self, field.name)
            if isinstance(name, Label):
                continue
            symbols = _SYMBOLS[field.name]
            symbol = symbols.get(unicodedata.normalize("NFC", name)) if isinstance(name, str) else None
            if symbol is None:
                known = ", ".join(map(repr, _VALUES[field.name]))
                raise ValueError(
                    f"{field.name} must be one of {known}, to which numbers are converted from atomic units, but "
                    f"{name!r} was given. If the numbers are in a unit of your own, name it with "
                    "bd.units.Label('...')."
                )
            object.__setattr__(self, field.name, symbol)

    @property
    def converts(self) -> bool:
        """Whether numbers change."""
        return any(
            not isinstance(name, Label) and name != ATOMIC_UNITS
            for name in (self.time, self.length, self.energy)
        )

    def convert(self, values: Any, *, time: int = 0, length: int = 0, energy: int = 0) -> Any:
        """Numbers in atomic units, converted to these units.

        ```python
        bd.Units(time="fs").convert(solution.ts, time=1)
        ```

        **Arguments:**

        - `values`: a number or an array.
        - `time`, `length`, `energy`: the powers of the dimension of the numbers.

        **Returns:** the same with other numbers; exactly the same for atomic units and labels.
        """
        powers = {"time": time, "length": length, "energy": energy}
        factor = np.prod([self.value(kind) ** float(-power) for kind, power in powers.items()])
        return values if factor == 1 else values * float(factor)

    def value(self, kind: str) -> float:
        """The value of the unit of a `"time"`, `"length"` or `"energy"` in atomic units; one for a label."""
        name = getattr(self, kind)
        return 1.0 if isinstance(name, Label) else _VALUES[kind][name]

    def attributes(self, kind: str) -> dict[str, Any]:
        """What exported data say about the unit of a `"time"`, `"length"` or `"energy"`."""
        name = getattr(self, kind)
        if isinstance(name, Label):
            return {"units": name.text}
        return {"units": name, _VALUE: self.value(kind)}


ATOMIC = Units()


def as_units(units: Any, hbar: Any = 1.0) -> Units:
    """`units`, if they are some, and fit a problem with this ħ."""
    if not isinstance(units, Units):
        raise ValueError(f"units must be Units, such as bd.Units(time='fs'), but {units!r} was given.")
    if abs(float(hbar) - 1) < 1e-6:
        return units
    if units.converts:
        raise ValueError(
            f"{units} converts numbers from atomic units, but the problem is in others: its hbar is "
            f"{float(hbar):.6g} instead of 1. Name its own units, such as Units(time=bd.units.Label('fs'))."
        )
    names = {field.name: getattr(units, field.name) for field in fields(units)}
    return Units(**{kind: Label(_OTHERS) if name == ATOMIC_UNITS else name for kind, name in names.items()})


def unit_of(attributes: dict[Any, Any]) -> str | Label:
    """What [`Units.attributes`][bohmdiff.Units] were made from."""
    name = str(attributes.get("units", ATOMIC_UNITS))
    return name if name == ATOMIC_UNITS or _VALUE in attributes else Label(name)
