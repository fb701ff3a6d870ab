"""The Schrödinger equation on a grid, by the split-operator method: the exact answer in few dimensions."""

from dataclasses import replace
from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Complex

from ..._check import as_float, check_output, is_concrete
from ..._types import Key, Numbers, Times
from ...hamiltonian import warn_of_kinks
from ...problem import Problem
from ...solution import Diagnostics, Figure
from .._steps import DEFAULT_TOLERANCE, FEWER, as_steps, as_tolerance, require_steps, run_with_steps
from .._steps import Moments as Compared
from ..method import AbstractMethod
from ._choice import (
    FIRST_STEPS,
    MOST_STEPS,
    Choice,
    enlarged,
    first_choice,
    first_steps,
    require_points,
    rounded,
)
from ._each import each, one_or_each
from ._fourier import FourierGrid
from ._observe import Shifts, between_points_figure, diagnostics, drive_figure
from ._propagator import ORDERS, Propagator
from ._run import Plan, Records, compared_times, parts, propagate, propagate_traced
from ._start import Start, check_memory, norm_tolerance
from ._wave import Stepping, kept_times
from .absorber import ComplexAbsorber
from .solution import GridSolution

_LARGEST_DIMENSION = 4
_FEWEST_POINTS = 4
# What a chosen grid may leave at its edges and, as a share of the limit, between its points. More at the edges
# makes it grow faster.
_EDGE = 1e-7
_BETWEEN = 0.2
_GROWTH = ((1e-3, 1.6), (1e-5, 1.4), (_EDGE, 1.2))
_MOST_ENLARGEMENTS = 20
# No number of points resolves a jump: it is left to the figure.
_MOST_ALONG_AN_AXIS = 2048


