"""The Schrödinger equation on a grid, by the split-operator method: the exact answer in few dimensions."""

import functools
import itertools
import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Complex, Int
from tqdm.auto import tqdm

from ..._check import as_float, as_positive_integer, check_output, is_concrete, on_host
from ..._errors import NotFiniteError
from ..._types import Key, Numbers, Scalar, Times
from ...hamiltonian import warn_of_kinks
from ...problem import Problem
from ...solution import Diagnostics
from ..method import AbstractMethod
from ._fourier import FourierGrid
from ._observe import Edges, Moments, diagnostics, drive_figure, observe
from ._propagator import ORDERS, Propagator, advance, advance_traced, steps_between, traced_steps
from ._start import Start, check_memory
from ._wave import Stepping, kept_times
from .solution import GridSolution

_LARGEST_DIMENSION = 4
_FEWEST_POINTS = 4


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
    exact = bd.solve(
        problem, bd.SplitOperator(points=44, lower=-5.5, upper=7.5)
    )
    exact.std()[-1], exact.diagnostics
    ```

    A step is a product of kicks $e^{-ib_jV\,dt/\hbar}$ at the points and drifts $e^{-ia_jT\,dt/\hbar}$ in
    momentum space, both exact and unitary. For smooth V and a box that holds ψ the error falls faster
    than any power of the spacing, and as `steps ** -order`. The box must hold the density, and the
    largest wavenumber $\pi/\text{spacing}$ the momenta: figures in the `diagnostics` fail where the outermost
    points of either have a probability of more than 1e-6.

    The fourth order is that of Chin and Chen: two drifts a step, and a kick in the middle whose
    potential is $V - \tfrac{dt^2}{48}\sum_i(\partial_iV)^2/m_i$. Yoshida's composition takes
    three drifts with a far larger error, and schemes without the force (Blanes and Moan) six, which is
    too many between saved times that are close. Use `order=2` for a potential with kinks.

    `solve` with this method can be transformed by `jax.jit`, `jax.vmap`, `jax.grad` and `jax.jvp`: parameters
    of the potential, masses, ħ, the initial state and all times may be traced. Bad values, which raise
    otherwise, then make the solution NaN, and its `diagnostics` tell which. The gradient keeps one ψ for each
    saved time, and about $2\sqrt{n}$ for the n steps between two of them; it computes the others again. Pass
    few `ts` on large grids.

    **Arguments:**

    - `points`: grid points along each coordinate, at least 4: an integer, or one for each, `(d,)`.
        Products of small primes are fastest.
    - `lower`, `upper`: the box, length; numbers, or one for each coordinate, `(d,)`. `upper` is the
        periodic image of `lower`.
    - `steps`: the nominal step is `(t1 - t0) / steps`. Saved times are hit exactly: between each and the
        next (and between `t0` and the first) lie the least number of equal steps that are no longer.
    - `order`: 4, or 2 for the splitting of Strang.
    - `memory`: how many bytes may be used; what is free now, if not given.
    - `snapshot_memory`: how many bytes the solution may keep in wave functions, at saved times. At other times ψ
        is propagated from the one before.

    **Units:** `lower` and `upper` in lengths.

    **Raises:** `ValueError` for options of a wrong shape or out of range, and before any long work if
    the problem has more than four coordinates, the grid does not fit into the memory, the initial state
    does not fit into the box or its momenta on the grid, or the potential is not finite on it;
    [`NotFiniteError`][bohmdiff.NotFiniteError] if the potential or ψ is not finite later.

    ??? cite "References"

        M. D. Feit, J. A. Fleck, A. Steiger, J. Comput. Phys. 47, 412 (1982).
        S. A. Chin, C. R. Chen, J. Chem. Phys. 114, 7338 (2001); 117, 1409 (2002).
    """

    points: int | tuple[int, ...] = eqx.field(static=True)
    lower: float | tuple[float, ...] = eqx.field(static=True)
    upper: float | tuple[float, ...] = eqx.field(static=True)
    steps: int = eqx.field(static=True)
    order: int = eqx.field(static=True)
    memory: float | int | None = eqx.field(static=True)
    snapshot_memory: float | int = eqx.field(static=True)

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
        grid, hamiltonian = self._grid(problem.dimension), problem.hamiltonian
        point = (problem.t0, jnp.zeros(problem.dimension, problem.dtype))
        check_output(hamiltonian.potential, point, (), "potential")
        plan = _Plan(self, problem, ts, grid)
        check_memory(grid, self.order, len(plan.kept), problem.dtype, self.memory)
        propagator = Propagator(grid, hamiltonian, self.order)
        start = Start(problem, propagator)
        # Functions may have traced values that they close over, so the results are what tells.
        if is_concrete((problem, ts, start)):
            start.require_sound(problem, grid)
            records, snapshots = _propagate(propagator, start.psi, plan, progress)
        else:
            psi = jnp.where(start.sound(problem.dtype), start.psi, jnp.nan)
            records, snapshots = _propagate_traced(propagator, psi, plan)
        moments, edges = records
        figures = diagnostics(
            grid,
            moments,
            edges,
            plan.times,
            norm=start.norm,
            too_fast=start.too_fast,
            conserved=propagator.hamiltonian is None,
        )
        at_start = jax.tree.map(lambda leaf: leaf[0], moments)
        if self.order == 4:  # whose correction is the squared force
            width = jnp.sqrt(jnp.diag(at_start.covariance))
            warn_of_kinks(hamiltonian, problem.t0, at_start.mean, width, order=1)
        # The force of a drive at the packet, where the numbers of steps are known.
        driven = propagator.hamiltonian is not None and is_concrete(moments)
        if driven and plan.counts is not None and np.any(plan.counts):
            steps, places = plan.edges(), np.repeat(np.arange(plan.times.size - 1), plan.counts[1:])
            more = drive_figure(hamiltonian, self.order, steps, moments.mean[places], at_start)
            figures = Diagnostics(figures.figures | more)
        if not plan.saves_start:
            moments = jax.tree.map(lambda leaf: leaf[1:], moments)
        return GridSolution(
            problem,
            self,
            ts,
            figures,
            grid,
            moments,
            at_start,
            snapshots,
            plan.times[jnp.asarray(plan.kept)],
            Stepping(
                self.order, self.steps, self.snapshot_memory, plan.most_from_snapshot, plan.saves_start
            ),
        )

    def _grid(self, d: int) -> FourierGrid:
        if d > _LARGEST_DIMENSION:
            raise ValueError(
                f"SplitOperator solves problems with up to {_LARGEST_DIMENSION} coordinates, but this one has "
                f"{d}: the grid grows exponentially. Use SequentialScoreMatching, which follows particles."
            )
        options = {}
        for name in ("points", "lower", "upper"):
            value = getattr(self, name)
            options[name] = value if isinstance(value, tuple) else (value,) * d
            if len(options[name]) != d:
                raise ValueError(
                    f"{name} must be a number or have shape ({d},), since the problem has {d} coordinates, but "
                    f"{value!r} was given."
                )
        return FourierGrid(options["points"], options["lower"], options["upper"])


class _Plan(eqx.Module):
    """At which times something is done.

    - `times`: t0 and the saved times, each once as far as that is known.
    - `counts`: the steps before each of the times, or `None` if the times are traced.
    - `kept`: at which of the times ψ is kept; t0 is always one of them.
    - `most`, `most_from_snapshot`: the largest number of steps from one time to the next, and from one kept ψ to
        the next or to t1.
    """

    times: Times
    largest_step: Scalar
    counts: Int[Array, " N"] | None
    kept: tuple[int, ...] = eqx.field(static=True)
    saves_start: bool = eqx.field(static=True)
    most: int = eqx.field(static=True)
    most_from_snapshot: int = eqx.field(static=True)

    def __init__(self, method: SplitOperator, problem: Problem, ts: Times, grid: FourierGrid):
        start, end = problem.t0.astype(ts.dtype), problem.t1.astype(ts.dtype)
        known = is_concrete((problem.t0, problem.t1, ts))
        self.saves_start = known and float(ts[0]) == float(start)
        self.times = ts if self.saves_start else jnp.concatenate([start[None], ts])
        self.largest_step = (end - start) / method.steps
        self.kept = kept_times(self.times.size, method.snapshot_memory, grid, ts.dtype)
        # Rounding may add one step.
        self.counts, self.most, self.most_from_snapshot = None, method.steps + 1, method.steps + 1
        if known:
            times, largest = np.asarray(self.times, float).tolist(), float(self.largest_step)
            pairs = itertools.pairwise(times)
            counts = [0, *(steps_between(a, b, largest)[0] if b > a else 0 for a, b in pairs)]
            ends = [*(times[i] for i in self.kept), max(float(end), times[-1])]
            self.counts, self.most = jnp.asarray(counts), max(1, *counts)
            self.most_from_snapshot = max(
                steps_between(a, b, largest)[0] for a, b in itertools.pairwise(ends)
            )

    def edges(self) -> np.ndarray:
        """The times of all steps, which are known."""
        times, counts = np.asarray(self.times, float), np.asarray(self.counts)
        pairs = zip(itertools.pairwise(times), counts[1:], strict=True)
        parts = [np.linspace(start, end, n, endpoint=False) for (start, end), n in pairs]
        return np.concatenate([*parts, times[-1:]])


def _propagate(
    propagator: Propagator, psi: Complex[Array, "..."], plan: _Plan, progress: bool
) -> tuple[tuple[Moments, Edges], Complex[Array, "S ..."]]:
    """What is observed at all times, and ψ at those that are kept, where everything is known."""
    times, largest = np.asarray(plan.times, float).tolist(), float(plan.largest_step)
    snapshots = jnp.zeros((len(plan.kept), *psi.shape), psi.dtype)
    records, operators, now, slots = [], None, times[0], {j: i for i, j in enumerate(plan.kept)}
    unsaved = 0 if plan.saves_start else 1
    with tqdm(total=len(times) - unsaved, disable=not progress, desc="SplitOperator", unit="time") as bar:
        for i, t in enumerate(times):
            if t > now:
                psi, operators = advance(propagator, psi, now, t, largest, operators)
                now = t
            record = observe(propagator, psi, jnp.asarray(t, plan.times.dtype))
            _require_finite(record[0], t)
            records.append(record)
            if i in slots:
                snapshots = _put(snapshots, psi, jnp.asarray(slots[i]))
            bar.update(i >= unsaved)
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *records), snapshots


@eqx.filter_jit
def _propagate_traced(
    propagator: Propagator, psi: Complex[Array, "..."], plan: _Plan
) -> tuple[tuple[Moments, Edges], Complex[Array, "S ..."]]:
    """The same for all transformations of JAX."""
    times, kept, counts = plan.times, len(plan.kept), plan.counts
    starts = jnp.concatenate([times[:1], times[:-1]])
    if counts is None:
        counts = traced_steps(starts, times, plan.largest_step, plan.most).at[0].set(0)
    # ψ that is not kept goes to one more place, which is dropped.
    slots = np.full(times.size, kept)
    slots[list(plan.kept)] = np.arange(kept)

    @functools.partial(jax.checkpoint, prevent_cse=False)
    def segment(psi, start, t, steps):
        psi = advance_traced(propagator, psi, start, t, steps, plan.most)
        return psi, observe(propagator, psi, t)

    def until(carry, here):
        psi, snapshots = carry
        start, t, steps, slot = here
        psi, record = segment(psi, start, t, steps)
        return (psi, jax.lax.dynamic_update_index_in_dim(snapshots, psi, slot, 0)), record

    nothing = jnp.zeros((kept + 1, *psi.shape), psi.dtype)
    carry, records = jax.lax.scan(until, (psi, nothing), (starts, times, counts, jnp.asarray(slots)))
    return records, carry[1][:kept]


@functools.partial(jax.jit, donate_argnums=0)
def _put(snapshots: Array, psi: Array, slot: Array) -> Array:
    return jax.lax.dynamic_update_index_in_dim(snapshots, psi, slot, 0)


def _require_finite(moments: Moments, t: float) -> None:
    # Energy and norm cannot both be finite if any ψ or V that matters is not.
    norm, energy = float(moments.norm), float(moments.energy)
    if not (math.isfinite(norm) and math.isfinite(energy)):
        raise NotFiniteError(
            f"ψ or the potential is not finite at t = {t:g}: energy {energy}, norm {norm}. The potential must be "
            "finite at every point of the box at all times."
        )
