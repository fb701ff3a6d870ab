"""Means, widths and energy over time, against a reference."""

import matplotlib.pyplot as plt
import numpy as np
import xarray
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from ..solution import Solution, as_solution
from ..units import Label, unit_of
from ._style import ATOMIC, COLOURS, DASHES, MARKERS, Units, as_units, style

_KINDS = {"time": "time", "mean": "length", "std": "length", "energy": "energy"}


def moments(
    solution: Solution | xarray.Dataset,
    reference: Solution | xarray.Dataset | None = None,
    *,
    units: Units | None = None,
) -> Figure:
    """Draws mean and standard deviation of every coordinate as lines, and a reference as open markers.

    ```python
    bd.plot.moments(solution, exact).savefig("moments.png")
    ```

    **Arguments:**

    - `solution`: any solution, or the dataset from its `to_xarray()`.
    - `reference`: another solution of the same problem, or its dataset; errors are drawn in separate panels if
        both have the same saved times.
    - `units`: units of the axes, [`Units`][bohmdiff.Units]; if not given, the units that a dataset names, or
        atomic units.

    **Raises:** `ValueError` for solutions of problems of different dimensions.
    """
    units = _units(units, solution, reference)
    ours = _as_dataset(solution, "solution", units, "mean", "std")
    theirs = None if reference is None else _as_dataset(reference, "reference", units, "mean", "std")
    if theirs is not None and theirs.coordinate.size != ours.coordinate.size:
        raise ValueError(
            f"solution has {ours.coordinate.size} coordinates and reference {theirs.coordinate.size}: pass two "
            "solutions of the same problem."
        )
    with_errors = theirs is not None and _same_times(ours, theirs)
    with style():
        figure, axes = plt.subplots(
            2 if with_errors else 1, 2, figsize=(8, 5.6 if with_errors else 3.6), sharex=True, squeeze=False
        )
        for (top, *below), what, name in zip(
            axes.T, ("mean", "std"), ("mean", "std. deviation"), strict=True
        ):
            top.set_ylabel(f"{name}, {units.length}")
            for i in range(ours.coordinate.size):
                _line(top, ours.time, ours[what][:, i], i)
                if theirs is not None:
                    _markers(top, theirs.time, theirs[what][:, i], i)
                if theirs is not None and below:
                    _line(below[0], ours.time, np.abs(ours[what].values - theirs[what].values)[:, i], i)
            if below:
                # A logarithmic axis needs an error that is not zero.
                if any(np.any(line.get_ydata() > 0) for line in below[0].get_lines()):
                    below[0].set_yscale("log")
                    # Where two curves cross, the logarithm of their distance would fill the whole panel.
                    top_error = below[0].get_ylim()[1]
                    below[0].set_ylim(1e-6 * top_error, top_error)
                below[0].set_ylabel(f"error of {name}, {units.length}")
            axes[-1, 0 if what == "mean" else 1].set_xlabel(f"time t, {units.time}")
        handles = [
            Line2D([], [], color=_colour(i), ls=DASHES[i % len(DASHES)], label=f"$x_{{{i + 1}}}$")
            for i in range(ours.coordinate.size)
        ]
        if theirs is not None:
            handles.append(Line2D([], [], color="0.3", ls="", marker="o", mfc="none", label=_name(theirs)))
        figure.legend(handles=handles, loc="outside upper center", ncols=min(len(handles), 8))
    return figure


def energy(
    solution: Solution | xarray.Dataset,
    reference: Solution | xarray.Dataset | None = None,
    *,
    units: Units | None = None,
) -> Figure:
    """Draws the mean energy over time, and its change since the start.

    ```python
    bd.plot.energy(solution).savefig("energy.png")
    ```

    **Arguments:**

    - `solution`: any solution, or the dataset from its `to_xarray()`.
    - `reference`: another solution of the same problem, or its dataset, drawn as open markers.
    - `units`: units of the axes, [`Units`][bohmdiff.Units]; if not given, the units that a dataset names, or
        atomic units.

    **Raises:** `ValueError` for anything but a solution or its dataset.
    """
    units = _units(units, solution, reference)
    ours = _as_dataset(solution, "solution", units, "energy")
    theirs = None if reference is None else _as_dataset(reference, "reference", units, "energy")
    with style():
        figure, (top, below) = plt.subplots(2, 1, figsize=(8, 5), sharex=True)
        _line(top, ours.time, ours.energy, 0, _name(ours))
        _line(below, ours.time, ours.energy - ours.energy[0], 0)
        if theirs is not None:
            _markers(top, theirs.time, theirs.energy, 1, _name(theirs))
            _markers(below, theirs.time, theirs.energy - theirs.energy[0], 1)
        # Without this, a conserved energy fills the panel with its round-off.
        low, high = top.get_ylim()
        room = 0.05 * max(abs(high), abs(low))
        top.set_ylim(low - room, high + room)
        top.set_ylabel(f"mean energy, {units.energy}")
        below.set_ylabel(f"change since start, {units.energy}")
        below.set_xlabel(f"time t, {units.time}")
        below.ticklabel_format(axis="y", scilimits=(-2, 3))
        top.legend()
    return figure


