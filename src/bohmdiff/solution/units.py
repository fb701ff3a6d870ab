"""What quantities are measured in: names only, nothing is converted."""

from typing import NamedTuple


class Units(NamedTuple):
    """The names of the units of a problem, for the axes of pictures and for exported data.

    ```python
    units = bd.plot.Units(time="fs", length="Å", energy="eV")
    bd.plot.moments(solution, units=units)
    solution.to_xarray(units=units)
    ```

    Nothing is converted: they say in what the problem was written.

    **Arguments:**

    - `time`, `length`, `energy`: names of the units; atomic units if not given.
    """

    time: str = "a.u."
    length: str = "a.u."
    energy: str = "a.u."


ATOMIC = Units()
