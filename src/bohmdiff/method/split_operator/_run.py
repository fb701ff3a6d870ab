"""Propagation of ψ over the times at which something is done."""

import functools
import itertools
import math
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Complex, Float, Int
from tqdm.auto import tqdm

from ..._check import is_concrete
from ..._errors import NotFiniteError
from ..._types import Scalar, Times
from ...problem import Problem
from ._fourier import FourierGrid
from ._observe import LARGE_GRID, Edges, Moments, Shifts, observe
from ._propagator import Propagator, advance, advance_traced, steps_between, traced_steps
from ._wave import kept_times

# Two runs are compared at the ends of that many equal parts of the span, the smaller number for large grids, and
# no run takes fewer steps.
_PARTS = 32, 16
# A saved time within this share of the span of a time of comparison takes its place.
_NEAR = 1 / 128


class Records(NamedTuple):
    """What is observed at some times."""

    moments: Moments
    edges: Edges
    missed: Float[Array, " K"] | None  # of the potential, between the points


class Plan(eqx.Module):
    """At which times something is done.

    - `times`: t0, the saved times and those at which runs are compared, each once as far as that is known.
    - `counts`: the steps before each of the times, or `None` if the times are traced.
    - `saved`, `compared`: which of the times these are; none is compared if the times are traced.
    - `kept`: at which of the times ψ is kept; t0 is always one of them.
    - `most`, `most_from_snapshot`: the largest number of steps from one time to the next, and from one kept ψ to
        the next or to t1.
    """

    times: Times
    largest_step: Scalar
    counts: Int[Array, " N"] | None
    saved: tuple[int, ...] = eqx.field(static=True)
    compared: tuple[int, ...] = eqx.field(static=True)
    kept: tuple[int, ...] = eqx.field(static=True)
    saves_start: bool = eqx.field(static=True)
    most: int = eqx.field(static=True)
    most_from_snapshot: int = eqx.field(static=True)

    def __init__(
        self,
        problem: Problem,
        ts: Times,
        grid: FourierGrid,
        steps: int,
        snapshot_memory: float,
        *,
        compared: np.ndarray | None = None,
        shortened: bool,
    ):
        """`compared` are the times of comparison, the usual ones if not given. Where steps may be `shortened`,
        some end there; otherwise the closest ends of steps take their place."""
        start, end = problem.t0.astype(ts.dtype), problem.t1.astype(ts.dtype)
        known = is_concrete((problem.t0, problem.t1, ts))
        self.saves_start = known and float(ts[0]) == float(start)
        self.times = ts if self.saves_start else jnp.concatenate([start[None], ts])
        self.largest_step = (end - start) / steps
        kept = kept_times(self.times.size, snapshot_memory, grid, ts.dtype)
        first = 0 if self.saves_start else 1
        # Rounding may add one step.
        self.counts, self.most, self.most_from_snapshot = None, steps + 1, steps + 1
        if not known:
            self.kept, self.saved, self.compared = kept, tuple(range(first, self.times.size)), ()
            return
        asked = np.asarray(self.times)
        floats, largest = asked.astype(float).tolist(), float(self.largest_step)
        counts = [steps_between(a, b, largest) for a, b in itertools.pairwise(floats)]
        if compared is None:
            compared = compared_times(problem, ts, grid)
        if not shortened:
            ends = _ends(asked, counts)
            compared = ends[np.argmin(np.abs(compared[:, None] - ends[None, :]), axis=1)]
        compared = np.unique(np.append(asked[0], compared))
        times = np.union1d(asked, compared)
        self.times = jnp.asarray(times)
        self.kept = _places(times, asked[list(kept)])
        self.saved, self.compared = _places(times, asked[first:]), _places(times, compared)
        floats = times.astype(float).tolist()
        if shortened:
            counts = [steps_between(a, b, largest) for a, b in itertools.pairwise(floats)]
        else:
            counts = np.diff(np.searchsorted(ends, times)).tolist()
        self.counts, self.most = jnp.asarray([0, *counts]), max(1, *counts, 0)
        until = [*(floats[i] for i in self.kept), max(float(end), floats[-1])]
        self.most_from_snapshot = max(steps_between(a, b, largest) for a, b in itertools.pairwise(until))

    def edges(self) -> np.ndarray:
        """The times of all steps, which are known."""
        return _ends(np.asarray(self.times, float), np.asarray(self.counts)[1:].tolist())


def _ends(times: np.ndarray, counts: list[int]) -> np.ndarray:
    """The ends of equal steps, of which there are so many between each of the times and the next."""
    pairs = zip(itertools.pairwise(times), counts, strict=True)
    parts = [np.linspace(start, end, n, endpoint=False, dtype=times.dtype) for (start, end), n in pairs]
    return np.concatenate([*parts, times[-1:]])


def parts(grid: FourierGrid) -> int:
    """At the ends of how many parts of the span two runs are compared."""
    return _PARTS[grid.size > LARGE_GRID]


def compared_times(problem: Problem, ts: Times, grid: FourierGrid) -> np.ndarray:
    """When two runs are compared: saved times where they are dense, and own ones elsewhere."""
    saved, start, end = np.asarray(ts), float(problem.t0), float(problem.t1)
    own = np.linspace(start, end, parts(grid) + 1).astype(saved.dtype)
    nearest = saved[np.argmin(np.abs(own[:, None] - saved[None, :]), axis=1)]
    chosen = np.where(np.abs(nearest - own) <= _NEAR * (end - start), nearest, own)
    # No later than the last saved time.
    return np.unique(chosen[chosen <= saved[-1]])


def _places(times: np.ndarray, some: np.ndarray) -> tuple[int, ...]:
    return tuple(np.searchsorted(times, some).tolist())


def propagate(
    propagator: Propagator,
    psi: Complex[Array, "..."],
    plan: Plan,
    shifts: Shifts | None,
    progress: bool,
) -> tuple[Records, Complex[Array, "S ..."]]:
    """What is observed at all times, and ψ at those that are kept, where everything is known.

    With `shifts`, the potential between the points is looked at too, at some of the times.
    """
    times, counts = np.asarray(plan.times, float).tolist(), np.asarray(plan.counts).tolist()
    snapshots = jnp.zeros((len(plan.kept), *psi.shape), psi.dtype)
    psi = jnp.copy(psi)  # whose memory is reused
    records, missed, operators, now = [], [], None, times[0]
    slots = {j: i for i, j in enumerate(plan.kept)}
    looked_at = () if shifts is None else plan.compared[:: shifts.every]
    with tqdm(total=len(plan.saved), disable=not progress, desc="SplitOperator", unit="time") as bar:
        for i, t in enumerate(times):
            if t > now:
                psi, operators = advance(propagator, psi, now, t, counts[i], operators)
                now = t
            at = jnp.asarray(t, plan.times.dtype)
            record = observe(propagator, psi, at)
            _require_finite(record[0], t)
            records.append(record)
            if shifts is not None and i in looked_at:
                missed.append(shifts.missed(propagator, psi, at, record[0]))
            if i in slots:
                snapshots = _put(snapshots, psi, jnp.asarray(slots[i]))
            bar.update(i in plan.saved)
    moments, edges = jax.tree.map(lambda *leaves: jnp.stack(leaves), *records)
    return Records(moments, edges, jnp.stack(missed) if missed else None), snapshots


@eqx.filter_jit
def propagate_traced(
    propagator: Propagator, psi: Complex[Array, "..."], plan: Plan
) -> tuple[Records, Complex[Array, "S ..."]]:
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
    moments, edges = records
    return Records(moments, edges, None), carry[1][:kept]


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
