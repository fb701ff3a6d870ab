"""The Schrödinger equation on a grid, by the split-operator method: the exact answer in few dimensions."""

import math
import os
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Complex, Float
from tqdm.auto import tqdm

from ..._check import as_float, as_positive_integer, check_output, is_concrete, on_host, warn
from ..._types import Key, Numbers, Scalar, Times
from ...problem import Problem
from ..method import AbstractMethod
from ._fourier import FourierGrid
from ._propagator import ORDERS, Propagator
from .solution import GridSolution, Moments

_LARGEST_DIMENSION = 4
_FEWEST_POINTS = 4
_NORM_TOLERANCE = 1e-6
_EDGE_PROBABILITY = 1e-6


def _one_or_each(value: Any, name: str, kind: type) -> Any:
    """A number, or a tuple with one for each coordinate."""
    array = on_host(value, name)
    integer = np.issubdtype(array.dtype, np.integer)
    right = integer if kind is int else integer or np.issubdtype(array.dtype, np.floating)
    if not right or array.ndim > 1 or array.size == 0 or not np.all(np.isfinite(array)):
        what = "an integer" if kind is int else "a finite number"
        raise ValueError(
            f"{name} must be {what}, or one for each coordinate, shape (d,), but {value!r} was given."
        )
    return kind(array) if array.ndim == 0 else tuple(kind(entry) for entry in array)


