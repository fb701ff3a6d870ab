"""A one-dimensional density over time, with trajectories."""

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from .._check import as_real_array
from .._types import Numbers
from ..solution import Solution, as_solution
from ._evaluate import as_label, density_at, density_unit, reach
from ._style import ATOMIC, COLOURS, DENSITY_COLOURS, TRAJECTORY_COLOUR, Units, as_units, style

_PLACES = 400


def density(
    solution: Solution,
    trajectories: Numbers | None = None,
    *,
    ts: Numbers | None = None,
    reference: Numbers | None = None,
    lower: float | None = None,
    upper: float | None = None,
    label: str = "trajectories",
    units: Units = ATOMIC,
) -> Figure:
    """The density ρ(t, x) of a one-dimensional solution in grey, with trajectories over it.

    ```python
    splitting = bd.Problem(
        bd.Hamiltonian(bd.DoubleWell()),
        bd.GaussianWavePacket([0.0], 0.25),
        t1=2.0,
    )
    grid = bd.solve(
        splitting, bd.SplitOperator(points=128, lower=-6.0, upper=6.0)
    )
    bd.plot.density(grid, grid.quantile_trajectories([0.1, 0.5, 0.9])).savefig(
        "density.png"
    )
    ```

    **Arguments:**

    - `solution`: any one-dimensional solution that has a density.
    - `trajectories`: paths of particles, shape `(M, K)`.
    - `ts`: times of the trajectories, shape `(K,)`; the saved times of `solution` if not given.
    - `reference`: exact paths at the saved times of `solution`, shape `(M, K)`, drawn dashed.
    - `lower`, `upper`: the range of x; four standard deviations around the mean if not given.
    - `label`: the name of the trajectories in the legend.
    - `units`: units of the axes, [`Units`][bohmdiff.Units]; atomic units if not given. All other arguments are
        in the units of the problem.

    **Raises:** `ValueError` in more than one dimension.
    """
    solution, label = as_solution(solution, "solution"), as_label(label)
    units = as_units(units, solution.problem.hamiltonian.hbar)
    if solution.problem.dimension != 1:
        raise ValueError(
            f"plot.density draws one dimension, but the solution has {solution.problem.dimension}. Use "
            "plot.moments, which draws any number of dimensions."
        )
    low, high = reach(solution, 0, lower, upper)
    saved = np.asarray(solution.ts)
    times = saved if ts is None else np.asarray(as_real_array(ts, "ts"))
    paths = None if trajectories is None else _paths(trajectories, times, "trajectories")
    exact = None if reference is None else _paths(reference, saved, "reference")
    x = np.linspace(low, high, _PLACES)
    rho = np.stack([density_at(solution, t, x[:, None]) for t in solution.ts])
    saved, times = units.convert(saved, time=1), units.convert(times, time=1)
    x, rho = units.convert(x, length=1), units.convert(rho, length=-1)
    with style():
        figure, axes = plt.subplots(figsize=(8, 4.6))
        axes.grid(False)
        mesh = axes.pcolormesh(saved, x, rho.T, cmap=DENSITY_COLOURS, shading="gouraud", rasterized=True)
        name, unit = type(solution.method).__name__, density_unit(solution, units)
        figure.colorbar(mesh, label=f"density ρ(t, x) by {name}, {unit}")
        handles = []
        if paths is not None:
            axes.plot(times, units.convert(paths, length=1).T, color=TRAJECTORY_COLOUR, lw=1.4)
            handles.append(Line2D([], [], color=TRAJECTORY_COLOUR, lw=1.4, label=label))
        if exact is not None:
            dashed = {"color": COLOURS[0], "ls": (0, (4, 4)), "lw": 0.8}
            axes.plot(saved, units.convert(exact, length=1).T, **dashed)
            handles.append(Line2D([], [], label="exact trajectories", **dashed))
        if handles:
            axes.legend(handles=handles, loc="upper left")
        axes.set_ylim(x[0], x[-1])
        axes.set_xlabel(f"time t, {units.time}")
        axes.set_ylabel(f"position x, {units.length}")
    return figure


def _paths(paths: Numbers, times: np.ndarray, name: str) -> np.ndarray:
    array = np.asarray(as_real_array(paths, name))
    if array.ndim != 2 or times.ndim != 1 or array.shape[1] != times.size:
        raise ValueError(
            f"{name} must have shape (M, K), one row per particle, with K = {times.size} times, but shape "
            f"{array.shape} was given."
        )
    return array
