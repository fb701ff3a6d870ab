"""A wave function that is a Gaussian at all times."""

import math

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import jax.scipy.linalg as jsl
import numpy as np
from jaxtyping import Array, Complex, Float

from ..._check import as_key, as_positive_integer, require
from ..._types import Key, Matrix, Scalar, Time, Times, Vector
from ...problem import Problem
from ...score import GaussianScore, MovingGaussian, cubic_path
from ...solution.solution import Solution, place
from ...wavepacket import GaussHermitePoints, GaussianWavePacket, SobolPoints

# For the part of the potential that its expansion to second order leaves out.
_MOST_QUADRATURE_POINTS = 20_000


class PacketState(eqx.Module):
    """One half, positions or momenta, of what is integrated. Both have the same shapes.

    `centre` is $q$ or $p$; `real` and `imaginary` are parts of $Q$ or $P$; `flow` is the Bohmian $F$ or
    $m \\dot F$; `action` is what kinetic or potential energy contributes to the phase of the centre.
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


class GaussianSolution(Solution):
    r"""A Gaussian wave packet that moves, spreads and turns: what
    [`GaussianDynamics`][bohmdiff.GaussianDynamics] returns.

    ```python
    solution = bd.solve(problem, bd.GaussianDynamics())
    solution.covariance()[-1], solution.velocity(0.5, x)
    ```

    Everything can be evaluated at any time in $[t_0, t_1]$, not only the saved ones, under `jax.jit`,
    `jax.vmap` and derivatives in `t` and `x`. Derivatives in parameters of the problem are reverse-mode.

    **Raises:** `ValueError`, or an error at run time under `jax.jit`, for times outside of $[t_0, t_1]$.
    """

    problem: Problem
    method: eqx.Module
    ts: Times
    interpolation: diffrax.DenseInterpolation

    def mean(self) -> Float[Array, "K d"]:
        return self._saved().mean

    def covariance(self) -> Float[Array, "K d d"]:
        """Of the density at the saved times, shape `(K, d, d)`."""
        return self._saved().covariance

    def std(self) -> Float[Array, "K d"]:
        return jnp.sqrt(jnp.diagonal(self._saved().covariance, axis1=1, axis2=2))

    def energy(self) -> Times:
        r"""$\langle H \rangle$ at the saved times, shape `(K,)`, under the full potential, not only its
        expansion about the centre.

        What the expansion leaves out is integrated by Gauss–Hermite quadrature with up to 20 nodes per
        coordinate and 20,000 in all, in ten dimensions and more by 16,384 Sobol points.
        """
        return _energies(self)

    def sample(self, key: Key, n: int) -> Float[Array, "n K d"]:
        """`n` Bohmian trajectories, shape `(n, K, d)`: the flow of a Gaussian is affine."""
        n = as_positive_integer(n, "n", "Pass how many trajectories.")
        initial, packets = self._initial, self._saved()
        normal = jax.random.normal(as_key(key), (n, self.problem.dimension), self.problem.dtype)
        start = normal @ jnp.linalg.cholesky(initial.covariance).T
        return packets.mean + jnp.einsum("kij,nj->nki", packets.flow, start)

    def score(self, t: Time, x: Vector) -> Vector:
        t, x = place(self.problem, t, x)
        packet = self._at(t)
        return -_solve(packet.covariance, x - packet.mean)

    def log_density(self, t: Time, x: Vector) -> Scalar:
        t, x = place(self.problem, t, x)
        packet = self._at(t)
        return _log_normal(packet, x - packet.mean)

    def wave_function(self, t: Time, x: Vector) -> Complex[Array, ""]:
        t, x = place(self.problem, t, x)
        packet = self._at(t)
        y = x - packet.mean
        phase = 0.5 * y @ packet.chirp @ y + packet.momentum @ y + packet.action
        return jnp.exp(0.5 * _log_normal(packet, y) + 1j * phase / self.problem.hamiltonian.hbar)

    def velocity(self, t: Time, x: Vector) -> Vector:
        r"""The Bohmian velocity $\nabla S / m$ at one point, shape `(d,)`."""
        t, x = place(self.problem, t, x)
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
        t0, t1 = self.interpolation.t0, self.interpolation.t1
        slack = 4 * np.finfo(self.problem.dtype).eps * jnp.maximum(jnp.abs(t0), jnp.abs(t1))
        t = require(
            t,
            (t >= t0 - slack) & (t <= t1 + slack),
            "A GaussianSolution was evaluated at a time outside of the [t0, t1] of its problem.",
        )
        # Not jnp.clip, which halves derivatives in t at t0 and t1.
        t = jnp.where(t < t0, t0, jnp.where(t > t1, t1, t))
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
    ts = solution.interpolation.ts

    def gaussian(t: Scalar) -> MovingGaussian:
        packet = solution._at(t)
        return MovingGaussian(packet.mean, jnp.linalg.inv(packet.covariance))

    values, rates = jax.vmap(lambda t: jax.jvp(gaussian, (t,), (jnp.ones_like(t),)))(ts)
    return GaussianScore(cubic_path(ts, values, rates))


def _solve(covariance: Matrix, y: Vector) -> Vector:
    return jsl.cho_solve((jnp.linalg.cholesky(covariance), True), y)


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

    # Time by time: all at once would hold the potential's intermediates at millions of points.
    return jax.lax.map(lambda at: energy(*at), (solution.ts, solution._saved()))


def _quadrature(dimension: int):
    per_axis = min(20, int(_MOST_QUADRATURE_POINTS ** (1 / dimension) + 1e-9))
    if per_axis >= 3:
        return GaussHermitePoints(per_axis, discard=0.0)(dimension)
    with jax.ensure_compile_time_eval():
        return SobolPoints(16_384)(dimension, jax.random.key(0))