def _as_dataset(
    solution: Solution | xarray.Dataset, name: str, units: Units, *wanted: str
) -> xarray.Dataset:
    if not isinstance(solution, xarray.Dataset):
        return as_solution(solution, name).to_xarray(units=units)
    missing = {"time", *wanted} - {str(key) for key in solution.variables}
    if missing:
        raise ValueError(
            f"{name} must be a dataset from to_xarray(), but it has no {', '.join(sorted(missing))}."
        )
    return _converted(solution, name, units, ("time", *wanted))


def _converted(
    dataset: xarray.Dataset, name: str, units: Units, variables: tuple[str, ...]
) -> xarray.Dataset:
    """Converts a dataset from the units that it names to `units`."""
    source, converted = _named(dataset), {}
    for variable in variables:
        kind = _KINDS[variable]
        here, there = getattr(source, kind), getattr(units, kind)
        if isinstance(here, Label) and not isinstance(there, Label):
            raise ValueError(
                f"The {variable} of {name} is in {str(here)!r}, which cannot be converted to {there!r}. Keep it "
                f"with units=Units({kind}=bd.units.Label({str(here)!r}))."
            )
        # A label only names the units of the numbers: nothing is converted.
        factor = 1.0 if isinstance(there, Label) else source.value(kind) / units.value(kind)
        values = dataset[variable]
        converted[variable] = (values.dims, factor * values.values)
    times = {"time": converted.pop("time")}
    return dataset.assign(converted).assign_coords(times)


def _units(units: Units | None, *sources: Solution | xarray.Dataset | None) -> Units:
    """The given units, or those of the first dataset that names any, checked against all problems."""
    datasets = [source for source in sources if isinstance(source, xarray.Dataset)]
    if units is None:
        with_names = (one for one in datasets if any("units" in said for said in _said(one).values()))
        units = next(map(_named, with_names), ATOMIC)
    hbars = [one.attrs.get("hbar", 1.0) for one in datasets]
    hbars += [one.problem.hamiltonian.hbar for one in sources if isinstance(one, Solution)]
    for hbar in (1.0, *hbars):
        units = as_units(units, hbar)
    return units


def _named(dataset: xarray.Dataset) -> Units:
    """The units of a dataset; atomic units if it names none."""
    return Units(**{kind: unit_of(said) for kind, said in _said(dataset).items()})


def _said(dataset: xarray.Dataset) -> dict[str, dict]:
    variables = {"time": "time", "length": "mean", "energy": "energy"}
    return {kind: dataset[name].attrs if name in dataset else {} for kind, name in variables.items()}


def _same_times(ours: xarray.Dataset, theirs: xarray.Dataset) -> bool:
    return ours.time.shape == theirs.time.shape and bool(np.allclose(ours.time, theirs.time))


def _name(dataset: xarray.Dataset) -> str:
    return dataset.attrs.get("method", "reference").partition("(")[0]


def _colour(i: int) -> str:
    return COLOURS[i % len(COLOURS)]


def _line(axes: Axes, ts, values, i: int, label: str | None = None) -> None:
    axes.plot(np.asarray(ts), values, color=_colour(i), ls=DASHES[i % len(DASHES)], label=label)


def _markers(axes: Axes, ts, values, i: int, label: str | None = None) -> None:
    every = max(len(values) // 16, 1)
    axes.plot(
        np.asarray(ts)[::every],
        values[::every],
        color=_colour(i),
        ls="",
        marker=MARKERS[i % len(MARKERS)],
        mfc="none",
        ms=6,
        label=label,
    )
