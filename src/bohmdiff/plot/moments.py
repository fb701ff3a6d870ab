"""Means, widths and energy over time, against a reference."""

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from ..solution import Solution
from .style import ATOMIC, COLOURS, DASHES, MARKERS, Units, style


def moments(solution: Solution, reference: Solution | None = None, *, units: Units = ATOMIC) -> Figure:
    """Mean and standard deviation of every coordinate: lines; those of a reference: open markers.

    ```python
    bd.plot.moments(solution, exact).savefig("moments.png")
    ```

    **Arguments:**

    - `solution`: any solution.
    - `reference`: another one of the same problem; its errors get panels of their own if it is saved at
        the same times.
    - `units`: for the labels of the axes.
    """
    same_times = (
        reference is not None
        and reference.ts.shape == solution.ts.shape
        and bool(np.allclose(reference.ts, solution.ts))
    )
    with style():
        figure, axes = plt.subplots(
            2 if same_times else 1, 2, figsize=(8, 5.6 if same_times else 3.6), sharex=True, squeeze=False
        )
        for column, name in enumerate(("mean", "standard deviation")):
            ours = np.asarray(solution.mean() if column == 0 else solution.std())
            top = axes[0, column]
            top.set_ylabel(f"{name}, {units.length}")
            for i in range(ours.shape[1]):
                _line(top, solution.ts, ours[:, i], i)
            if reference is not None:
                theirs = np.asarray(reference.mean() if column == 0 else reference.std())
                for i in range(theirs.shape[1]):
                    _markers(top, reference.ts, theirs[:, i], i)
                if same_times:
                    below = axes[1, column]
                    for i in range(ours.shape[1]):
                        _line(below, solution.ts, np.abs(ours - theirs)[:, i], i)
                    below.set_yscale("log")
                    below.set_ylabel(f"|error| of {name}, {units.length}")
            axes[-1, column].set_xlabel(f"time t, {units.time}")
        handles = [
            Line2D([], [], color=_colour(i), ls=DASHES[i % len(DASHES)], label=f"$x_{{{i + 1}}}$")
            for i in range(solution.problem.dimension)
        ]
        if reference is not None:
            name = type(reference.method).__name__
            handles.append(Line2D([], [], color="0.3", ls="", marker="o", mfc="none", label=name))
        figure.legend(handles=handles, loc="outside upper center", ncols=min(len(handles), 8))
    return figure


def energy(solution: Solution, reference: Solution | None = None, *, units: Units = ATOMIC) -> Figure:
    """The mean energy over time, and by how much it departs from its first value.

    ```python
    bd.plot.energy(solution).savefig("energy.png")
    ```

    **Arguments:**

    - `solution`: any solution.
    - `reference`: another one of the same problem, drawn with open markers.
    - `units`: for the labels of the axes.
    """
    with style():
        figure, (top, below) = plt.subplots(2, 1, figsize=(8, 5), sharex=True)
        values = np.asarray(solution.energy())
        _line(top, solution.ts, values, 0, type(solution.method).__name__)
        _line(below, solution.ts, values - values[0], 0)
        if reference is not None:
            values = np.asarray(reference.energy())
            _markers(top, reference.ts, values, 0, type(reference.method).__name__)
            _markers(below, reference.ts, values - values[0], 0)
        top.set_ylabel(f"mean energy, {units.energy}")
        # Without this, a conserved energy fills the panel with its round-off.
        low, high = top.get_ylim()
        room = 0.05 * max(abs(high), abs(low))
        top.set_ylim(low - room, high + room)
        below.set_ylabel(f"change since start, {units.energy}")
        below.set_xlabel(f"time t, {units.time}")
        below.ticklabel_format(axis="y", scilimits=(-2, 3))
        top.legend()
    return figure


def _colour(i: int) -> str:
    return COLOURS[i % len(COLOURS)]


def _line(axes: Axes, ts, values: np.ndarray, i: int, label: str | None = None) -> None:
    axes.plot(np.asarray(ts), values, color=_colour(i), ls=DASHES[i % len(DASHES)], label=label)


def _markers(axes: Axes, ts, values: np.ndarray, i: int, label: str | None = None) -> None:
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
