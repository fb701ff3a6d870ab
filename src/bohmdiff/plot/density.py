"""A one-dimensional density over time, and the trajectories that it carries."""

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from .._types import Numbers
from ..solution import Solution
from .style import ATOMIC, TRAJECTORY_COLOUR, Units, style

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
    mean, std = np.asarray(solution.mean())[:, 0], np.asarray(solution.std())[:, 0]
    low = float(np.min(mean - 4 * std)) if lower is None else lower
    high = float(np.max(mean + 4 * std)) if upper is None else upper
    x = jnp.linspace(low, high, _PLACES, dtype=solution.ts.dtype)
    rho = np.stack(
        [
            np.exp(np.asarray(jax.vmap(lambda y, t=t: solution.log_density(t, y[None]))(x)))
            for t in solution.ts
        ]
    )
    with style():
        figure, axes = plt.subplots(figsize=(8, 4.6))
        axes.grid(False)
        mesh = axes.pcolormesh(
            np.asarray(solution.ts), np.asarray(x), rho.T, cmap="Greys", shading="gouraud", rasterized=True
        )
        figure.colorbar(
            mesh, label=f"density ρ(t, x) by {type(solution.method).__name__}, 1/{units.length}"
        )
        handles = []
        if trajectories is not None:
            times = np.asarray(solution.ts if ts is None else ts)
            axes.plot(times, np.asarray(trajectories).T, color=TRAJECTORY_COLOUR, lw=1.4)
            handles.append(Line2D([], [], color=TRAJECTORY_COLOUR, lw=1.4, label=label))
        if reference is not None:
            dashed = {"color": "black", "ls": (0, (4, 4)), "lw": 0.8}
            axes.plot(np.asarray(solution.ts), np.asarray(reference).T, **dashed)
            handles.append(Line2D([], [], label="exact trajectories", **dashed))
        if handles:
            axes.legend(handles=handles, loc="upper left")
        axes.set_ylim(low, high)
        axes.set_xlabel(f"time t, {units.time}")
        axes.set_ylabel(f"position x, {units.length}")
    return figure
