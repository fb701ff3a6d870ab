"""What quantities are measured in: names only, nothing is converted."""

from dataclasses import dataclass, fields
from typing import Any


@dataclass(frozen=True)
class Units:
    """The names of the units of a problem, for the axes of pictures and for exported data.

    ```python
    units = bd.plot.Units(time="fs", length="Å", energy="eV")
    bd.plot.moments(solution, units=units)
    solution.to_xarray(units=units)
    ```

    Nothing is converted: they say in what the problem was written.

    **Arguments:**

    - `time`, `length`, `energy`: names of the units; atomic units if not given.

    **Raises:** `ValueError` for names that are not text.
    """

    time: str = "a.u."
    length: str = "a.u."
    energy: str = "a.u."

    def __post_init__(self):
        for field in fields(self):
            name = getattr(self, field.name)
            if not isinstance(name, str):
                raise ValueError(
                    f"{field.name} must be the name of a unit, such as 'fs', but {name!r} was given."
                )


ATOMIC = Units()


def as_units(units: Any) -> Units:
    """`units`, if they are some."""
    if not isinstance(units, Units):
        raise ValueError(f"units must be Units, such as bd.plot.Units(time='fs'), but {units!r} was given.")
    return units
