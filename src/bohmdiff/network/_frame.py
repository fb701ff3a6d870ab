"""Units of length, time and velocity in which a wave packet's motion is of order one."""

import jax
import jax.numpy as jnp

from .._types import Scalar, Time, Vector
from ..problem import Problem
from ..wavepacket import default_design
from .derivatives import pullback
from .frozen import AbstractFrozen

_NODES = 5


class SpreadingFrame(AbstractFrozen):
    r"""A frame that moves with the mean initial velocity and widens like a free packet, and a clock that runs
    logarithmically once the packet spreads.

    A free packet of width $\sigma_0$ spreads as $\sigma_0\sqrt{1 + (t/t_d)^2}$ with $t_d = 2m\sigma_0^2/\hbar$.
    While $t \ll t_d$ for all coordinates the frame keeps its width, and the clock is linear.
    """

    t0: Scalar
    t1: Scalar
    mean: Vector
    drift: Vector
    std: Vector
    dispersion_time: Vector
    osmotic_speed: Vector
    current_speed: Vector

    @staticmethod
    def of(problem: Problem) -> "SpreadingFrame":
        """The frame of a problem, from the moments of its initial state."""
        d, hamiltonian, initial = problem.dimension, problem.hamiltonian, problem.initial
        x, weights = initial.particles(default_design(d, _NODES), jax.random.key(0))
        mass = hamiltonian.masses(d)
        mean = weights @ x
        std = jnp.sqrt(weights @ (x - mean[None]) ** 2)
        velocity = jax.vmap(lambda y: initial.velocity(y, hamiltonian.mass))(x)
        start = jax.vmap(lambda y: _initial_acceleration(problem, y))(x)
        dispersion_time = 2 * mass * std**2 / hamiltonian.hbar
        osmotic_speed = 0.5 * hamiltonian.hbar / (mass * std)
        # The velocity that the initial force produces until the packet has spread, or until the end.
        lasts = jnp.minimum(problem.t1 - problem.t0, dispersion_time)
        speeds = [osmotic_speed, jnp.sqrt(weights @ velocity**2), lasts * jnp.sqrt(weights @ start**2)]
        return SpreadingFrame(
            problem.t0,
            problem.t1,
            mean,
            weights @ velocity,
            std,
            dispersion_time,
            osmotic_speed,
            jnp.max(jnp.stack(speeds), axis=0),
        )

    def std_at(self, t: Time) -> Vector:
        """The widths of the frame at time `t`."""
        return self.std * jnp.sqrt(1 + ((t - self.t0) / self.dispersion_time) ** 2)

    def inside(self, t: Time, x: Vector) -> Vector:
        """The coordinates of `x` in the frame, in units of its widths."""
        return (x - self.mean - self.drift * (t - self.t0)) / self.std_at(t)

    def clock(self, t: Time) -> Scalar:
        """The clock at time `t`, from 0 at `t0` to 1 at `t1`."""
        return jnp.arcsinh((t - self.t0) / self._shortest) / self._span

    def time_at(self, clock: Time) -> Scalar:
        """The time at which the clock reads `clock`."""
        return self.t0 + self._shortest * jnp.sinh(clock * self._span)

    def pace(self, t: Time) -> Scalar:
        """The time that passes while the clock runs from 0 to 1 at its rate at `t`."""
        return self._span * jnp.sqrt(self._shortest**2 + (t - self.t0) ** 2)

    @property
    def _shortest(self) -> Scalar:
        return jnp.min(self.dispersion_time)

    @property
    def _span(self) -> Scalar:
        return jnp.arcsinh((self.t1 - self.t0) / self._shortest)


def _initial_acceleration(problem: Problem, x: Vector) -> Vector:
    """The acceleration of a particle at `t0`, by the potential and the quantum force of the initial state."""
    hamiltonian = problem.hamiltonian
    initial = pullback(lambda t, y: problem.initial.score(y), problem.t0, x, 1 / hamiltonian.masses(x.size))
    classical = jax.grad(hamiltonian.potential, argnums=1)(problem.t0, x)
    return (initial.quantum_force(hamiltonian.hbar) - classical) / hamiltonian.mass
