"""ψ in a basis of products of Hermite functions."""

from dataclasses import replace
from typing import Any, ClassVar, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from ..._check import as_float, as_real_array, cast_floats, check_output, is_concrete, on_host
from ..._types import Key, Numbers, Times, Vector
from ...hamiltonian import Hamiltonian, depends_on_time
from ...problem import Problem
from ...solution import Diagnostics, Figure, over_time
from .._steps import DEFAULT_TOLERANCE, as_steps, as_tolerance, run_with_steps
from .._steps import Moments as Compared
from ..method import AbstractStationaryMethod, StationaryStates
from ..split_operator._choice import FIRST_STEPS, MOST_STEPS, first_steps
from ..split_operator._start import available_memory
from ._chebyshev import PHASE, Bounds
from ._choice import frame_for
from ._evaluate import Moments, moments
from ._index import Quanta
from ._index import count as number_of
from ._operator import Frame, terms_of
from ._run import RAISED, Basis, run, run_traced
from ._start import initial_coefficients
from ._stationary import Levels, frame_at_minimum, levels, raised, tuned
from .solution import HermiteSolution
from .state import HermiteState

_TARGETS = ("moments", "state")
# Runs are compared at so many times of their own, whatever the saved times are.
_COMPARED = 17
# Bytes that a function takes, beyond those of its coefficients: tables, and vectors at work.
_BYTES_A_FUNCTION = 600
_MOST_FUNCTIONS = 2_000_000
# The error of a mean or standard deviation, in units of the latter, is at most about this times that of ψ.
_OF_THE_STATE = 2.5
# A degree is compared with this share of it.
_SMALLER = 0.8
# Which changes of the scale, and shifts by a share of it, are tried, how often each, in bases of at most so many
# functions, and how much less must leave the basis.
_FRAMES = ((1.12, 0.0), (1 / 1.12, 0.0), (1.0, 0.25), (1.0, -0.25))
_TRIALS = 3
_MOST_TUNED = 2500
_LESS = 0.95
# How fast a degree may grow, and by which factor an estimate is raised.
_GROWTH = 1.35
_SAFETY = 3.0
_LEAST_GROWTH = 2
_MOST_RUNGS = 12
_LARGEST_DEGREE = 400
# Of the norm: rounding.
_NORM = 1e-9
_SINGLE_NORM = 1e-3
_LEAST_STATIONARY = 8
_MOST_STATIONARY = 200_000
# Of ψ, where nothing tells that the moments are better.
_LARGEST_BOUND = 0.1


