"""The wave function itself, on a Fourier grid."""

from collections.abc import Callable, Iterator
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Complex, Float, PyTree

from ..._check import as_real_array, describe, is_concrete, require
from ..._precision import in_full_precision
from ..._types import Key, Numbers, Paths, Points, Scalar, Time, Times, Vector
from ...problem import Problem
from ...solution import Diagnostics, Solution, wave_function_of
from ...solution import WaveFunction as Psi
from .._field_solution import moved_paths
from ..method import AbstractMethod
from ._fourier import FourierGrid
from ._line import Quantiles, region, shares_beside
from ._mixture import Draws, SobolDraws, shares
from ._observe import Moments
from ._propagator import Propagator
from ._sampling import sample_density
from ._wave import Current, Stepping, WaveFunction, kept_times, log_gradient

# Points of the grid at which another wave function is evaluated at once.
_CHUNK = 1024
# Paths need ψ at many times: at most this many steps between two snapshots for them.
_MOST_STEPS_BETWEEN = 2


class GridSolution(Solution):
    r"""ψ on a periodic Fourier grid: what [`SplitOperator`][bohmdiff.SplitOperator] returns.

    ```python
    exact = bd.solve(
        problem, bd.SplitOperator(points=44, lower=-5.5, upper=7.5)
    )
    exact.log_density(1.0, x), jax.vmap(lambda x: exact.score(1.0, x))(x0)
    ```

    Between the grid points ψ is its trigonometric interpolant, which is as accurate as on the grid; outside the
    box it is zero. `snapshots` has ψ at `t0`, and at as many saved times as fit into the `snapshot_memory` of the
    method. At any other time ψ is propagated from the snapshot before, by the steps of the method. No result is
    stored: to evaluate ψ at many points, use `jax.vmap` over the points, which propagates once.

    `score`, `velocity` and `log_density` are always finite. Where $|\psi|^2$ is below the smallest normal
    number (at a node, outside the box) they return 0, 0 and the logarithm of that number. Rounding
    leaves about `1e-15` (`1e-6` in single precision) of the largest $|\psi|$ everywhere: far out in the
    tails, where $|\psi|$ itself is smaller, the three are noise.

    `trajectories` are exact in one dimension if ψ is: paths on a line cannot cross, so each keeps the
    probability on its left. In more dimensions the velocity is integrated with adaptive steps, with a tolerance
    of 1e-6 of the width of the ensemble, 1e-4 in single precision.

    `sample` draws exactly from the density: a draw from its multilinear interpolant is accepted with a
    probability proportional to the ratio of the two. Where the solution or the key is traced, the draws come
    from a mixture of splines that agrees with the density to about 1e-3. Draws at different times are
    independent of each other.

    With an absorber, ψ loses norm. Means, widths, energies and draws are those of what is left, normalised, while
    `probability` and `log_density` are not. Shares on the left of a path are no longer kept, so
    that `trajectories` are integrated in one dimension too, and there are no `quantile_trajectories`.

    `probability` is an integral in one dimension. In more dimensions it comes from 8 sets of 4,096 Sobol points
    of that mixture.
    """

    problem: Problem
    method: AbstractMethod
    ts: Times
    diagnostics: Diagnostics
    fourier: FourierGrid
    moments: Moments
    start: Moments
    snapshots: Complex[Array, "S ..."]
    snapshot_times: Float[Array, " S"]
    stepping: Stepping

    def mean(self) -> Float[Array, "K d"]:
        return self.moments.mean

    def covariance(self) -> Float[Array, "K d d"]:
        return self.moments.covariance

    def energy(self) -> Times:
        return self.moments.energy

    def norm(self) -> Times:
        r"""$\int|\psi|^2$ at the saved times, shape `(K,)`: one up to rounding, or what an absorber has left."""
        return self.moments.norm

    @property
    def norm_drift(self) -> Scalar:
        """The largest change of the norm since `t0`, caused by rounding, or by an absorber."""
        return jnp.max(jnp.abs(self.moments.norm - self.start.norm))

    @property
    def energy_drift(self) -> Scalar:
        r"""The largest change of $\langle H\rangle$ since `t0`, in units of energy.

        If V does not depend on time and there is no absorber, this measures the error of the steps.
        """
        return jnp.max(jnp.abs(self.moments.energy - self.start.energy))

    def grid(self) -> tuple[Float[Array, " n"], ...]:
        """The positions of the grid points along each coordinate."""
        return tuple(
            jnp.asarray(self.fourier.axis(i), self.ts.dtype) for i in range(self.fourier.dimension)
        )

    @in_full_precision
    def wave_function_on_grid(self, t: Time) -> Complex[Array, "..."]:
        r"""$\psi(t)$ at the grid points, one axis per coordinate; times as for `score`."""
        return self._evaluated(lambda t, x: self._psi(t), t, self._anywhere())

    @in_full_precision
    def density_on_grid(self, t: Time) -> Float[Array, "..."]:
        r"""$\rho(t)$ at the grid points, one axis per coordinate; times as for `score`."""
        psi = self.wave_function_on_grid(t)
        return psi.real**2 + psi.imag**2

    def wave_function_at(self, t: Scalar, x: Vector) -> Complex[Array, ""]:
        return self._at(t, x[None])[0][0]

    def log_density_at(self, t: Scalar, x: Vector) -> Scalar:
        psi = self.wave_function_at(t, x)
        return jnp.log(jnp.maximum(psi.real**2 + psi.imag**2, jnp.finfo(self.ts.dtype).tiny))

    def score_at(self, t: Scalar, x: Vector) -> Vector:
        return 2 * self._log_gradient(t, x).real

    def velocity_at(self, t: Scalar, x: Vector) -> Vector:
        r"""$v_i = (\hbar/m_i)\,\mathrm{Im}\,\partial_i\psi/\psi$."""
        hamiltonian = self.problem.hamiltonian
        return hamiltonian.hbar / hamiltonian.masses(self.fourier.dimension) * self._log_gradient(t, x).imag

    def move(self, x0: Points) -> Paths:
        if self.fourier.dimension > 1 or self.stepping.absorber is not None:
            return moved_paths(self.problem, Current(self._dense_wave_function()), x0, self.ts)
        low, high = shares_beside(self.fourier, self.snapshots[0], x0[:, 0])
        inside = jnp.all((low > 0) | (high > 0))
        low, high = require(
            (low, high),
            inside,
            "x0 must lie in the box of the grid, but a point is outside. Pass points inside the box.",
        )
        return self._quantiles(low, high)[:, :, None]

    @in_full_precision
    def quantile_trajectories(self, levels: Numbers) -> Float[Array, "n K"]:
        r"""Exact Bohmian trajectories in one dimension, at the saved times, shape `(n, K)`.

        Trajectories in one dimension cannot cross, so each keeps the probability on its left: it is
        a quantile of $\rho$.

        ```python
        splitting = bd.Problem(
            bd.Hamiltonian(bd.DoubleWell()),
            bd.GaussianWavePacket([0.0], 0.25),
            t1=2.0,
        )
        grid = bd.solve(
            splitting, bd.SplitOperator(points=128, lower=-6.0, upper=6.0)
        )
        paths = grid.quantile_trajectories(jnp.linspace(0.05, 0.95, 19))
        bd.plot.density(grid, paths)
        ```

        **Arguments:**

        - `levels`: the probabilities on the left of each trajectory, strictly between 0 and 1, `(n,)`.

        **Raises:** `ValueError` for more than one coordinate, or levels that are not in (0, 1);
        [`UnavailableError`][bohmdiff.UnavailableError] with an absorber.
        """
        if self.fourier.dimension != 1:
            raise ValueError(
                f"Trajectories are quantiles in one dimension only, but the problem has {self.fourier.dimension} "
                "coordinates. Use solution.trajectories(x0) with the initial positions x0, shape (M, d)."
            )
        if self.stepping.absorber is not None:
            raise self.unavailable(
                "quantile_trajectories if it has an absorber, which takes from one side",
                "Use solution.trajectories(x0) with the initial positions x0, shape (M, 1).",
            )
        given = as_real_array(levels, "levels").astype(self.ts.dtype)
        if given.ndim != 1:
            raise ValueError(f"levels must have shape (n,), but shape {given.shape} was given.")
        low = require(
            given,
            jnp.all((given > 0) & (given < 1)),
            f"levels must lie strictly between 0 and 1, but {describe(levels)} was given.",
        )
        return self._quantiles(low, 1 - low)

    def average(self, f: Callable[[Scalar, Vector], PyTree]) -> PyTree:
        def mean(t: Scalar, psi: Complex[Array, "..."]) -> PyTree:
            return self.fourier.mean(lambda x: f(t, x), psi.real**2 + psi.imag**2)

        return self._at_saved_times(mean)

    def measure(self, inside: Callable[[Vector], Bool[Array, ""]]) -> tuple[Times, Times]:
        if self.fourier.dimension == 1:
            measured = self._at_saved_times(region(self.fourier, inside, self.ts.dtype))
        else:
            points, missed = self._at_saved_times(SobolDraws(self.fourier))
            measured = shares(points, missed, inside)
        if self.stepping.absorber is None:
            return measured
        return self.moments.norm * measured[0], self.moments.norm * measured[1]

    def draw(self, key: Key, n: int) -> Float[Array, "n K d"]:
        if self._is_known() and is_concrete(key):
            with jax.ensure_compile_time_eval():
                states = zip(self._known_states(), jax.random.split(key, self.ts.size), strict=True)
                draws = [sample_density(self.fourier, psi, k, n) for (_, psi), k in states]
                return jnp.stack(draws, axis=1)
        keys = jax.random.split(key, self.ts.size)
        uniform = jax.vmap(lambda k: jax.random.uniform(k, (n, self.fourier.dimension), self.ts.dtype))(
            keys
        )
        return jnp.moveaxis(self._at_saved_times(Draws(self.fourier), uniform), 0, 1)

    def project(self, psi: Psi | Solution) -> Complex[Array, " K"]:
        if not isinstance(psi, GridSolution):
            function = wave_function_of(psi)

            def evaluated(t: Scalar, ours: Complex[Array, "..."]) -> Complex[Array, ""]:
                theirs = self.fourier.map(lambda x: function(t, x), self.ts.dtype, chunk=_CHUNK)
                return jnp.vdot(ours, theirs) * self.fourier.cell

            return self._at_saved_times(evaluated)

        # Another ψ on a grid is interpolated at all points of this one together: its waves are products over the
        # axes.
        def resampled(t: Scalar, ours: Complex[Array, "..."]) -> Complex[Array, ""]:
            theirs = psi.fourier.resampled(psi.wave_function_on_grid(t), self.fourier)
            return jnp.vdot(ours, theirs) * self.fourier.cell

        if self._is_known() and psi._is_known():
            with jax.ensure_compile_time_eval():
                states = self._known_states()
                return jnp.stack([resampled(jnp.asarray(t, self.ts.dtype), ours) for t, ours in states])
        return self._at_saved_times(resampled)

    def _quantiles(self, low: Float[Array, " M"], high: Float[Array, " M"]) -> Float[Array, "M K"]:
        """The points with given shares on either side, at the saved times."""
        return self._at_saved_times(Quantiles(self.fourier, low, high)).T

    def _anywhere(self) -> Vector:
        return jnp.zeros(self.fourier.dimension, self.ts.dtype)

    def _wave_function(self) -> WaveFunction:
        order, absorber = self.stepping.order, self.stepping.absorber
        propagator = Propagator(self.fourier, self.problem.hamiltonian, order, absorber)
        largest = ((self.problem.t1 - self.problem.t0) / self.stepping.steps).astype(self.ts.dtype)
        kept = (self.snapshots, self.snapshot_times)
        return WaveFunction(propagator, *kept, largest, self.stepping.most, self.stepping.steps)

    def _dense_wave_function(self) -> WaveFunction:
        """ψ with more snapshots, if there are few and the memory holds more."""
        psi = self._wave_function()
        count = len(kept_times(psi.most_in_all + 1, self.stepping.memory, self.fourier, self.ts.dtype))
        if psi.most <= _MOST_STEPS_BETWEEN or count <= self.snapshot_times.size:
            return psi
        return psi.denser(self.problem.t1.astype(self.ts.dtype), count)

    def _is_known(self) -> bool:
        # Some may be concrete while others are traced: snapshots if only ψ0 is kept, and the problem if a
        # function of it closes over traced values.
        return is_concrete((self.problem, self.ts, self.snapshots, self.moments))

    def _psi(self, t: Scalar) -> Complex[Array, "..."]:
        """ψ at one time."""
        if not (self._is_known() and is_concrete(t)):
            return _psi(self, t)
        # Values that do not depend on a traced input are computed now, outside the user's program.
        with jax.ensure_compile_time_eval():
            i = int(jnp.searchsorted(self.snapshot_times, t))
            if i < self.snapshot_times.size and float(self.snapshot_times[i]) == float(t):
                return self.snapshots[i]
            return self._wave_function().at_known(float(t))

    def _at(self, t: Scalar, x: Points) -> tuple[Complex[Array, " M"], Complex[Array, "M d"]]:
        """ψ and its gradient at many points."""
        if self._is_known() and is_concrete(t):
            with jax.ensure_compile_time_eval():
                table = self.fourier.table(self._psi(t))
        else:
            table = self.fourier.table(self._psi(t))
        return self.fourier.evaluate(table, x)

    def _log_gradient(self, t: Scalar, x: Vector) -> Complex[Array, " d"]:
        psi, gradient = self._at(t, x[None])
        return log_gradient(psi[0], gradient[0])

    def _at_saved_times(self, function: Any, *given: Array) -> Any:
        """`function(t, ψ, *given)` at all saved times, with one axis of length K in front."""
        prepared: Any = function
        if not isinstance(function, eqx.Module):
            first = (self.ts[0], self.snapshots[0], *(array[0] for array in given))
            # Closed-over values become arguments, so it compiles once, and traced values are visible.
            prepared = eqx.filter_closure_convert(function, *first)
        if not (self._is_known() and is_concrete((prepared, given))):
            return _at_traced_times(self, prepared, given)
        with jax.ensure_compile_time_eval():
            states = enumerate(self._known_states())
            values = [
                _call(prepared, jnp.asarray(t, self.ts.dtype), psi, *(array[k] for array in given))
                for k, (t, psi) in states
            ]
            return jax.tree.map(lambda *leaves: jnp.stack(leaves), *values)

    def _slots(self) -> list[int]:
        """The index of the snapshot at each saved time, or -1."""
        count, first = self.ts.size, 0 if self.stepping.saves_start else 1
        kept = kept_times(count + first, self.stepping.memory, self.fourier, self.ts.dtype)
        slots = {index - first: slot for slot, index in enumerate(kept)}
        return [slots.get(k, -1) for k in range(count)]

    def _known_states(self) -> Iterator[tuple[float, Complex[Array, "..."]]]:
        """ψ at each saved time in turn, none propagated twice."""
        wave, operators = self._wave_function(), None
        now, psi = float(self.snapshot_times[0]), jnp.copy(self.snapshots[0])
        for t, slot in zip(np.asarray(self.ts, float).tolist(), self._slots(), strict=True):
            if slot >= 0:
                psi = jax.lax.dynamic_index_in_dim(self.snapshots, jnp.asarray(slot), keepdims=False)
            elif t > now:
                psi, operators = wave.between_known(psi, now, t, operators)
            now = t
            yield t, psi


@eqx.filter_jit
def _call(function: Callable[..., PyTree], *arguments: Array) -> PyTree:
    return function(*arguments)


@eqx.filter_jit
def _psi(solution: GridSolution, t: Scalar) -> Complex[Array, "..."]:
    return solution._wave_function().at(t)


@eqx.filter_jit
def _at_traced_times(
    solution: GridSolution, function: Callable[..., PyTree], given: tuple[Array, ...]
) -> PyTree:
    wave, slots = solution._wave_function(), solution._slots()
    earlier = jnp.concatenate([solution.snapshot_times[:1], solution.ts[:-1]])

    def until(psi: Array, here: Any) -> tuple[Array, PyTree]:
        start, t, slot, rest = here
        kept = jax.lax.dynamic_index_in_dim(wave.snapshots, jnp.maximum(slot, 0), keepdims=False)
        if min(slots) >= 0:
            psi = kept
        else:
            psi = jax.lax.cond(slot >= 0, lambda: kept, lambda: wave.between(psi, start, t))
        return psi, function(t, psi, *rest)

    xs = (earlier, solution.ts, jnp.asarray(slots), given)
    return jax.lax.scan(until, solution.snapshots[0], xs)[1]
