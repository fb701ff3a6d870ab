"""A wave function that is a Gaussian at all times."""

import math
from collections.abc import Callable

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import jax.scipy.linalg as jsl
from jaxtyping import Array, Bool, Complex, Float, PyTree

from ..._precision import in_full_precision
from ..._types import Key, Matrix, Paths, Points, Scalar, Time, Times, Vector
from ...problem import Problem
from ...score import GaussianScore, MovingGaussian, cubic_path
from ...solution import (
    AbstractFitted,
    Diagnostics,
    Particles,
    Solution,
    WaveFunction,
    moved_draws,
    moved_measure,
    particle_average,
    particle_projection,
    wave_function_of,
)
from ...wavepacket import GaussHermitePoints, GaussianWavePacket, SobolPoints

# For the part of the potential beyond its expansion to second order.
_MOST_QUADRATURE_POINTS = 20_000


class PacketState(eqx.Module):
    """One half of the integrated state, positions or momenta; both have the same shapes.

    `centre` is $q$ or $p$; `real` and `imaginary` are parts of $Q$ or $P$; `flow` is the Bohmian $F$ or
    $m \\dot F$; `action` is the contribution of kinetic or potential energy to the phase of the centre.
    """

    centre: Vector
    real: Matrix
    imaginary: Matrix
    flow: Matrix
    action: Scalar

    def covariance(self, initial: Matrix) -> Matrix:
        r"""$Q\, C_0\, Q^\dagger$, which is real."""
        return self.correlation(self, initial)

    def correlation(self, other: "PacketState", initial: Matrix) -> Matrix:
        r"""The real part of $Q\, C_0\, Q'^\dagger$."""
        return self.real @ initial @ other.real.T + self.imaginary @ initial @ other.imaginary.T


class _Packet(eqx.Module):
    """The Gaussian at one time: moments of its density, and its phase about the centre."""

    mean: Vector
    momentum: Vector
    covariance: Matrix
    chirp: Matrix
    flow: Matrix
    action: Scalar


class GaussianSolution(Solution, AbstractFitted):
    r"""A Gaussian wave packet that moves, spreads and turns: what
    [`GaussianDynamics`][bohmdiff.GaussianDynamics] returns.

    ```python
    solution = bd.solve(problem, bd.GaussianDynamics())
    solution.covariance()[-1], solution.velocity(0.5, x)
    ```

    Derivatives with respect to parameters of the problem are reverse-mode.
    """

    problem: Problem
    method: eqx.Module
    ts: Times
    interpolation: diffrax.DenseInterpolation
    diagnostics: Diagnostics

    @in_full_precision
    def mean(self) -> Float[Array, "K d"]:
        return self._saved().mean

    @in_full_precision
    def covariance(self) -> Float[Array, "K d d"]:
        """The covariance of the density at the saved times, shape `(K, d, d)`."""
        return self._saved().covariance

    @in_full_precision
    def energy(self) -> Times:
        r"""$\langle H \rangle$ at the saved times, shape `(K,)`, under the full potential, not only its
        expansion about the centre.

        The remainder of the expansion is integrated by Gauss–Hermite quadrature with up to 20 nodes per
        coordinate and 20,000 in all, or by 16,384 Sobol points in ten dimensions and more.
        """
        return _energies(self)

    def move(self, x0: Points) -> Paths:
        packets = self._saved()
        start = x0 - self._initial.mean[None]
        return packets.mean[None] + jnp.einsum("kij,nj->nki", packets.flow, start)

    def average(self, f: Callable[[Scalar, Vector], PyTree]) -> PyTree:
        return particle_average(self._quadrature_particles(), self.ts, f)

    def measure(self, inside: Callable[[Vector], Bool[Array, ""]]) -> tuple[Times, Times]:
        return moved_measure(self, inside)

    def draw(self, key: Key, n: int) -> Float[Array, "n K d"]:
        return moved_draws(self, key, n)

    def project(self, psi: WaveFunction | Solution) -> Complex[Array, " K"]:
        particles = self._quadrature_particles()
        at_times = jax.vmap(jax.vmap(lambda packet, x: _phase(packet, x - packet.mean), in_axes=(None, 0)))
        density = jax.vmap(
            jax.vmap(lambda packet, x: _log_normal(packet, x - packet.mean), in_axes=(None, 0))
        )
        packets, position = self._saved(), jnp.moveaxis(particles.position, 1, 0)
        known = Particles(
            particles.position,
            particles.weights,
            density(packets, position).T,
            at_times(packets, position).T,
        )
        return particle_projection(self.problem, known, self.ts, wave_function_of(psi), left_out=0.0)

    def _quadrature_particles(self) -> Particles:
        """Nodes moved by the affine flow: a quadrature of the density at each time."""
        nodes, weights = (jnp.asarray(a, self.problem.dtype) for a in _quadrature(self.problem.dimension))
        packets = self._saved()
        cholesky = jnp.linalg.cholesky(packets.covariance)
        position = packets.mean[None] + jnp.einsum("kij,nj->nki", cholesky, nodes)
        return Particles(position, weights)

    def score_at(self, t: Scalar, x: Vector) -> Vector:
        packet = self._at(t)
        return -_solve(packet.covariance, x - packet.mean)

    def log_density_at(self, t: Scalar, x: Vector) -> Scalar:
        packet = self._at(t)
        return _log_normal(packet, x - packet.mean)

    def wave_function_at(self, t: Scalar, x: Vector) -> Complex[Array, ""]:
        packet = self._at(t)
        y = x - packet.mean
        phase = _phase(packet, y) / self.problem.hamiltonian.hbar
        return jnp.exp(jax.lax.complex(0.5 * _log_normal(packet, y), phase))

    def velocity_at(self, t: Scalar, x: Vector) -> Vector:
        packet = self._at(t)
        return (packet.momentum + packet.chirp @ (x - packet.mean)) / self.problem.hamiltonian.mass

    @property
    def fitted(self) -> GaussianScore:
        """The score alone, as a module that is cheap to evaluate and to differentiate many times."""
        return _fitted(self)

    @property
    def _initial(self) -> GaussianWavePacket:
        assert isinstance(self.problem.initial, GaussianWavePacket)
        return self.problem.initial

    def _at(self, t: Time) -> _Packet:
        t = jnp.asarray(t, self.problem.dtype)
        positions, momenta = self.interpolation.evaluate(t)
        initial = self._initial.covariance
        covariance = positions.covariance(initial)
        covariance = 0.5 * (covariance + covariance.T)
        # P C₀ Q† = A Q C₀ Q† = A C, and C is real.
        chirp = jnp.linalg.solve(covariance, positions.correlation(momenta, initial))
        return _Packet(
            mean=positions.centre,
            momentum=momenta.centre,
            covariance=covariance,
            chirp=0.5 * (chirp + chirp.T),
            flow=positions.flow,
            action=positions.action + momenta.action,
        )

    def _saved(self) -> _Packet:
        return jax.vmap(self._at)(self.ts)