class HermiteFunctions(AbstractStationaryMethod):
    r"""Expands ψ in products of Hermite functions: $\psi = \sum_k c_k(t)\,\varphi_k(x)$ for all
    $k$ with $\sum_i w_i k_i \le$ `degree`.

    ```python
    solution = bd.solve(problem, bd.HermiteFunctions(tolerance=1e-4))
    solution.method.degree, solution.error_bound[-1]
    ```

    ψ may have nodes, and interfere with itself: the equation for $c$ is linear and unitary, and Chebyshev
    polynomials of $H$ solve it to rounding. What limits the accuracy is the number of functions, which grows as
    $\binom{\text{degree} + d}{d}$: bound motion in up to some eight coordinates is within reach.

    Without a `degree`, it is increased until the moments no longer change. Each run also gives a bound of the
    error of ψ, from what leaves the basis:
    $\|\psi - \psi_\text{exact}\| \le \|(1-P)\psi_0\| + \int \|(1-P)H\psi\|\,dt/\hbar$.

    A potential that depends on all coordinates together, such as a plain function, is multiplied on a grid of
    quadrature points, in up to five coordinates. A sum of terms of few coordinates is faster, and needed beyond:
    all potentials of bohmdiff but tables are such sums, and yours can be an
    [`AbstractSeparablePotential`][bohmdiff.AbstractSeparablePotential].

    With `degree` and `steps`, `solve` with this method works under `jax.jit`, `jax.vmap`, `jax.grad` and
    `jax.jvp`; the `method` of a solution has those that were chosen. Each interval between saved times then
    takes at least one step: pass few `ts`.

    **Arguments:**

    - `degree`: the largest $\sum_i w_i k_i$. If not given, it is chosen.
    - `tolerance`: the largest error of any mean or standard deviation, in units of the latter, due to the degree
        or the steps; with `target="state"`, of $\|\psi - \psi_\text{exact}\|$.
    - `target`: `"moments"` or `"state"`.
    - `weights`: $w_i > 0$, shape `(d,)`: the cost of a quantum of each coordinate; 1 if not given.
    - `centre`, `scale`: of the Hermite functions, shape `(d,)`:
        $\varphi_n(x) = h_n((x - \text{centre}) / \text{scale})$, where $h_0 \propto e^{-\xi^2/2}$. If not given,
        they suit the region of phase space that classical particles reach, and a few scales are tried.
    - `steps`: for a potential that depends on time, the number of steps of the commutator-free scheme of order 4;
        chosen if not given. Otherwise, the number of expansions in Chebyshev polynomials, which matters under a
        transformation only.
    - `memory`: how many bytes may be used; what is free now, if not given.

    **Units:** `centre` and `scale` in lengths.

    **Raises:** `ValueError` for options of a wrong shape or out of range, for a potential that is no sum of terms
    of few coordinates in more than five of them, and where the functions do not fit into the memory.

    ??? cite "References"

        H. Tal-Ezer, R. Kosloff, J. Chem. Phys. 81, 3967 (1984).
        S. Blanes, P. C. Moan, Appl. Numer. Math. 56, 1519 (2006).
    """

    degree: float | None = eqx.field(static=True)
    tolerance: float = eqx.field(static=True)
    target: str = eqx.field(static=True)
    weights: tuple[float, ...] | None = eqx.field(static=True)
    centre: Vector | None
    scale: Vector | None
    steps: int | None = eqx.field(static=True)
    memory: float | None = eqx.field(static=True)

    allows_nodes: ClassVar[bool] = True

    def __init__(
        self,
        degree: float | int | None = None,
        *,
        tolerance: float = DEFAULT_TOLERANCE,
        target: str = "moments",
        weights: Numbers | None = None,
        centre: Numbers | None = None,
        scale: Numbers | None = None,
        steps: int | None = None,
        memory: float | int | None = None,
    ):
        self.degree = None if degree is None else as_float(degree, "degree")
        if self.degree is not None and not 0 <= self.degree <= _LARGEST_DEGREE:
            raise ValueError(f"degree must lie between 0 and {_LARGEST_DEGREE}, but {degree!r} was given.")
        self.tolerance, self.steps = as_tolerance(tolerance), as_steps(steps)
        if target not in _TARGETS:
            raise ValueError(f"target must be one of {_TARGETS}, but {target!r} was given.")
        self.target = target
        self.weights = _as_weights(weights)
        self.centre = None if centre is None else _as_vector(centre, "centre")
        self.scale = None if scale is None else _as_vector(scale, "scale")
        if self.scale is not None and is_concrete(self.scale) and not np.all(np.asarray(self.scale) > 0):
            raise ValueError(f"scale must be positive, but {scale!r} was given.")
        if (self.centre is None) != (self.scale is None):
            raise ValueError(
                "centre and scale must both be given or both be chosen, but only one was given."
            )
        self.memory = None if memory is None else as_float(memory, "memory")
        if self.memory is not None and not self.memory > 0:
            raise ValueError(f"memory must be a positive number of bytes, but {memory!r} was given.")

    def run(self, problem: Problem, ts: Times, *, key: Key | None, progress: bool) -> HermiteSolution:
        """Solves `problem`; see [`solve`][bohmdiff.solve]. Draws nothing, so `key` is not used."""
        del key, progress
        d = problem.dimension
        point = (problem.t0, jnp.zeros(d, problem.dtype))
        check_output(problem.hamiltonian.potential, point, (), "potential")
        search = _Search(self, problem, ts)
        if is_concrete((problem, ts, search.frame)):
            return search.found()
        return search.traced()

    def stationary(
        self, hamiltonian: Hamiltonian, near: Vector, count: int, *, key: Key | None, progress: bool
    ) -> StationaryStates:
        """The lowest states; see [`eigenstates`][bohmdiff.eigenstates]. The `tolerance` is that of the
        energies, in units of the distance of the lowest two."""
        del key, progress
        d, dtype = near.size, near.dtype
        hamiltonian = cast_floats(hamiltonian, dtype)
        weights = (1.0,) * d if self.weights is None else self.weights
        terms = terms_of(hamiltonian, d)
        size = np.inf if self.degree is None else number_of(Quanta(self.degree, weights))
        if size <= count:
            raise ValueError(
                f"A degree of {self.degree:g} has {size} functions, too few for {count} states. "
                "Pass a larger one."
            )
        if self.centre is None or self.scale is None:
            frame = tuned(frame_at_minimum(hamiltonian, near), hamiltonian, terms, weights, count)
        else:
            frame = Frame(self.centre.astype(dtype), self.scale.astype(dtype))
        degree = _first_degree(count, weights) if self.degree is None else self.degree
        before = None
        while True:
            basis = Basis(Quanta(degree, weights), frame, hamiltonian, terms, on_host=True)
            found = levels(basis, raised(basis, terms), count)
            gap = float(found.energy[1] - found.energy[0]) if count > 1 else _gap(found)
            tolerance = self.tolerance * gap
            error = _energy_errors(found, before)
            larger = float(np.ceil(1.2 * degree)) + 1
            full = (
                number_of(Quanta(larger, weights).raised(RAISED)) > _MOST_STATIONARY
                or larger > _LARGEST_DEGREE
            )
            if self.degree is not None or np.all(error <= tolerance) or full:
                break
            before, degree = found, larger
        states = tuple(
            HermiteState(
                basis.quanta,
                frame,
                jnp.asarray(np.stack([state, np.zeros_like(state)]), dtype),
                hamiltonian.hbar,
                jnp.asarray(value, dtype),
                jnp.asarray(bound, dtype),
                n == 0,
            )
            for n, (value, state, bound) in enumerate(zip(found.energy, found.states, error, strict=True))
        )
        return StationaryStates(
            jnp.asarray(found.energy, dtype), jnp.asarray(error, dtype), tolerance, states
        )