class SplitOperator(AbstractMethod):
    r"""Propagates ψ itself on a periodic Fourier grid, in up to four dimensions.

    ```python
    exact = bd.solve(problem, bd.SplitOperator(points=44, lower=-5.5, upper=7.5))
    exact.std()[-1], exact.norm_drift, exact.energy_drift
    ```

    A step is a product of kicks $e^{-ib_jV\,dt/\hbar}$ at the points and drifts $e^{-ia_jT\,dt/\hbar}$ in
    momentum space, both exact and unitary. For smooth V and a box that holds ψ the error falls faster
    than any power of the spacing, and as `steps ** -order`. The box must hold the density, and the
    largest wavenumber $\pi/\text{spacing}$ the momenta: a warning says so where more than 1e-6 of the
    probability is found in the outermost points of either.

    The fourth order is that of Chin and Chen: two drifts a step, and a kick in the middle whose
    potential is $V - \tfrac{dt^2}{48}\sum_i(\partial_iV)^2/m_i$. Yoshida's composition takes
    three drifts with a far larger error, and schemes without the force (Blanes and Moan) six, which is
    too many between saved times that are close. Use `order=2` for a potential with kinks.

    **Arguments:**

    - `points`: grid points along each coordinate, at least 4: an integer, or one for each, `(d,)`.
        Products of small primes are fastest.
    - `lower`, `upper`: the box, length; numbers, or one for each coordinate, `(d,)`. `upper` is the
        periodic image of `lower`.
    - `steps`: the nominal step is `(t1 - t0) / steps`. Saved times are hit exactly: between each and the
        next (and between `t0` and the first) lie the least number of equal steps that are no longer.
    - `order`: 4, or 2 for the splitting of Strang.
    - `memory`: how many bytes may be used; what is free now, if not given.
    - `snapshot_memory`: how many bytes the solution may keep in wave functions.

    **Units:** `lower` and `upper` in lengths.

    **Raises:** `ValueError` for options of a wrong shape or out of range, and before any long work if
    the problem has more than four coordinates, the grid does not fit into the memory, the initial state
    does not fit into the box or its momenta on the grid, or the potential is not finite on it.

    ??? cite "References"

        M. D. Feit, J. A. Fleck, A. Steiger, J. Comput. Phys. 47, 412 (1982).
        S. A. Chin, C. R. Chen, J. Chem. Phys. 114, 7338 (2001); 117, 1409 (2002).
    """

    points: int | tuple[int, ...]
    lower: float | tuple[float, ...]
    upper: float | tuple[float, ...]
    steps: int
    order: int
    memory: float | int | None
    snapshot_memory: float | int

    def __init__(
        self,
        points: Numbers,
        lower: Numbers,
        upper: Numbers,
        *,
        steps: int = 60,
        order: int = 4,
        memory: float | int | None = None,
        snapshot_memory: float | int = 2**30,
    ):
        self.points = _one_or_each(points, "points", int)
        self.lower = _one_or_each(lower, "lower", float)
        self.upper = _one_or_each(upper, "upper", float)
        if np.any(np.asarray(self.points) < _FEWEST_POINTS):
            raise ValueError(f"points must be at least {_FEWEST_POINTS}, but {points!r} was given.")
        lengths = {np.size(v) for v in (self.points, self.lower, self.upper) if isinstance(v, tuple)}
        if len(lengths) > 1:
            raise ValueError(
                "points, lower and upper must be numbers or have the same shape (d,), but points = "
                f"{points!r}, lower = {lower!r} and upper = {upper!r} were given."
            )
        if np.any(np.asarray(self.upper) <= np.asarray(self.lower)):
            raise ValueError(
                f"upper must be larger than lower, but lower = {lower!r} and upper = {upper!r} were given."
            )
        self.steps = as_positive_integer(steps, "steps", "Pass how many steps [t0, t1] is divided into.")
        if isinstance(order, bool) or not isinstance(order, int) or order not in ORDERS:
            raise ValueError(f"order must be one of {ORDERS}, but {order!r} was given.")
        memory = None if memory is None else as_float(memory, "memory")
        snapshot_memory = as_float(snapshot_memory, "snapshot_memory")
        if memory is not None and not memory > 0:
            raise ValueError(f"memory must be a positive number of bytes, but {memory!r} was given.")
        if not snapshot_memory >= 0:
            raise ValueError(
                f"snapshot_memory must be a number of bytes, but {snapshot_memory!r} was given."
            )
        self.order, self.memory, self.snapshot_memory = int(order), memory, snapshot_memory

    def run(self, problem: Problem, ts: Times, *, key: Key | None, progress: bool) -> GridSolution:
        """Solves `problem`; see [`solve`][bohmdiff.solve]. Draws nothing, so `key` is not used."""
        del key
        if not is_concrete((problem, ts)):
            raise ValueError(
                "SplitOperator cannot be traced by jit, grad or vmap. Call solve outside of them."
            )
        grid = self._grid(problem.dimension)
        times = np.asarray(ts, float).tolist()
        start, end = float(problem.t0), float(problem.t1)
        candidates = times if times[0] == start else [start, *times]
        kept = self._kept(grid, candidates, problem.dtype)
        self._check_memory(grid, len(kept), problem.dtype)
        psi = _initial(problem, grid)
        propagator = self._propagator(problem, grid, (end - start) / self.steps)

        snapshots, records, operators, now = [], [], None, start
        watch = _Watch(grid)
        if candidates[0] < times[0]:
            snapshots.append(jnp.copy(psi))
        for t in tqdm(times, disable=not progress, desc="SplitOperator", unit="time"):
            if t > now:
                psi, operators = propagator.advance(psi, now, t, operators)
                now = t
            record, edges = _observe(propagator, psi, jnp.asarray(t, problem.dtype))
            watch(t, record, edges)
            records.append(record)
            if t in kept:
                snapshots.append(jnp.copy(psi))
        moments: Moments = jax.tree.map(lambda *leaves: jnp.stack(leaves), *records)
        return GridSolution(problem, self, ts, grid, moments, tuple(snapshots), kept, end, propagator)

    def _grid(self, d: int) -> FourierGrid:
        if d > _LARGEST_DIMENSION:
            raise ValueError(
                f"SplitOperator solves problems with up to {_LARGEST_DIMENSION} coordinates, but this "
                "one has "
                f"{d}: the grid grows exponentially. Use SequentialScoreMatching, which follows particles."
            )
        options = {}
        for name in ("points", "lower", "upper"):
            value = getattr(self, name)
            options[name] = value if isinstance(value, tuple) else (value,) * d
            if len(options[name]) != d:
                raise ValueError(
                    f"{name} must be a number or have shape ({d},), since the problem has {d} coordinates, "
                    f"but {value!r} was given."
                )
        return FourierGrid(options["points"], options["lower"], options["upper"])

    def _propagator(self, problem: Problem, grid: FourierGrid, largest_step: float) -> Propagator:
        hamiltonian, d = problem.hamiltonian, problem.dimension
        point = (problem.t0, jnp.zeros(d, problem.dtype))
        check_output(hamiltonian.potential, point, (), "potential")
        propagator = Propagator(grid, hamiltonian, self.order, largest_step)
        _require_finite(grid, propagator.potential_at(problem.t0), "The potential is", "")
        if self.order == 4:
            forces = propagator.correction_at(problem.t0)
            _require_finite(
                grid, forces, "The gradient of the potential is", " Or use order=2, without it."
            )
        return propagator

    def _kept(self, grid: FourierGrid, times: list[float], dtype) -> tuple[float, ...]:
        """As many of the times, evenly thinned but with the first, as the memory holds."""
        bytes_each = 2 * jnp.dtype(dtype).itemsize * grid.size
        number = int(min(max(self.snapshot_memory // bytes_each, 1), len(times)))
        indices = np.unique(np.round(np.linspace(0, len(times) - 1, number)).astype(int))
        return tuple(times[i] for i in indices)

    def _check_memory(self, grid: FourierGrid, snapshots: int, dtype) -> None:
        real = jnp.dtype(dtype).itemsize
        # ψ, three copies while it is transformed, and the phases of the kicks; V and its correction.
        arrays = 2 * (4 + (2 if self.order == 2 else 3) + snapshots) + (self.order // 2)
        needed = arrays * real * grid.size
        available = _available_memory() if self.memory is None else self.memory
        if needed > available:
            raise ValueError(
                f"A grid of {' x '.join(map(str, grid.sizes))} = {grid.size} points needs about "
                f"{needed:.3g} "
                f"bytes, but {available:.3g} are available. Use fewer points, single precision or a "
                "smaller "
                "snapshot_memory, or set memory= if more may be used."
            )


class _Watch:
    """Warns, once each, when ψ reaches the edge of the box or of momentum space."""

    def __init__(self, grid: FourierGrid):
        self.grid, self.warned = grid, set()

    def __call__(self, t: float, record: Moments, edges: dict[str, Array]) -> None:
        # Energy and norm cannot both be finite if any ψ or V that matters is not.
        if not (np.isfinite(record.norm) and np.isfinite(record.energy)):
            raise ValueError(
                f"ψ or the potential is not finite at t = {t:g}: energy {float(record.energy)}, norm "
                f"{float(record.norm)}. The potential must be finite at every point of the box at all "
                "times."
            )
        for where, probabilities in edges.items():
            i = int(np.argmax(probabilities))
            if where in self.warned or not probabilities[i] > _EDGE_PROBABILITY:
                continue
            self.warned.add(where)
            grid, number = self.grid, float(probabilities[i])
            if where == "box":
                text = (
                    f"The density reaches the edge of the box: at t = {t:g} the outermost points of "
                    "coordinate "
                    f"{i}, next to {grid.lower[i]:g} and {grid.upper[i]:g}, hold a probability of "
                    f"{number:.3g}, "
                    f"more than {_EDGE_PROBABILITY:g}. It comes back in on the other side. Widen lower "
                    "and upper."
                )
            else:
                text = (
                    f"The momentum reaches the edge of the grid: at t = {t:g} a probability of "
                    f"{number:.3g}, more "
                    f"than {_EDGE_PROBABILITY:g}, lies at the largest wavenumbers of coordinate {i}, "
                    "next to "
                    f"{np.pi / grid.spacing[i]:.4g}. Use more points."
                )
            warn(text)


def _initial(problem: Problem, grid: FourierGrid) -> Complex[Array, "..."]:
    """ψ0 on the grid, if the grid can hold it."""
    dtype = problem.dtype
    density, psi, too_fast = _initial_on_grid(problem, grid)
    _require_finite(grid, density, "The density of the initial state is", "")
    norm = float(jnp.sum(density)) * grid.cell
    tolerance = max(_NORM_TOLERANCE, 100 * float(jnp.finfo(dtype).eps))
    if not abs(norm - 1) <= tolerance:
        raise ValueError(
            f"The norm of the initial state on the grid is {norm:.9g}, not 1 to {tolerance:.0e}: it does "
            "not fit "
            "into the box, or the points are too far apart for it. Widen lower and upper, or use more "
            "points."
        )
    # Beyond the largest wavenumber the momentum comes back as another one, unseen by the norm.
    lost = float(jnp.sum(too_fast)) * grid.cell
    if lost > _EDGE_PROBABILITY:
        largest = [float(problem.hamiltonian.hbar) * np.pi / h for h in grid.spacing]
        raise ValueError(
            f"A probability of {lost:.3g} of the initial state has a momentum beyond the largest of the "
            "grid, "
            f"ħπ / spacing = {largest}. Use more points."
        )
    return psi


@eqx.filter_jit
def _initial_on_grid(problem: Problem, grid: FourierGrid):
    """ρ0, ψ0, and ρ0 where the momentum ∇S0 is beyond the largest of the grid, else zero."""
    initial, hbar, dtype = problem.initial, problem.hamiltonian.hbar, problem.dtype
    largest = hbar * jnp.asarray([np.pi / h for h in grid.spacing], dtype)

    def at(x):
        log_density, phase = initial.log_density(x), initial.phase(x) / hbar
        amplitude = jnp.exp(0.5 * log_density)
        density = jnp.exp(log_density)
        too_fast = jnp.any(jnp.abs(jax.grad(initial.phase)(x)) > largest)
        psi = jax.lax.complex(amplitude * jnp.cos(phase), amplitude * jnp.sin(phase))
        return density, psi, jnp.where(too_fast, density, 0)

    return grid.map(at, dtype)


def _require_finite(grid: FourierGrid, values: Float[Array, "..."], what: str, hint: str) -> None:
    wrong = int(jnp.argmax(~jnp.isfinite(values)))
    value = float(values.ravel()[wrong])
    if math.isfinite(value):
        return
    where = [float(grid.axis(i)[j]) for i, j in enumerate(np.unravel_index(wrong, grid.sizes))]
    raise ValueError(
        f"{what} {value} at x = {where}, a point of the grid, but must be finite there. Choose another "
        "box or "
        f"a large finite value.{hint}"
    )


@eqx.filter_jit
def _observe(
    propagator: Propagator, psi: Complex[Array, "..."], t: Scalar
) -> tuple[Moments, dict[str, Array]]:
    """Moments at one time, and the probability at the edges of each coordinate and momentum."""
    grid, hamiltonian = propagator.grid, propagator.hamiltonian
    d, dtype = grid.dimension, t.dtype
    density = (psi.real**2 + psi.imag**2) * grid.cell
    norm = jnp.sum(density)
    amplitudes = grid.to_momentum(psi)
    spectrum = (amplitudes.real**2 + amplitudes.imag**2) * grid.cell
    potential = jnp.sum(density * propagator.potential_at(t))

    masses = hamiltonian.masses(d)
    means, stds, box, momentum, kinetic = [], [], [], [], jnp.zeros((), dtype)
    for i, n in enumerate(grid.sizes):
        others = tuple(j for j in range(d) if j != i)
        x, k = jnp.asarray(grid.axis(i), dtype), jnp.asarray(grid.wavenumbers(i), dtype)
        along_x, along_k = jnp.sum(density, others), jnp.sum(spectrum, others)
        mean = jnp.sum(along_x * x) / norm
        means.append(mean)
        stds.append(jnp.sqrt(jnp.sum(along_x * (x - mean) ** 2) / norm))
        kinetic += jnp.sum(along_k * k**2) * hamiltonian.hbar**2 / (2 * masses[i])
        box.append(along_x[0] + along_x[-1])
        momentum.append(jnp.sum(along_k[(n - 1) // 2 : n // 2 + 2]))
    energy = (kinetic + potential) / norm
    return (
        Moments(norm, jnp.stack(means), jnp.stack(stds), energy),
        {"box": jnp.stack(box), "momentum": jnp.stack(momentum)},
    )


def _available_memory() -> float:
    """Bytes that can be had on the device where arrays are made, or infinity if nobody says."""
    statistics = jax.local_devices()[0].memory_stats()
    if statistics and "bytes_limit" in statistics:
        return float(statistics["bytes_limit"] - statistics.get("bytes_in_use", 0))
    try:
        with open("/proc/meminfo") as lines:
            for line in lines:
                if line.startswith("MemAvailable:"):
                    return 1024 * float(line.split()[1])
        return float(os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    except (OSError, ValueError, AttributeError):
        return math.inf