class SplitOperator(AbstractMethod):
    r"""Propagates ψ itself on a periodic Fourier grid, in up to four dimensions.

    ```python
    exact = bd.solve(
        problem, bd.SplitOperator(points=44, lower=-5.5, upper=7.5)
    )
    exact.std()[-1], exact.diagnostics

    exact = bd.solve(problem, bd.SplitOperator())
    exact.method.points, exact.method.steps
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
        Products of small primes are fastest. If not given, they are chosen: classical particles give a first
        guess, and ψ, propagated on it, tells what to enlarge.
    - `lower`, `upper`: the box, length; numbers, or one for each coordinate, `(d,)`. `upper` is the
        periodic image of `lower`. If not given, they are chosen with the points.
    - `steps`: the nominal step is `(t1 - t0) / steps`. Saved times are hit exactly: between each and the
        next (and between `t0` and the first) lie the least number of equal steps that are no longer. If not
        given, the first of 64 or 128 and its doubles that resolves a drive and agrees with fewer steps.
    - `tolerance`: the largest error of any mean or standard deviation due to the steps, in units of the latter.
    - `order`: 4, or 2 for the splitting of Strang.
    - `memory`: how many bytes may be used; what is free now, if not given.
    - `snapshot_memory`: how many bytes the solution may keep in wave functions, at saved times. At other times ψ
        is propagated from the one before.
    - `absorber`: a [`ComplexAbsorber`][bohmdiff.ComplexAbsorber] that takes away what reaches the edges of
        the box, for scattering. It needs `lower` and `upper`. `solution.norm()` tells how much is left.

    **Units:** `lower` and `upper` in lengths.

    **Raises:** `ValueError` for options of a wrong shape or out of range, and before any long work if
    the problem has more than four coordinates, the grid does not fit into the memory, the initial state
    does not fit into the box or its momenta on the grid, or the potential is not finite on it;
    [`NotFiniteError`][bohmdiff.NotFiniteError] if the potential or ψ is not finite later.

    ??? cite "References"

        M. D. Feit, J. A. Fleck, A. Steiger, J. Comput. Phys. 47, 412 (1982).
        S. A. Chin, C. R. Chen, J. Chem. Phys. 114, 7338 (2001); 117, 1409 (2002).
    """

    points: int | tuple[int, ...] | None = eqx.field(static=True)
    lower: float | tuple[float, ...] | None = eqx.field(static=True)
    upper: float | tuple[float, ...] | None = eqx.field(static=True)
    steps: int | None = eqx.field(static=True)
    tolerance: float = eqx.field(static=True)
    order: int = eqx.field(static=True)
    memory: float | int | None = eqx.field(static=True)
    snapshot_memory: float | int = eqx.field(static=True)
    absorber: ComplexAbsorber | None

    allows_nodes: ClassVar[bool] = True

    def __init__(
        self,
        points: Numbers | None = None,
        lower: Numbers | None = None,
        upper: Numbers | None = None,
        *,
        steps: int | None = None,
        tolerance: float = DEFAULT_TOLERANCE,
        order: int = 4,
        memory: float | int | None = None,
        snapshot_memory: float | int = 2**30,
        absorber: ComplexAbsorber | None = None,
    ):
        self.points = one_or_each(points, "points", int)
        self.lower = one_or_each(lower, "lower", float)
        self.upper = one_or_each(upper, "upper", float)
        if points is not None and np.any(np.asarray(self.points) < _FEWEST_POINTS):
            raise ValueError(f"points must be at least {_FEWEST_POINTS}, but {points!r} was given.")
        lengths = {np.size(v) for v in (self.points, self.lower, self.upper) if isinstance(v, tuple)}
        if len(lengths) > 1:
            raise ValueError(
                "points, lower and upper must be numbers or have the same shape (d,), but points = "
                f"{points!r}, lower = {lower!r} and upper = {upper!r} were given."
            )
        if (self.lower is None) != (self.upper is None):
            raise ValueError(
                "lower and upper must both be given or both be chosen, but "
                f"lower = {lower!r} and upper = {upper!r} were given."
            )
        if self.upper is not None and np.any(np.asarray(self.upper) <= np.asarray(self.lower)):
            raise ValueError(
                f"upper must be larger than lower, but lower = {lower!r} and upper = {upper!r} were given."
            )
        self.steps, self.tolerance = as_steps(steps), as_tolerance(tolerance)
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
        if absorber is not None and not isinstance(absorber, ComplexAbsorber):
            raise ValueError(
                "absorber must be a ComplexAbsorber, such as bd.ComplexAbsorber(width=8.0), or None, but "
                f"{absorber!r} was given."
            )
        if absorber is not None and self.lower is None:
            raise ValueError(
                "An absorber needs lower and upper, since its layers lie at the edges of the box. Pass them."
            )
        self.absorber = absorber

    def run(self, problem: Problem, ts: Times, *, key: Key | None, progress: bool) -> GridSolution:
        """Solves `problem`; see [`solve`][bohmdiff.solve]. Draws nothing, so `key` is not used."""
        del key
        if problem.dimension > _LARGEST_DIMENSION:
            raise ValueError(
                f"SplitOperator solves problems with up to {_LARGEST_DIMENSION} coordinates, but this one has "
                f"{problem.dimension}: the grid grows exponentially. Use SequentialScoreMatching, which follows "
                "particles."
            )
        point = (problem.t0, jnp.zeros(problem.dimension, problem.dtype))
        check_output(problem.hamiltonian.potential, point, (), "potential")
        first = FIRST_STEPS if self.steps else first_steps(problem, self.order)
        method = self
        if self.points is None or self.lower is None:
            method, first = self._with_a_grid(problem, ts, first)
        grid = method._grid(problem.dimension)
        kept = kept_times(ts.size + 1, self.snapshot_memory, grid, problem.dtype)
        check_memory(grid, self.order, len(kept), problem.dtype, self.memory)
        on_grid = _OnGrid(problem, grid, self)
        # Functions may have traced values that they close over, so the results are what tells.
        if is_concrete((problem, ts, on_grid.start)):
            on_grid.start.require_sound(problem, grid)
            shifts = Shifts(on_grid.propagator, problem.hamiltonian)
            ran, steps, figures = run_with_steps(
                method,
                lambda steps: on_grid.run(ts, steps, shifts, progress),
                compare=lambda steps: on_grid.compared(ts, steps),
                # There is at least one step between two times, so fewer would be compared with themselves.
                first=max(first, FEWER * parts(grid), ts.size + parts(grid)),
                order=self.order,
                fewest=parts(grid),
                most=MOST_STEPS,
            )
        else:
            require_steps(self, FIRST_STEPS, on_grid.start)
            assert self.steps is not None
            ran, steps, figures = on_grid.run_traced(ts, self.steps), self.steps, {}
        return on_grid.solution(replace(method, steps=steps), ts, ran, figures)

    def _grid(self, d: int) -> FourierGrid:
        return FourierGrid(*(each(getattr(self, name), name, d) for name in ("points", "lower", "upper")))

    def _with_a_grid(self, problem: Problem, ts: Times, steps: int) -> tuple["SplitOperator", int]:
        """This method with a grid that holds ψ and the potential, and a number of steps to begin with."""
        choice, d = first_choice(problem, steps), problem.dimension
        free_box, free_points = self.lower is None, self.points is None
        if not free_box:
            lower, upper = np.array(each(self.lower, "lower", d)), np.array(each(self.upper, "upper", d))
            points = choice.points * (upper - lower) / (choice.upper - choice.lower)
            choice = Choice(lower, upper, rounded(points), choice.steps)
        if not free_points:
            choice = choice._replace(points=np.array(each(self.points, "points", d)))
        require_points(choice.points)
        start = choice
        for _ in range(_MOST_ENLARGEMENTS):
            wider, denser = _OnGrid(problem, choice.grid, self).growth(ts, choice.steps)
            larger = enlarged(start, choice, wider, denser, free_box, free_points)
            if larger is None:
                break
            choice = larger
        grid = choice.grid
        chosen = replace(self, points=grid.sizes, lower=grid.lower, upper=grid.upper)
        # Fewer may do: the enlargements were made without knowing which of them need more.
        return chosen, max(steps, choice.steps // 4)


class _Ran(eqx.Module):
    """A run, by which plan, and its comparison with others."""

    plan: Plan
    records: Records
    snapshots: Complex[Array, "S ..."]


class _OnGrid:
    """A problem on a grid: what all its runs share."""

    def __init__(self, problem: Problem, grid: FourierGrid, method: SplitOperator):
        self.problem, self.grid, self.method = problem, grid, method
        self.propagator = Propagator(grid, problem.hamiltonian, method.order, method.absorber)
        self.start = Start(problem, self.propagator)

    def run(self, ts: Times, steps: int, shifts: Shifts, progress: bool) -> tuple[_Ran, Compared]:
        plan = self._plan(ts, steps)
        ran = _Ran(plan, *propagate(self.propagator, self.start.psi, plan, shifts, progress))
        return ran, self._compared(ran)

    def run_traced(self, ts: Times, steps: int) -> _Ran:
        plan = self._plan(ts, steps)
        psi = jnp.where(self.start.sound(self.problem.dtype), self.start.psi, jnp.nan)
        return _Ran(plan, *propagate_traced(self.propagator, psi, plan))

    def compared(self, ts: Times, steps: int) -> Compared:
        """The moments at the times at which runs are compared, and nothing else."""
        given, times = self.method.steps, compared_times(self.problem, ts, self.grid)
        if given is not None:
            plan = self._plan(ts, given)
            times = np.asarray(plan.times)[np.array(plan.compared)]
        return self._compared(self._at(times, steps, None))

    def _compared(self, ran: _Ran) -> Compared:
        moments, which = ran.records.moments, np.array(ran.plan.compared)
        variances = np.diagonal(np.asarray(moments.covariance), axis1=1, axis2=2)
        mean, std = np.asarray(moments.mean)[which], np.sqrt(variances[which])
        if self.method.absorber is None:
            return Compared(mean, std)
        # What is left counts by how much it is, and that is compared too.
        norm = np.asarray(moments.norm)[which, None]
        mean, std = (start + norm * (now - start) for now, start in ((mean, mean[:1]), (std, std[:1])))
        return Compared(np.append(mean, norm, axis=1), np.append(std, np.ones_like(norm), axis=1))

    def _plan(self, ts: Times, steps: int) -> Plan:
        """With steps that are kept if they are given."""
        memory, shortened = self.method.snapshot_memory, self.method.steps is None
        return Plan(self.problem, ts, self.grid, steps, memory, shortened=shortened)

    def growth(self, ts: Times, steps: int) -> tuple[np.ndarray, np.ndarray]:
        """For each coordinate, by which factors the box should be wider and the points closer together."""
        problem, largest = self.problem, _GROWTH[0][1]
        off = abs(float(self.start.norm) - 1) > norm_tolerance(problem.dtype)
        if off or float(self.start.too_fast) > _EDGE:
            each = np.full(self.grid.dimension, largest)
            return each if off else np.ones_like(each), each
        self.start.require_sound(problem, self.grid)
        ran = self._at(
            compared_times(problem, ts, self.grid), steps, Shifts(self.propagator, problem.hamiltonian)
        )
        wider, denser = _factor(ran.records.edges.box), _factor(ran.records.edges.momentum)
        figure = self._between_points(ran)["potential between points"]
        unresolved = not float(figure.value) <= _BETWEEN * figure.limit
        if unresolved and max(self.grid.sizes) < _MOST_ALONG_AN_AXIS:
            denser = np.maximum(denser, largest)
        return wider, denser

    def _at(self, times: np.ndarray, steps: int, shifts: Shifts | None) -> _Ran:
        plan = Plan(self.problem, jnp.asarray(times), self.grid, steps, 0.0, compared=times, shortened=True)
        return _Ran(plan, *propagate(self.propagator, self.start.psi, plan, shifts, False))

    def _between_points(self, ran: _Ran) -> dict[str, Figure]:
        missed, compared = ran.records.missed, np.array(ran.plan.compared)
        if missed is None:
            return {}
        times = ran.plan.times[compared][:: -(-compared.size // missed.size)]
        return between_points_figure(missed, times, ran.records.moments, self.problem.dtype)

    def solution(
        self, method: SplitOperator, ts: Times, ran: _Ran, more: dict[str, Figure]
    ) -> GridSolution:
        plan, (moments, edges, _), hamiltonian = ran.plan, ran.records, self.problem.hamiltonian
        assert method.steps is not None
        figures = diagnostics(
            self.grid,
            moments,
            edges,
            plan.times,
            norm=self.start.norm,
            too_fast=self.start.too_fast,
            conserved=self.propagator.hamiltonian is None and self.method.absorber is None,
            absorbed=self.start.absorbed,
        )
        at_start = jax.tree.map(lambda leaf: leaf[0], moments)
        if self.method.order == 4:  # whose correction is the squared force
            width = jnp.sqrt(jnp.diag(at_start.covariance))
            warn_of_kinks(hamiltonian, self.problem.t0, at_start.mean, width, order=1)
        # The force of a drive at the packet, where the numbers of steps are known.
        driven = self.propagator.hamiltonian is not None and is_concrete(moments)
        if driven and plan.counts is not None and np.any(plan.counts):
            steps, places = plan.edges(), np.repeat(np.arange(plan.times.size - 1), plan.counts[1:])
            more = more | drive_figure(hamiltonian, method.order, steps, moments.mean[places], at_start)
        return GridSolution(
            self.problem,
            method,
            ts,
            Diagnostics(figures | more | self._between_points(ran), ts, self.problem.t1),
            self.grid,
            jax.tree.map(lambda leaf: leaf[np.array(plan.saved)], moments),
            at_start,
            ran.snapshots,
            plan.times[np.array(plan.kept)],
            Stepping(
                method.order,
                method.steps,
                method.snapshot_memory,
                plan.most_from_snapshot,
                plan.saves_start,
                method.absorber,
            ),
        )


def _factor(edges: Array) -> np.ndarray:
    """By how much a grid should grow whose edges have such probabilities, for each coordinate."""
    worst = np.max(np.asarray(edges), axis=0)
    return np.select([worst > limit for limit, _ in _GROWTH], [factor for _, factor in _GROWTH], 1.0)