class _Ran(NamedTuple):
    """A run: coefficients, moments and the bound of the error at all times of the run."""

    basis: Basis
    bounds: Bounds
    start: Any
    times: np.ndarray
    coefficients: Any
    moments: Moments
    error_bound: Any

    @property
    def worst(self) -> float:
        bound = float(np.max(self.error_bound))
        return bound if np.isfinite(bound) else np.inf

    @property
    def compared(self) -> Compared:
        covariance = self.moments.covariance
        std = np.sqrt(np.diagonal(covariance, axis1=1, axis2=2))
        return Compared(self.moments.mean, std)


class _Search:
    """Finds frame, degree and steps for a problem."""

    def __init__(self, method: HermiteFunctions, problem: Problem, ts: Times):
        self.method, self.problem, self.ts = method, problem, ts
        d = problem.dimension
        self.weights = (1.0,) * d if method.weights is None else method.weights
        for name, given in (
            ("weights", method.weights),
            ("centre", method.centre),
            ("scale", method.scale),
        ):
            if given is not None and len(given) != d:
                raise ValueError(
                    f"{name} must have shape ({d},), since the problem has {d} coordinates, but it has shape "
                    f"({len(given)},)."
                )
        self.terms = terms_of(problem.hamiltonian, d)
        self.changes = depends_on_time(problem.hamiltonian, d, problem.dtype)
        self.first_degree = 0.0
        if method.centre is None:
            self.frame, self.first_degree = frame_for(problem)
        else:
            assert method.scale is not None
            self.frame = Frame(method.centre.astype(problem.dtype), method.scale.astype(problem.dtype))
            if method.degree is None:
                self.first_degree = frame_for(problem)[1]
        self.steps = method.steps
        self._most_tuned = _MOST_TUNED
        self.times: np.ndarray | None = None

    # Concrete values.

    def found(self) -> HermiteSolution:
        method, problem = self.method, self.problem
        own = np.linspace(float(problem.t0), float(problem.t1), _COMPARED)
        self.times = np.union1d(np.asarray(self.ts, float), own)
        first = method.degree if method.degree is not None else self.first_degree
        self._require_memory(first)
        figures: dict[str, Figure] = {}
        if self.changes:
            # By a small degree, at times of their own: at more times there would be more steps.
            self.times, lowest = own, min(first, self.first_degree or first)
            begin = FIRST_STEPS if method.steps else max(first_steps(problem, 4), FIRST_STEPS)
            chosen = run_with_steps(
                method, lambda n: self._with_steps(lowest, n), first=begin, order=4, most=MOST_STEPS
            )
            self.steps, figures = chosen.steps, chosen.figures
        # Each of the saved times is among them.
        self.times = np.union1d(np.asarray(self.ts, float), own)
        if method.degree is None:
            ran, error = self._grown(first)
        else:
            if method.centre is None:
                self._tuned(min(first, self.first_degree))
            ran = self._run(first)
            error = self._error(ran)
        return self._solution(ran, error, figures)

    def _with_steps(self, degree: float, steps: int) -> tuple[_Ran, Compared]:
        self.steps = steps
        ran = self._run(degree)
        return ran, ran.compared

    def _tuned(self, degree: float) -> _Ran:
        """A run, in a wider, narrower or shifted frame if less leaves it."""
        ran = self._run(degree)
        if self.method.centre is not None or ran.basis.size > self._most_tuned:
            return ran
        for factor, shift in _FRAMES:
            for _ in range(_TRIALS):
                current = self.frame
                self.frame = Frame(current.centre + shift * current.scale, current.scale * factor)
                other = self._run(degree)
                if not other.worst < _LESS * ran.worst:
                    self.frame = current
                    break
                ran = other
        return ran

    def _grown(self, degree: float) -> tuple[_Ran, float]:
        """The first of growing degrees that is good enough, or the last that is possible."""
        target = self.method.tolerance
        before, change_before = self._tuned(degree), np.inf
        if self.changes:
            self._most_tuned = 0  # every trial follows the drive
        error = self._of_the_bound(before)
        rate, last_wider = np.nan, 1.0  # at which the error falls with the degree
        for _ in range(_MOST_RUNGS):
            if error <= target:
                break
            following = self._next(degree, error, rate)
            if following is None:
                break
            now, wider = self._tuned(following), following - degree
            error_before, error = error, self._of_the_bound(now)
            rate = np.log(error_before / error) / wider if error_before > error > 0 else np.nan
            if self.method.target == "moments":
                change = self._change(before, now)
                if change < change_before < np.inf:
                    # The change is the error of the run before.
                    rate = np.log(change_before / change) / last_wider
                    error = min(error, change * min(_SAFETY * np.exp(-rate * wider), 1.0))
                else:
                    error = min(error, change)
                change_before = change
            before, degree, last_wider = now, following, wider
        return before, error

    def _next(self, degree: float, error: float, rate: float) -> float | None:
        """The next degree, or `None` where it does not fit into the memory."""
        growth = 0.25 * degree
        if np.isfinite(rate) and np.isfinite(error) and rate > 0:
            growth = np.log(max(2 * error / self.method.tolerance, 1.5)) / rate
        largest = (_GROWTH - 1) * degree + _LEAST_GROWTH
        degree = degree + float(np.ceil(np.clip(growth, _LEAST_GROWTH, largest)))
        quanta = Quanta(degree, self.weights)
        fits = number_of(quanta.raised(RAISED)) <= self._most_functions() and degree <= _LARGEST_DEGREE
        return degree if fits else None

    def _error(self, ran: _Ran) -> float:
        """Of a run of a given degree: from its bound, or, if that is not small enough, by a smaller degree."""
        error = self._of_the_bound(ran)
        if error <= self.method.tolerance or self.method.target == "state":
            return error
        smaller = float(np.floor(_SMALLER * ran.basis.quanta.degree))
        return min(error, self._change(self._run(smaller), ran))

    def _of_the_bound(self, ran: _Ran) -> float:
        return ran.worst * (1 if self.method.target == "state" else _OF_THE_STATE)

    def _change(self, fewer: _Ran, more: _Ran) -> float:
        """The largest of any mean or standard deviation, in units of the latter."""
        one, other = fewer.compared, more.compared
        changes = np.abs(np.stack([other.mean - one.mean, other.std - one.std])) / other.std
        change = float(np.max(changes))
        return change if np.isfinite(change) else np.inf

    def _most_functions(self) -> int:
        memory = available_memory() if self.method.memory is None else self.method.memory
        assert self.times is not None
        real = jnp.dtype(self.problem.dtype).itemsize
        # Coefficients at all times, twice while they are sorted.
        return int(min(memory / (4 * real * self.times.size + _BYTES_A_FUNCTION), _MOST_FUNCTIONS))

    def _require_memory(self, degree: float) -> None:
        needed, most = number_of(Quanta(degree, self.weights).raised(RAISED)), self._most_functions()
        if needed > most:
            raise ValueError(
                f"A degree of {degree:g} in {len(self.weights)} coordinates has {needed} functions with those "
                f"that tell the error, but the memory holds {most}. Use a smaller degree, fewer saved times, "
                "single precision, or weights that leave out functions; or set memory= if more may be used."
            )

    def _run(self, degree: float) -> _Ran:
        assert self.times is not None
        problem, times = self.problem, self.times
        basis, larger = self._basis(degree), self._basis(degree, RAISED)
        start = np.asarray(self._start(basis))
        bounds = basis.bounds(problem.t0, problem.t1)
        t0, span = float(problem.t0), float(problem.t1 - problem.t0)
        records = run(basis, larger, bounds, start, t0, times, self.steps, span)
        found = [moments(basis.quanta, basis.frame, c) for c in records.coefficients]
        stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *found)
        return _Ran(basis, bounds, start, times, records.coefficients, stacked, records.error_bound)

    def _basis(self, degree: float, raised: int = 0, finer: bool = False) -> Basis:
        quanta = Quanta(degree, self.weights)
        quanta = quanta.raised(raised) if raised else quanta
        hamiltonian = self.problem.hamiltonian
        return Basis(quanta, self.frame, hamiltonian, self.terms, on_host=True, finer=finer)

    def _start(self, basis: Basis) -> Any:
        hbar = self.problem.hamiltonian.hbar
        return initial_coefficients(self.problem.initial, hbar, basis.quanta, basis.frame)

    def _solution(self, ran: _Ran, error: float, figures: dict[str, Figure]) -> HermiteSolution:
        problem, method = self.problem, self.method
        kept = np.searchsorted(ran.times, np.asarray(self.ts, float))
        ts, dtype = self.ts, problem.dtype
        share = error / ran.worst if ran.worst > 0 and np.isfinite(ran.worst) else 1.0
        state = method.target == "state"
        what = "ψ" if state else "means and standard deviations, in standard deviations"
        figures = {
            "basis": over_time(
                jnp.asarray(ran.error_bound * share, dtype),
                jnp.asarray(ran.times, dtype),
                limit=method.tolerance,
                meaning=f"The finite basis causes about this error of {what}.",
                remedy="Pass a larger degree or more memory; or use SplitOperator in up to four coordinates.",
            ),
            "norm": over_time(
                jnp.asarray(np.abs(ran.moments.norm - np.sum(ran.start**2)), dtype),
                jnp.asarray(ran.times, dtype),
                limit=_NORM if dtype == jnp.float64 else _SINGLE_NORM,
                meaning="The norm of ψ changes.",
                remedy="Pass more steps.",
            ),
            "quadrature": self._quadrature(ran),
        } | figures
        chosen = replace(
            method,
            degree=float(ran.basis.quanta.degree),
            centre=self.frame.centre,
            scale=self.frame.scale,
            steps=self.steps or self._expansions(ran),
        )
        coefficients = ran.coefficients[kept]
        energies = [_energy(ran.basis, t, c) for t, c in zip(ran.times[kept], coefficients, strict=True)]
        return HermiteSolution(
            problem,
            chosen,
            ts,
            Diagnostics(figures, ts, problem.t1),
            ran.basis.quanta,
            self.frame,
            jnp.asarray(coefficients),
            jnp.asarray(ran.start),
            (jnp.asarray(ran.bounds.middle, dtype), jnp.asarray(ran.bounds.radius, dtype)),
            jax.tree.map(lambda a: jnp.asarray(a[kept], dtype), ran.moments),
            jnp.asarray(energies, dtype),
            jnp.asarray(ran.error_bound[kept], dtype),
        )

    def _expansions(self, ran: _Ran) -> int:
        problem = self.problem
        phase = float(ran.bounds.radius) * float((problem.t1 - problem.t0) / problem.hamiltonian.hbar)
        return max(int(np.ceil(phase / PHASE)), 1)

    def _quadrature(self, ran: _Ran) -> Figure:
        """By how much H ψ / ħ changes with more quadrature points."""
        problem, dtype = self.problem, self.problem.dtype
        finer = self._basis(ran.basis.quanta.degree, finer=True)
        chosen = np.array([0, len(ran.times) // 2, len(ran.times) - 1])
        off = [
            np.linalg.norm(finer.operator_at(t)(c) - ran.basis.operator_at(t)(c))
            for t, c in zip(ran.times[chosen], ran.coefficients[chosen], strict=True)
        ]
        span = (problem.t1 - problem.t0) / problem.hamiltonian.hbar
        return over_time(
            jnp.asarray(np.array(off), dtype) * span,
            jnp.asarray(ran.times[chosen], dtype),
            limit=5e-3,
            meaning="The potential has structure between the quadrature points, which changes ψ by up to this.",
            remedy="Pass a larger degree, or use SplitOperator with fine grids.",
        )

    # Traced values.

    def traced(self) -> HermiteSolution:
        method, problem, ts = self.method, self.problem, self.ts
        if method.degree is None:
            raise ValueError(
                "HermiteFunctions chooses its degree from concrete numbers, which it cannot under jit, grad or "
                "vmap. Pass a degree, or take the `method` of a solution that was found outside of the "
                "transformation, which has the chosen one."
            )
        if method.steps is None:
            raise ValueError(
                "HermiteFunctions chooses its steps from concrete numbers, which it cannot under jit, grad or "
                "vmap. Pass steps, or take the `method` of a solution that was found outside of the "
                "transformation, which has the chosen ones."
            )
        quanta, hamiltonian = Quanta(method.degree, self.weights), problem.hamiltonian
        basis = Basis(quanta, self.frame, hamiltonian, self.terms, on_host=False)
        larger = Basis(quanta.raised(RAISED), self.frame, hamiltonian, self.terms, on_host=False)
        start = jnp.asarray(self._start(basis))
        bounds = basis.bounds(problem.t0, problem.t1)
        coefficients, error_bound, phase = run_traced(
            basis, larger, bounds, start, problem.t0, problem.t1, ts, method.steps
        )
        # Beyond that phase an expansion is far from the exponential.
        coefficients = jnp.where(phase <= 1 + 1e-6, coefficients, jnp.nan)
        found = jax.lax.map(lambda c: moments(quanta, self.frame, c), coefficients)
        energies = jax.lax.map(lambda here: _energy(basis, *here), (ts, coefficients))
        figures = {
            "basis": over_time(
                error_bound,
                ts,
                limit=_LARGEST_BOUND,
                meaning="The finite basis may change ψ by up to this.",
                remedy="Pass a larger degree.",
            ),
            "time step": Figure(
                phase,
                limit=1.0 + 1e-6,
                meaning="A step has so many times the largest phase of an expansion.",
                remedy="Pass more steps.",
            ),
        }
        chosen = replace(method, centre=self.frame.centre, scale=self.frame.scale)
        return HermiteSolution(
            problem,
            chosen,
            ts,
            Diagnostics(figures, ts, problem.t1),
            quanta,
            self.frame,
            coefficients,
            start,
            tuple(bounds),
            found,
            energies,
            error_bound,
        )


def _energy(basis: Basis, t: Any, c: Any) -> Any:
    return (c * basis.operator_at(t)(c)).sum() / (c**2).sum()


def _energy_errors(found: Levels, before: Levels | None) -> np.ndarray:
    """A bound of the error of each energy: the residual, or its square over the distance of the next level; or
    how much it fell since a smaller basis, as each energy is an upper bound."""
    gaps = np.diff(found.energy)
    nearest = np.minimum(np.append(gaps, np.inf), np.append(np.inf, gaps))
    # Of the last level the distance to the next is not known.
    nearest[-1] = min(nearest[-1], gaps.min()) if gaps.size else np.inf
    safe = found.residual < 0.5 * nearest
    error = np.where(
        safe & np.isfinite(nearest), found.residual**2 / np.maximum(nearest, 1e-300), found.residual
    )
    if before is not None:
        error = np.minimum(error, np.abs(before.energy - found.energy))
    return np.minimum(error, found.residual)


def _gap(found: Levels) -> float:
    """The distance to the second level."""
    pair = levels(found.basis, found.basis, 2)
    return float(pair.energy[1] - pair.energy[0])


def _first_degree(states: int, weights: tuple[float, ...]) -> float:
    degree = float(_LEAST_STATIONARY)
    while number_of(Quanta(degree, weights)) < 4 * states:
        degree += 2
    return degree


def _as_weights(weights: Any) -> tuple[float, ...] | None:
    if weights is None:
        return None
    array = on_host(weights, "weights")
    if array.ndim != 1 or array.size == 0 or array.dtype.kind not in "iuf":
        raise ValueError(f"weights must be numbers of shape (d,), but {weights!r} was given.")
    if not np.all(np.isfinite(array) & (array > 0)):
        raise ValueError(f"weights must be positive, but {weights!r} was given.")
    return tuple(float(weight) for weight in array)


def _as_vector(value: Any, name: str) -> Vector:
    array = as_real_array(value, name)
    if array.ndim != 1:
        raise ValueError(f"{name} must have shape (d,), but shape {array.shape} was given.")
    return array
