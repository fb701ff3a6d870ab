"""Animated densities and trajectories."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import xarray
from matplotlib.animation import FuncAnimation
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection, PolyCollection
from matplotlib.contour import ContourSet
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from .._check import as_positive_integer, as_real_array, on_host
from .._types import Numbers
from ..solution import Solution
from ._evaluate import as_label, density_at, density_unit, reach
from ._style import (
    ATOMIC,
    COLOURS,
    DASHES,
    DENSITY_COLOURS,
    MARKERS,
    TRAJECTORY_COLOUR,
    Units,
    as_units,
    style,
)

_PLACES = {1: 400, 2: 100}  # points per axis at which a density is evaluated
_LEVELS = (0.1, 0.3, 0.5, 0.7, 0.9)  # of contours, as fractions of the largest density of a frame
_NEAR = 2.5  # standard deviations
_TAIL = 0.2  # length of the paths in a plane, as a fraction of all frames
_DOTS: dict[str, Any] = {"color": TRAJECTORY_COLOUR, "ls": "", "marker": MARKERS[0], "ms": 4}
_EXACT: dict[str, Any] = {"color": COLOURS[1], "ls": DASHES[1]}


def movie(
    solution: Solution,
    trajectories: Numbers | None = None,
    *,
    exact: Solution | None = None,
    coordinates: int | Sequence[int] | None = None,
    every: int = 1,
    fps: int = 20,
    lower: Numbers | None = None,
    upper: Numbers | None = None,
    label: str = "trajectories",
    units: Units = ATOMIC,
) -> FuncAnimation:
    r"""Animates the density ρ(t, x) and its particles.

    ```python
    paths = bd.propagate(
        problem, score, x0, ts=solution.ts, solver=bd.BlanesMoan4(), steps=64
    ).position
    bd.plot.movie(solution, paths, exact=exact, every=25).save(
        "movie.gif", writer="pillow"
    )
    ```

    For one coordinate, the density is a curve with the particles on it, and a panel below shows their paths
    so far. For two coordinates, the density is a grey image, under the particles and the last part of their
    paths. If the solution has more coordinates than are drawn, the density is evaluated on the line or plane
    through the mean of `solution`, and all particles are projected onto it.

    GIFs need no other program; `.mp4` (`writer="ffmpeg"`) needs ffmpeg. In a notebook,
    `IPython.display.HTML(animation.to_jshtml())` plays the movie.

    **Arguments:**

    - `solution`: any solution that has a density.
    - `trajectories`: paths of particles at the saved times, shape `(M, K, d)`, or `(M, K)` in one dimension.
    - `exact`: another solution of the same problem. Its density is drawn dashed: as a curve for one
        coordinate, and for two as contours at 10, 30, 50, 70 and 90 % of its largest density, with the same
        contours of `solution` in black.
    - `coordinates`: one or two indices, counted from 0; if not given, the first two, or the only one.
    - `every`: draw every `every`-th saved time.
    - `fps`: frames per second.
    - `lower`, `upper`: the range of each drawn coordinate, one number for all or one for each; four standard
        deviations around the mean if not given.
    - `label`: the name of the trajectories in the legend.
    - `units`: units of the axes, [`Units`][bohmdiff.Units]; atomic units if not given. All other arguments are
        in the units of the problem.

    **Returns:** a `matplotlib.animation.FuncAnimation` with $\lceil K / \text{every} \rceil$ frames. Its
    figure is independent of pyplot and need not be closed.

    **Raises:** `ValueError` for coordinates that do not exist, trajectories of the wrong shape or solutions
    of different dimensions; [`UnavailableError`][bohmdiff.UnavailableError] if a solution has no density.
    """
    _check(solution, exact)
    units, label = as_units(units, solution.problem.hamiltonian.hbar), as_label(label)
    every = as_positive_integer(every, "every", "Pass 1 for a frame at each saved time.")
    fps = as_positive_integer(fps, "fps", "Pass the number of frames per second.")
    drawn = _coordinates(coordinates, solution.problem.dimension)
    paths = None if trajectories is None else _paths(trajectories, solution)[:, ::every, drawn]
    x = _places(solution, drawn, lower, upper)
    density = _densities(solution, solution, drawn, x, every)
    others = None if exact is None else _densities(exact, solution, drawn, x, every)
    largest = _largest(solution, drawn, x, every, density) if others is None else _top(others)
    d = solution.problem.dimension
    frames = _Frames(
        ts=units.convert(np.asarray(solution.ts)[::every], time=1),
        x=[units.convert(one, length=1) for one in x],
        density=units.convert(density, length=-d),
        exact=None if others is None else units.convert(others, length=-d),
        paths=None if paths is None else units.convert(paths, length=1),
        largest=units.convert(largest, length=-d),
    )
    words = _words(solution, exact, drawn, label, units)
    with style():
        # pyplot would keep its own figure, and show it as a picture next to the movie.
        figure = Figure(figsize=(6.4, 5.2))
        draw = (_curve if len(drawn) == 1 else _plane)(figure, frames, words)
        draw(0)
        # Keep the layout of the first frame.
        figure.draw_without_rendering()
        figure.set_layout_engine("none")
        return FuncAnimation(
            figure, draw, frames=len(frames.ts), interval=1000 / fps, blit=False, cache_frame_data=False
        )


class _Frames(NamedTuple):
    """The data of all frames, in the units of the axes, computed in advance so that they share one scale."""

    ts: np.ndarray  # (K,)
    x: list[np.ndarray]  # one or two, (n,)
    density: np.ndarray  # (K, n) or (K, n, n), the second coordinate first, as in images
    exact: np.ndarray | None
    paths: np.ndarray | None  # (M, K, 1 or 2)
    largest: float  # the density at the top of the scale


class _Words(NamedTuple):
    density: str
    positions: list[str]
    where: str
    time: str
    name: str
    exact: str
    paths: str


def _words(
    solution: Solution, exact: Solution | None, drawn: list[int], label: str, units: Units
) -> _Words:
    d = solution.problem.dimension
    where = {1: "on the line through the mean", 2: "on the plane through the mean"}[len(drawn)]
    return _Words(
        density=f"density ρ(t, x), {density_unit(solution, units)}",
        positions=[f"position {'x' if d == 1 else f'$x_{{{i + 1}}}$'}, {units.length}" for i in drawn],
        where=where if len(drawn) < d else "",
        time=str(units.time),
        name=type(solution.method).__name__,
        exact="" if exact is None else f"exact, by {type(exact.method).__name__}",
        paths=label,
    )


def _curve(figure: Figure, frames: _Frames, words: _Words) -> Callable[[int], None]:
    """One coordinate: the density over x, and below it the paths so far."""
    (x,) = frames.x
    if frames.paths is None:
        top = bottom = figure.subplots()
    else:
        top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=(3, 2))
        if len(frames.ts) > 1:
            bottom.set_ylim(frames.ts[0], frames.ts[-1])
        bottom.set_ylabel(f"time t, {words.time}")
    area = PolyCollection([], facecolor="0.88")
    top.add_collection(area, autolim=False)
    (curve,) = top.plot(x, frames.density[0], color=COLOURS[0], label=words.name)
    lines = [(curve, frames.density)]
    if frames.exact is not None:
        (dashed,) = top.plot(x, frames.exact[0], label=words.exact, **_EXACT)
        lines.append((dashed, frames.exact))
    move = _particles(top, bottom, frames, words)
    top.set_xlim(x[0], x[-1])
    top.set_ylim(0, 1.05 * frames.largest)
    top.set_ylabel(words.density)
    bottom.set_xlabel(words.positions[0])
    clock = _clock(top, frames, words)
    figure.legend(loc="outside upper center", ncols=2)

    def draw(k: int) -> None:
        clock(k)
        for line, values in lines:
            line.set_ydata(values[k])
        rho = np.nan_to_num(frames.density[k]).clip(max=10 * frames.largest)
        area.set_verts([np.stack([[x[0], *x, x[-1]], [0, *rho, 0]], axis=1)])
        if frames.paths is not None:
            so_far, now = frames.paths[:, : k + 1, 0], frames.paths[:, k, 0]
            move(
                np.stack([so_far, np.broadcast_to(frames.ts[: k + 1], so_far.shape)], axis=-1),
                (now, np.interp(now, x, rho)),
            )

    return draw


def _plane(figure: Figure, frames: _Frames, words: _Words) -> Callable[[int], None]:
    """Two coordinates: the density as a picture, that of `exact` as contours."""
    axes = figure.subplots()
    axes.grid(False)
    (x, y), largest = frames.x, frames.largest
    image = axes.imshow(
        frames.density[0],
        origin="lower",
        extent=(x[0], x[-1], y[0], y[-1]),
        aspect="auto",
        cmap=DENSITY_COLOURS,
        vmin=0,
        vmax=largest,
        interpolation="bilinear",
    )
    figure.colorbar(image, label=words.density)
    handles: list[Artist] = [Line2D([], [], color=COLOURS[0], lw=1, label=words.name)]
    if frames.exact is None:
        handles = [Patch(color="0.6", label=words.name)]
    else:
        handles.append(Line2D([], [], label=words.exact, **_EXACT))
    if frames.paths is not None:
        handles.append(Line2D([], [], label=words.paths, **_DOTS))
    move = _particles(axes, axes, frames, words)
    axes.set_xlim(x[0], x[-1])
    axes.set_ylim(y[0], y[-1])
    axes.set_xlabel(words.positions[0])
    axes.set_ylabel(words.positions[1])
    figure.legend(handles=handles, loc="outside upper center", ncols=2)
    clock = _clock(axes, frames, words)
    contours: list[ContourSet] = []

    def draw(k: int) -> None:
        clock(k)
        image.set_data(frames.density[k])
        while contours:
            contours.pop().remove()
        if frames.exact is not None:
            levels = np.array(_LEVELS) * np.nanmax(frames.exact[k])
            for values, colour, dashes, width in (
                (frames.density[k], COLOURS[0], "-", 1.0),
                (frames.exact[k], _EXACT["color"], _EXACT["ls"], 1.4),
            ):
                # matplotlib warns if no level is reached.
                if np.nanmin(values) < levels[-1] and np.nanmax(values) > levels[0]:
                    drawn = axes.contour(
                        x, y, values, levels, colors=colour, linestyles=dashes, linewidths=width
                    )
                    contours.append(drawn)
        if frames.paths is not None:
            first = max(k - round(_TAIL * len(frames.ts)), 0)
            move(frames.paths[:, first : k + 1], frames.paths[:, k].T)

    return draw


def _particles(
    dots_on: Axes, trails_on: Axes, frames: _Frames, words: _Words
) -> Callable[[np.ndarray, Any], None]:
    """Draws particles and trails, and returns a function that moves them."""
    if frames.paths is None:
        return lambda trails, now: None
    trails = LineCollection([], colors=TRAJECTORY_COLOUR, linewidths=1.2)
    trails_on.add_collection(trails, autolim=False)
    (dots,) = dots_on.plot([], [], label=words.paths, **_DOTS)

    def move(so_far: np.ndarray, now: Any) -> None:
        trails.set_segments(list(so_far))
        dots.set_data(*now)

    return move


def _clock(axes: Axes, frames: _Frames, words: _Words) -> Callable[[int], None]:
    axes.set_title(words.where, loc="right", fontsize="medium")
    title = axes.set_title(" ", loc="left", fontsize="medium")

    def show(k: int) -> None:
        title.set_text(f"t = {frames.ts[k]:.2f} {words.time}")

    return show


def _check(solution: Any, exact: Any) -> None:
    for name, one in (("solution", solution), ("exact", exact)):
        if one is None and name == "exact":
            return
        if not isinstance(one, Solution):
            hint = " Exported data have moments, but no density." if isinstance(one, xarray.Dataset) else ""
            raise ValueError(f"{name} must be a solution, but {type(one).__name__} was given.{hint}")
    if solution.problem.dimension != exact.problem.dimension:
        raise ValueError(
            f"solution has {solution.problem.dimension} coordinates and exact has {exact.problem.dimension}: "
            "pass two solutions of the same problem."
        )


def _coordinates(given: Any, dimension: int) -> list[int]:
    if given is None:
        return list(range(min(dimension, 2)))
    array = np.atleast_1d(on_host(given, "coordinates"))
    integers = np.issubdtype(array.dtype, np.integer) and array.ndim == 1 and array.size in (1, 2)
    if (
        not integers
        or len(set(array.tolist())) < array.size
        or not np.all((array >= 0) & (array < dimension))
    ):
        raise ValueError(
            f"coordinates must be one or two different indices from 0 to {dimension - 1}, but {given!r} was "
            "given."
        )
    return array.tolist()


def _paths(trajectories: Numbers, solution: Solution) -> np.ndarray:
    paths = np.asarray(as_real_array(trajectories, "trajectories"))
    k, d = solution.ts.size, solution.problem.dimension
    if d == 1 and paths.ndim == 2:
        paths = paths[..., None]
    if paths.ndim != 3 or paths.shape[1:] != (k, d):
        also = " or (M, K)" if d == 1 else ""
        raise ValueError(
            f"trajectories must have shape (M, K, d){also} with the {k} saved times and {d} coordinates of the "
            f"solution, but shape {np.shape(trajectories)} was given. Pass ts=solution.ts to propagate."
        )
    return paths


def _places(
    solution: Solution, drawn: list[int], lower: Numbers | None, upper: Numbers | None
) -> list[np.ndarray]:
    limits = []
    for name, given in (("lower", lower), ("upper", upper)):
        if given is None:
            limits.append([None] * len(drawn))
            continue
        array = np.asarray(as_real_array(given, name))
        if array.shape not in ((), (len(drawn),)):
            raise ValueError(
                f"{name} must be one number, or one for each of the {len(drawn)} coordinates drawn, but "
                f"{given!r} was given."
            )
        limits.append(np.broadcast_to(array, len(drawn)))
    places = []
    for i, low, high in zip(drawn, *limits, strict=True):
        start, end = reach(solution, i, low, high)
        places.append(np.linspace(start, end, _PLACES[len(drawn)]))
    return places


def _densities(
    of: Solution, centre: Solution, drawn: list[int], x: list[np.ndarray], every: int
) -> np.ndarray:
    """ρ at the times of the frames; coordinates that are not drawn take the mean of `centre`."""
    mesh = np.stack(np.meshgrid(*x), axis=-1)
    means, out = np.asarray(centre.mean()), []
    for k in range(0, centre.ts.size, every):
        points = np.broadcast_to(means[k], (*mesh.shape[:-1], means.shape[1])).copy()
        points[..., drawn] = mesh
        out.append(density_at(of, centre.ts[k], points))
    return np.stack(out)


def _largest(
    solution: Solution, drawn: list[int], x: list[np.ndarray], every: int, density: np.ndarray
) -> float:
    """The largest density where most of the particles are: the tails of a fit may grow without bound."""
    mean, std = np.asarray(solution.mean())[::every, drawn], np.asarray(solution.std())[::every, drawn]
    mesh = np.stack(np.meshgrid(*x), axis=-1)
    shape = (len(mean), *[1] * len(x), len(x))
    near = np.all(np.abs(mesh - mean.reshape(shape)) <= _NEAR * std.reshape(shape), axis=-1)
    return _top(density[near])


def _top(values: np.ndarray) -> float:
    """The largest finite value; 1 if none is positive, as in a range that the particles never reach."""
    largest = float(np.max(values, initial=0.0, where=np.isfinite(values)))
    return largest if largest > 0 else 1.0
