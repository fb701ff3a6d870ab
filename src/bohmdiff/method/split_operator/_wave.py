"""ψ on a grid at any time, propagated from snapshots."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Complex, DTypeLike, Float

from ..._types import Scalar, Time, Vector
from ._fourier import FourierGrid
from ._propagator import Operators, Propagator, advance, advance_traced, steps_between, traced_steps
from .absorber import ComplexAbsorber


def kept_times(count: int, memory: float, grid: FourierGrid, dtype: DTypeLike) -> tuple[int, ...]:
    """The indices of those of `count` times whose ψ fit into `memory`: evenly spread, from the first."""
    number = int(min(max(memory // (2 * jnp.dtype(dtype).itemsize * grid.size), 1), count))
    return tuple(np.unique(np.round(np.linspace(0, count - 1, number)).astype(int)).tolist())


class Stepping(eqx.Module):
    """How ψ is propagated to times without a snapshot.

    - `order`, `steps`, `memory`: the options of the method; `memory` is for snapshots.
    - `most`: the largest number of steps from one snapshot to the next, or to t1.
    - `saves_start`: whether the first saved time is t0.
    - `absorber`: that of the method.
    """

    order: int = eqx.field(static=True)
    steps: int = eqx.field(static=True)
    memory: float | int = eqx.field(static=True)
    most: int = eqx.field(static=True)
    saves_start: bool = eqx.field(static=True)
    absorber: ComplexAbsorber | None


class WaveFunction(eqx.Module):
    """ψ at some times, and the steps from each of them to any later time.

    `most` is the largest number of steps from one of the times to the next, or to the end; `most_in_all` is
    that from the first time to the end.
    """

    propagator: Propagator
    snapshots: Complex[Array, "S ..."]
    times: Float[Array, " S"]
    largest_step: Scalar
    most: int = eqx.field(static=True)
    most_in_all: int = eqx.field(static=True)

    def at(self, t: Scalar) -> Complex[Array, "..."]:
        """ψ at a time that may be traced."""
        i = jnp.clip(jnp.searchsorted(self.times, t, side="right") - 1, 0)
        psi = jax.lax.dynamic_index_in_dim(self.snapshots, i, keepdims=False)
        return self.between(psi, self.times[i], t)

    def between(self, psi: Complex[Array, "..."], start: Scalar, end: Scalar) -> Complex[Array, "..."]:
        """ψ at `end` from ψ at `start`."""
        steps = traced_steps(start, end, self.largest_step, self.most)
        return advance_traced(self.propagator, psi, start, end, steps, self.most)

    def at_known(self, t: float) -> Complex[Array, "..."]:
        """ψ at a concrete time, with concrete values only."""
        times = np.asarray(self.times, float)
        i = max(int(np.searchsorted(times, t, side="right")) - 1, 0)
        psi = jax.lax.dynamic_index_in_dim(self.snapshots, jnp.asarray(i), keepdims=False)
        if times[i] == t:
            return psi
        return self.between_known(psi, float(times[i]), t)[0]

    def between_known(
        self, psi: Complex[Array, "..."], start: float, end: float, operators: Operators | None = None
    ) -> tuple[Complex[Array, "..."], Operators]:
        """ψ at `end` from ψ at `start`, whose memory is reused, and the operators that were needed."""
        steps = steps_between(start, end, float(self.largest_step))
        return advance(self.propagator, psi, start, end, steps, operators)

    @eqx.filter_jit
    def denser(self, end: Scalar, count: int) -> "WaveFunction":
        """The same ψ kept at `count` equally spaced times, from the first one to `end`."""
        start = self.times[0]
        most = max(1, -(-self.most_in_all // (count - 1)))
        times = start + (end - start) * jnp.arange(count, dtype=start.dtype) / (count - 1)

        def until(psi, ends):
            psi = advance_traced(self.propagator, psi, ends[0], ends[1], jnp.asarray(most), most)
            return psi, psi

        _, later = jax.lax.scan(until, self.snapshots[0], (times[:-1], times[1:]))
        snapshots = jnp.concatenate([self.snapshots[:1], later])
        return WaveFunction(self.propagator, snapshots, times, self.largest_step, most, self.most_in_all)

    def log_gradient(self, t: Scalar, x: Vector) -> Complex[Array, " d"]:
        r"""$\nabla\psi/\psi$ at one point."""
        grid = self.propagator.grid
        psi, gradient = grid.evaluate(grid.table(self.at(t)), x[None])
        return log_gradient(psi[0], gradient[0])


class Current(eqx.Module):
    """The Bohmian velocity as a function of time and place."""

    psi: WaveFunction

    def __call__(self, t: Time, x: Vector) -> Vector:
        propagator = self.psi.propagator
        t = jnp.asarray(t, self.psi.times.dtype)
        return propagator.hbar / propagator.masses * self.psi.log_gradient(t, x).imag


def log_gradient(psi: Complex[Array, ""], gradient: Complex[Array, " d"]) -> Complex[Array, " d"]:
    r"""$\nabla\psi/\psi$, or zero where $|\psi|^2$ is below the smallest normal number."""
    density = psi.real**2 + psi.imag**2
    # NaN does not count as nothing, because it must not become zero.
    nothing = density < jnp.finfo(density.dtype).tiny
    # 0 / 1 instead of 0 / 0, so that derivatives are finite too.
    return jnp.where(
        nothing, 0, jnp.conj(psi) * gradient / jnp.where(nothing, 1, density).astype(psi.dtype)
    )