@eqx.filter_jit
def _fitted(solution: GaussianSolution) -> GaussianScore:
    # Beyond the last step the interpolation has no times; its own goes on there, and nobody asks for it.
    room = solution.interpolation.ts.size
    step = solution.interpolation.ts[1] - solution.interpolation.ts[0]
    ts = solution.interpolation.ts[0] + step * jnp.arange(room, dtype=step.dtype)

    def gaussian(t: Scalar) -> MovingGaussian:
        packet = solution._at(t)
        return MovingGaussian(packet.mean, jnp.linalg.inv(packet.covariance))

    values, rates = jax.vmap(lambda t: jax.jvp(gaussian, (t,), (jnp.ones_like(t),)))(ts)
    return GaussianScore(cubic_path(ts, values, rates))


def _solve(covariance: Matrix, y: Vector) -> Vector:
    return jsl.cho_solve((jnp.linalg.cholesky(covariance), True), y)


def _phase(packet: _Packet, y: Vector) -> Scalar:
    return 0.5 * y @ packet.chirp @ y + packet.momentum @ y + packet.action


def _log_normal(packet: _Packet, y: Vector) -> Scalar:
    cholesky = jnp.linalg.cholesky(packet.covariance)
    z = jsl.solve_triangular(cholesky, y, lower=True)
    normaliser = jnp.sum(jnp.log(jnp.diag(cholesky))) + 0.5 * y.size * math.log(2 * math.pi)
    return -0.5 * jnp.sum(z**2) - normaliser


@eqx.filter_jit
def _energies(solution: GaussianSolution) -> Times:
    hamiltonian, dtype = solution.problem.hamiltonian, solution.problem.dtype
    nodes, weights = (jnp.asarray(a, dtype) for a in _quadrature(solution.problem.dimension))
    mass = hamiltonian.masses(solution.problem.dimension)

    def energy(t: Scalar, packet: _Packet) -> Scalar:
        q, p, covariance, chirp = packet.mean, packet.momentum, packet.covariance, packet.chirp

        def potential(x):
            return hamiltonian.potential(t, x)

        precision = jnp.linalg.inv(covariance)
        momentum_covariance = chirp @ covariance @ chirp + 0.25 * hamiltonian.hbar**2 * precision
        kinetic = 0.5 * jnp.sum((p**2 + jnp.diag(momentum_covariance)) / mass)
        value, gradient = jax.value_and_grad(potential)(q)
        curvature = jax.hessian(potential)(q)
        # Quadrature for the remainder only, so that it is zero, not small, for a quadratic potential.
        y = nodes @ jnp.linalg.cholesky(covariance).T
        remainder = jax.vmap(lambda y: potential(q + y) - value - gradient @ y - 0.5 * y @ curvature @ y)(y)
        return kinetic + value + 0.5 * jnp.sum(curvature * covariance) + weights @ remainder

    # One time after the other: all at once would hold the potential's intermediates at millions of points.
    return jax.lax.map(lambda at: energy(*at), (solution.ts, solution._saved()))


def _quadrature(dimension: int):
    per_axis = min(20, int(_MOST_QUADRATURE_POINTS ** (1 / dimension) + 1e-9))
    if per_axis >= 3:
        return GaussHermitePoints(per_axis, discard=0.0)(dimension)
    with jax.ensure_compile_time_eval():
        return SobolPoints(16_384)(dimension, jax.random.key(0))
