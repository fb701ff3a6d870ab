"""A one-dimensional density over time, and the trajectories that it carries."""

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from .._types import Numbers
from ..solution import Solution
from .evaluate import density_at, density_unit, reach
from .style import ATOMIC, COLOURS, DENSITY_COLOURS, TRAJECTORY_COLOUR, Units, style

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
    flow = bd.propagate(problem, solution.score, x0, ts=exact.ts, solver=bd.BlanesMoan4(), steps=200)
    bd.plot.density(exact, flow.position[..., 0]).savefig("density.png")
    ```

    **Arguments:**

    - `solution`: any solution in one dimension that has a density.
    - `trajectories`: paths of particles, shape `(M, K)`.
    - `ts`: their times, shape `(K,)`; those of `solution` if not given.
    - `reference`: exact paths at the times of `solution`, shape `(M, K)`, drawn dashed.
    - `lower`, `upper`: the range of x; four standard deviations around the mean if not given.
    - `label`: what the trajectories are, for the legend.
    - `units`: for the labels of the axes.

    **Raises:** `ValueError` in more than one dimension.
    """
    if solution.problem.dimension != 1:
        raise ValueError(
            f"plot.density draws one dimension, but the solution has {solution.problem.dimension}; "
            "plot.moments draws any number."
        )
    low, high = reach(solution, 0, lower, upper)
    x = np.linspace(low, high, _PLACES)
    rho = np.stack([density_at(solution, t, x[:, None]) for t in solution.ts])
    with style():
        figure, axes = plt.subplots(figsize=(8, 4.6))
        axes.grid(False)
        mesh = axes.pcolormesh(
            np.asarray(solution.ts), x, rho.T, cmap=DENSITY_COLOURS, shading="gouraud", rasterized=True
        )
        name, unit = type(solution.method).__name__, density_unit(solution, units)
        figure.colorbar(mesh, label=f"density ρ(t, x) by {name}, {unit}")
        handles = []
        if trajectories is not None:
            times = np.asarray(solution.ts if ts is None else ts)
            axes.plot(times, np.asarray(trajectories).T, color=TRAJECTORY_COLOUR, lw=1.4)
            handles.append(Line2D([], [], color=TRAJECTORY_COLOUR, lw=1.4, label=label))
        if reference is not None:
            dashed = {"color": COLOURS[0], "ls": (0, (4, 4)), "lw": 0.8}
            axes.plot(np.asarray(solution.ts), np.asarray(reference).T, **dashed)
            handles.append(Line2D([], [], label="exact trajectories", **dashed))
        if handles:
            axes.legend(handles=handles, loc="upper left")
        axes.set_ylim(low, high)
        axes.set_xlabel(f"time t, {units.time}")
        axes.set_ylabel(f"position x, {units.length}")
    return figure
