"""The wave function itself, on a Fourier grid."""

from bisect import bisect_right
from collections.abc import Iterator
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Complex, Float

from ..._check import as_float, as_key, as_positive_integer, as_real_array, describe, is_concrete
from ..._types import Key, Numbers, Points, Scalar, Time, Times, Vector
from ...problem import Problem
from ...solution.solution import Solution
from ._fourier import FourierGrid
from ._sampling import invert_distribution, sample_density
from .tabulated import Propagates, TabulatedWaveFunction, log_gradient, tabulate


class _Last:
    """The last wave function that was evaluated between the points, ready for the next call."""

    source: Any = None
    t: float = 0.0
    table: Any = None


class Moments(eqx.Module):
    """What is recorded at a saved time, or at all of them."""

    norm: Float[Array, "*K"]
    mean: Float[Array, "*K d"]
    std: Float[Array, "*K d"]
    energy: Float[Array, "*K"]


class GridSolution(Solution):
    r"""ψ on a periodic Fourier grid: what [`SplitOperator`][bohmdiff.SplitOperator] returns.

    ```python
    exact = bd.solve(problem, bd.SplitOperator(points=44, lower=-5.5, upper=7.5))
    exact.log_density(1.0, x), jax.vmap(lambda x: exact.score(1.0, x))(x0)
    ```

    Between the grid points ψ is its trigonometric interpolant, so that nothing is lost there; outside
    the box it is zero. Between the times that are kept it is propagated from the one before, by the
    steps of the method. So `t` must be a number, not traced: close over it, and `vmap` or `jit` over `x`; or take
    what `tabulated` returns.

    `score`, `velocity` and `log_density` are always finite. Where $|\psi|^2$ is below the smallest normal
    number (at a node, outside the box) they return 0, 0 and the logarithm of that number. Rounding
    leaves about `1e-15` (`1e-6` in single precision) of the largest $|\psi|$ everywhere: far out in the
    tails, where $|\psi|$ itself is smaller, the three are noise.

    Moments, energy and norm are known at all saved times. Wave functions are kept at as many of them as
    fit into the `snapshot_memory` of the method; the others are propagated again when asked for.
    """

    problem: Problem
    method: eqx.Module
    ts: Times
    fourier: FourierGrid
    moments: Moments
    snapshots: tuple[Array, ...]
    snapshot_times: tuple[float, ...] = eqx.field(static=True)
    end: float = eqx.field(static=True)
    propagator: Propagates
    _last: _Last = eqx.field(static=True, default_factory=_Last)

    def mean(self) -> Float[Array, "K d"]:
        return self.moments.mean

    def std(self) -> Float[Array, "K d"]:
        return self.moments.std

    def energy(self) -> Times:
        return self.moments.energy

    def norm(self) -> Times:
        r"""$\int|\psi|^2$ at the saved times, shape `(K,)`; one but for rounding."""
        return self.moments.norm

    @property
    def norm_drift(self) -> float:
        """The largest change of the norm since the first saved time: rounding."""
        return float(jnp.max(jnp.abs(self.moments.norm - self.moments.norm[0])))

    @property
    def energy_drift(self) -> float:
        r"""The largest change of $\langle H\rangle$ since the first saved time, in units of energy.

        If V does not depend on time, this measures the error of the steps.
        """
        return float(jnp.max(jnp.abs(self.moments.energy - self.moments.energy[0])))

    def __repr__(self) -> str:
        grid = self.fourier
        axes = ", ".join(
            f"{n} on [{a:g}, {b:g})" for n, a, b in zip(grid.sizes, grid.lower, grid.upper, strict=True)
        )
        if not is_concrete(self.moments):
            return f"GridSolution(points {axes}; traced)"
        return (
            f"GridSolution(points {axes}; {self.ts.size} times in [{float(self.ts[0]):g}, "
            f"{float(self.ts[-1]):g}]; norm drift {self.norm_drift:.1e}; energy drift "
            f"{self.energy_drift:.1e}; "
            f"{len(self.snapshots)} wave functions kept)"
        )

    def grid(self) -> tuple[Float[Array, " n"], ...]:
        """The positions of the grid points along each coordinate."""
        return tuple(
            jnp.asarray(self.fourier.axis(i), self.ts.dtype) for i in range(self.fourier.dimension)
        )

    def wave_function_on_grid(self, t: Time) -> Complex[Array, "..."]:
        r"""$\psi(t)$ at the grid points, one axis per coordinate."""
        psi = self._psi(self._time(t))
        return jnp.copy(psi)

    def density_on_grid(self, t: Time) -> Float[Array, "..."]:
        r"""$\rho(t)$ at the grid points, one axis per coordinate."""
        psi = self._psi(self._time(t))
        return psi.real**2 + psi.imag**2

    def wave_function(self, t: Time, x: Vector) -> Complex[Array, ""]:
        return self._at(t, self._point(x)[None])[0][0]

    def log_density(self, t: Time, x: Vector) -> Scalar:
        psi = self.wave_function(t, x)
        return jnp.log(jnp.maximum(psi.real**2 + psi.imag**2, jnp.finfo(self.ts.dtype).tiny))

    def score(self, t: Time, x: Vector) -> Vector:
        return 2 * self._log_gradient(t, x).real

    def velocity(self, t: Time, x: Vector) -> Vector:
        r"""$v_i = (\hbar/m_i)\,\mathrm{Im}\,\partial_i\psi/\psi$ at one point, shape `(d,)`."""
        hamiltonian = self.problem.hamiltonian
        return hamiltonian.hbar / hamiltonian.masses(self.fourier.dimension) * self._log_gradient(t, x).imag

    def sample(self, key: Key, n: int) -> Float[Array, "n K d"]:
        r"""`n` draws from the density at every saved time, shape `(n, K, d)`.

        They are exact: a draw from the multilinear interpolant of $\rho$ is accepted with a probability
        proportional to the ratio of $\rho$ to that interpolant. Draws at different times are independent
        of each other, not trajectories.

        **Raises:** `ValueError` if `n` is not an integer of at least 1.
        """
        n = as_positive_integer(n, "n", "Pass how many draws are wanted at each time.")
        keys = jax.random.split(as_key(key), self.ts.size)
        draws = [
            sample_density(self.fourier, psi, k, n)
            for k, psi in zip(keys, self._at_saved_times(), strict=True)
        ]
        return jnp.stack(draws, axis=1)

    def tabulated(self) -> TabulatedWaveFunction:
        r"""Score and velocity at times that may be traced, as for solvers: ψ is propagated to many times, and
        interpolated between them.

        ```python
        exact = bd.solve(problem, bd.SplitOperator(points=32, lower=-5.5, upper=7.5))
        psi = exact.tabulated()
        against_time = jax.vmap(lambda t: psi.velocity(t, x))(exact.ts)
        ```

        **Raises:** `ValueError` if that takes more than 4 GiB, for a potential that jumps in time, and for a
        solution that is traced.
        """
        if not is_concrete(self.snapshots):
            raise ValueError(
                "A traced solution can't be propagated, as it must be to be tabulated. Close over the solution "
                "rather than passing it to jit, vmap or grad."
            )
        with jax.ensure_compile_time_eval():
            return tabulate(
                self.problem, self.fourier, self.propagator, self.snapshots[0], self.moments.energy[0]
            )

    def quantile_trajectories(self, levels: Numbers) -> Float[Array, "n K"]:
        r"""Exact Bohmian trajectories in one dimension, at the saved times, shape `(n, K)`.

        Trajectories in one dimension cannot cross, so that each keeps the probability to its left: it is
        a quantile of $\rho$. The distribution function is that of the interpolant, in closed form.

        ```python
        splitting = bd.Problem(bd.Hamiltonian(bd.DoubleWell()), bd.GaussianWavePacket([0.0], 0.25), t1=2.0)
        grid = bd.solve(splitting, bd.SplitOperator(points=128, lower=-6.0, upper=6.0))
        paths = grid.quantile_trajectories(jnp.linspace(0.05, 0.95, 19))
        bd.plot.density(grid, paths)
        ```

        **Arguments:**

        - `levels`: the probabilities to the left of each trajectory, strictly between 0 and 1, `(n,)`.

        **Raises:** `ValueError` for more than one coordinate, or levels that are not in (0, 1).
        """
        if self.fourier.dimension != 1:
            raise ValueError(
                f"Trajectories are quantiles in one dimension only, but the problem has "
                f"{self.fourier.dimension} coordinates. Use propagate(problem, solution.score, x0, ...)."
            )
        given = as_real_array(levels, "levels")
        if given.ndim != 1 or not is_concrete(given) or not bool(jnp.all((given > 0) & (given < 1))):
            raise ValueError(
                f"levels must have shape (n,) and lie strictly between 0 and 1, but {describe(levels)} was "
                "given."
            )
        wanted = np.asarray(given, float)
        paths = [
            invert_distribution(self.fourier, np.asarray(psi), wanted) for psi in self._at_saved_times()
        ]
        return jnp.asarray(np.stack(paths, axis=1), self.ts.dtype)

    def _point(self, x) -> Vector:
        x = (as_real_array(x, "x") if is_concrete(x) else x).astype(self.ts.dtype)
        if x.shape != (self.fourier.dimension,):
            raise ValueError(
                f"x must be one point of shape ({self.fourier.dimension},), but shape {x.shape} was "
                "given. For "
                "many points: jax.vmap(lambda x: solution.score(t, x))(xs)."
            )
        return x

    def _time(self, t: Time) -> float:
        if not is_concrete(t):
            raise ValueError(
                "t must be a number here, since ψ is propagated to it, but it is traced by jit, vmap or "
                "grad. "
                "Close over it: jax.vmap(lambda x: solution.score(1.0, x))(xs). Or take "
                "solution.tabulated().score."
            )
        time, start, end = as_float(t, "t"), self.snapshot_times[0], self.end
        slack = 4 * float(jnp.finfo(self.ts.dtype).eps) * max(abs(start), abs(end))
        if not start - slack <= time <= end + slack:
            raise ValueError(f"t must lie in [t0, t1] = [{start}, {end}], but {time} was given.")
        return min(max(time, start), end)

    def _psi(self, t: float) -> Complex[Array, "..."]:
        """ψ at time t; may be a snapshot itself."""
        i = bisect_right(self.snapshot_times, t) - 1
        if self.snapshot_times[i] == t:
            return self.snapshots[i]
        if not is_concrete(self.snapshots):
            raise ValueError(
                f"No wave function is kept at t = {t}, and a traced one cannot be propagated there. Close "
                "over the solution rather than passing it to jit: jax.jit(lambda x: solution.score(t, x))."
            )
        # What does not depend on a traced input is computed now, not made part of the user's program.
        with jax.ensure_compile_time_eval():
            return self.propagator.advance(jnp.copy(self.snapshots[i]), self.snapshot_times[i], t)[0]

    def _at_saved_times(self) -> Iterator[Complex[Array, "..."]]:
        """ψ at each saved time in turn, none propagated twice."""
        held, psi, operators = self.snapshot_times[0], jnp.copy(self.snapshots[0]), None
        for t in np.asarray(self.ts, float).tolist():
            i = bisect_right(self.snapshot_times, t) - 1
            if self.snapshot_times[i] > held:
                held, psi = self.snapshot_times[i], jnp.copy(self.snapshots[i])
            if t > held:
                psi, operators = self.propagator.advance(psi, held, t, operators)
                held = t
            yield psi

    def _at(self, t: Time, x: Points) -> tuple[Complex[Array, " M"], Complex[Array, "M d"]]:
        """ψ and its gradient at many points."""
        time = self._time(t)
        i = bisect_right(self.snapshot_times, time) - 1
        source, last = self.snapshots[i], self._last
        if last.source is source and last.t == time:
            return self.fourier.evaluate(last.table, x)
        if not is_concrete(source):
            return self.fourier.evaluate(self.fourier.table(self._psi(time)), x)
        with jax.ensure_compile_time_eval():
            last.table = self.fourier.table(self._psi(time))
        last.source, last.t = source, time
        return self.fourier.evaluate(last.table, x)

    def _log_gradient(self, t: Time, x: Vector) -> Complex[Array, " d"]:
        psi, gradient = self._at(t, self._point(x)[None])
        return log_gradient(psi[0], gradient[0])
