"""A Gaussian in a driven quadratic potential in closed form, written without the library's own dynamics."""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from scipy.integrate import solve_ivp

from .._types import Numbers, Scalar, Time, Times, Vector
from ..hamiltonian import Hamiltonian, Quadratic
from ..problem import Problem
from ..score import AbstractGradientScore
from ..wavepacket import GaussHermitePoints, GaussianWavePacket


class Moments(NamedTuple):
    """Exact means and standard deviations, shape `(K, d)`, and mean energies, `(K,)`.

    ```python
    case = bohmdiff.testing.DrivenGaussian(
        mass=[1.0],
        hbar=1.0,
        stiffness=[[1.0]],
        centre=[0.0],
        drive=[0.3],
        frequency=6.0,
        mean=[1.0],
        covariance=[[0.5]],
        momentum=[0.0],
        chirp=[[0.0]],
    )
    case.moments(jnp.array([0.0, 0.5])).std
    ```
    """

    mean: Float[Array, "K d"]
    std: Float[Array, "K d"]
    energy: Times


class Integrals(NamedTuple):
    """The deformation gradient, shape `(d, d)`, and the phase at the centre."""

    deformation: np.ndarray
    phase_at_centre: float


class DrivenGaussian(AbstractGradientScore):
    r"""A Gaussian wave packet in $V = \tfrac12 (x-c)^\top K (x-c) + \cos(\omega t)\, b\cdot x$, with everything
    in closed form: a problem with a known solution, and its exact score as `case(t, x)`.

    In normal modes the centre is a driven oscillator. The columns of the complex matrices $Q$, $P$ of the width
    $A = P Q^{-1}$ are oscillators without a drive. Nothing here uses the library's own dynamics.

    ```python
    case = bohmdiff.testing.DrivenGaussian(
        mass=[1.0, 2.0],
        hbar=0.7,
        stiffness=[[1.0, 0.2], [0.2, -0.5]],
        centre=[0.0, 0.1],
        drive=[0.3, 0.0],
        frequency=6.0,
        mean=[1.0, 0.0],
        covariance=[[0.5, 0.1], [0.1, 0.4]],
        momentum=[0.0, 1.0],
        chirp=[[0.1, 0.0], [0.0, -0.2]],
    )
    solution = bd.solve(case.problem(), bd.GaussianDynamics())
    case.moments(solution.ts).std - solution.std()
    ```

    **Arguments:**

    - `mass`: $m$, shape `(d,)`, positive; `hbar`: a positive number.
    - `stiffness`: $K$, symmetric, shape `(d, d)`, of either sign; `centre`: $c$, shape `(d,)`.
    - `drive`, `frequency`: $b$, shape `(d,)`, and $\omega$, off resonance: $\omega^2$ must not be an eigenvalue
        of $m^{-1} K$.
    - `mean`, `covariance`, `momentum`, `chirp`: parameters of the packet, as in
        [`GaussianWavePacket`][bohmdiff.GaussianWavePacket].
    - `t1`: the end of the span, which starts at 0.

    **Raises:** nothing itself; `problem()` raises the errors of `Problem` and its parts.
    """

    mass: Float[Array, " d"] = eqx.field(converter=jnp.asarray)
    hbar: Scalar = eqx.field(converter=jnp.asarray)
    stiffness: Float[Array, "d d"] = eqx.field(converter=jnp.asarray)
    centre: Float[Array, " d"] = eqx.field(converter=jnp.asarray)
    drive: Float[Array, " d"] = eqx.field(converter=jnp.asarray)
    frequency: Scalar = eqx.field(converter=jnp.asarray)
    mean: Float[Array, " d"] = eqx.field(converter=jnp.asarray)
    covariance: Float[Array, "d d"] = eqx.field(converter=jnp.asarray)
    momentum: Float[Array, " d"] = eqx.field(converter=jnp.asarray)
    chirp: Float[Array, "d d"] = eqx.field(converter=jnp.asarray)
    t1: Scalar = eqx.field(default=1.0, converter=jnp.asarray)

    def problem(self) -> Problem:
        """The problem to solve."""
        potential = Quadratic(self.stiffness, self.centre, _Drive(self.drive, self.frequency))
        initial = GaussianWavePacket(self.mean, self.covariance, self.momentum, self.chirp)
        return Problem(Hamiltonian(potential, self.mass, self.hbar), initial, t1=self.t1)

    def _modes(self):
        """Normal modes: squared frequencies λ, and the matrix R with x = R y, Rᵀ m R = 1."""
        root = jnp.sqrt(self.mass)
        squared, vectors = jnp.linalg.eigh(self.stiffness / jnp.outer(root, root))
        return squared, vectors / root[:, None]

    def centre_at(self, t: Time) -> tuple[Vector, Vector]:
        """q and p: the free motion, plus the response to the drive at its own frequency."""
        squared, r = self._modes()
        w = self.frequency
        c, s = _cosine_and_sine(squared, t)
        force = r.T @ self.drive / (w**2 - squared)
        y0 = r.T @ (self.mass * (self.mean - self.centre)) - force
        rate0 = r.T @ self.momentum
        q = self.centre + r @ (c * y0 + s * rate0 + force * jnp.cos(w * t))
        p = self.mass * (r @ (-squared * s * y0 + c * rate0 - w * force * jnp.sin(w * t)))
        return q, p

    def width_at(self, t):
        """The complex matrices Q and P."""
        squared, r = self._modes()
        c, s = _cosine_and_sine(squared, t)
        a0 = self.chirp + 0.5j * self.hbar * jnp.linalg.inv(self.covariance)
        y0, rate0 = r.T @ jnp.diag(self.mass) + 0j, r.T @ a0
        big_q = r @ (c[:, None] * y0 + s[:, None] * rate0)
        big_p = self.mass[:, None] * (r @ ((-squared * s)[:, None] * y0 + c[:, None] * rate0))
        return big_q, big_p

    def covariance_at(self, t: Time) -> Float[Array, "d d"]:
        """The covariance of the density at one time."""
        big_q, _ = self.width_at(t)
        return (big_q @ self.covariance @ big_q.conj().T).real

    def real_width_at(self, t):
        """Re A, with A = P Q⁻¹."""
        big_q, big_p = self.width_at(t)
        return (big_p @ jnp.linalg.inv(big_q)).real

    def __call__(self, t: Time, x: Vector) -> Vector:
        """The exact score."""
        q, _ = self.centre_at(t)
        return -jnp.linalg.solve(self.covariance_at(t), x - q)

    def velocity(self, t: Time, x: Vector) -> Vector:
        r"""$\nabla S / m$."""
        q, p = self.centre_at(t)
        return (p + self.real_width_at(t) @ (x - q)) / self.mass

    def log_density(self, t: Time, x: Vector) -> Scalar:
        r"""$\ln\rho$, normalised."""
        q, _ = self.centre_at(t)
        _, log_determinant = jnp.linalg.slogdet(2 * jnp.pi * self.covariance_at(t))
        return -0.5 * log_determinant + 0.5 * (x - q) @ self(t, x)

    def potential(self, t: Time, x: Vector) -> Scalar:
        """The potential V."""
        y = x - self.centre
        return 0.5 * y @ self.stiffness @ y + jnp.cos(self.frequency * t) * self.drive @ x

    def energy(self, t: Time, x: Vector) -> Scalar:
        r"""$\sum_i \tfrac12 m_i v_i^2 + V + Q$ of a particle, with the exact Q of a Gaussian."""
        precision = jnp.linalg.inv(self.covariance_at(t))
        quantum = 0.25 * self.hbar**2 * jnp.sum((jnp.diag(precision) - 0.5 * self(t, x) ** 2) / self.mass)
        return 0.5 * jnp.sum(self.mass * self.velocity(t, x) ** 2) + self.potential(t, x) + quantum

    def moments(self, ts: Numbers) -> Moments:
        """The exact moments at times `ts`, shape `(K,)`."""
        return _moments(self, jnp.asarray(ts))

    def integrals(self, t: float) -> Integrals:
        """The deformation gradient and the phase at the centre, integrated with a tolerance of 1e-11.

        Neither has a closed form in more than one dimension: the polar factor of the former depends on the path.
        """
        d = self.mean.shape[0]
        mass, hbar = np.asarray(self.mass), float(self.hbar)

        def rate(time, y):
            p, width, trace, v = (np.asarray(part) for part in _ingredients(self, jnp.asarray(time)))
            deformation = (width / mass[:, None]) @ y[:-1].reshape(d, d)
            # γ' = ½ p m⁻¹ p − V + (iħ/2) tr(m⁻¹A); its real part is the phase. Im A = (ħ/2) Σ⁻¹.
            phase = 0.5 * np.sum(p**2 / mass) - v - 0.25 * hbar**2 * trace
            return np.append(deformation.ravel(), phase)

        y0 = np.append(np.eye(d).ravel(), 0.0)
        y = solve_ivp(rate, (0.0, t), y0, method="DOP853", rtol=1e-11, atol=1e-11).y[:, -1]
        return Integrals(y[:-1].reshape(d, d), y[-1])

    def phase(self, t: Time, x: Vector, phase_at_centre: Time) -> Scalar:
        """S(t, x), from the phase at the centre."""
        q, p = self.centre_at(t)
        y = x - q
        return 0.5 * y @ self.real_width_at(t) @ y + p @ y + phase_at_centre


class _Drive(eqx.Module):
    strength: Float[Array, " d"]
    frequency: Scalar

    def __call__(self, t: Time) -> Array:
        return self.strength * jnp.cos(self.frequency * t)


def _cosine_and_sine(squared: Array, t: Time) -> tuple[Array, Array]:
    """cos(wt) and sin(wt)/w as functions of w², of either sign or zero."""
    w = jnp.sqrt(squared + 0j)
    small = jnp.abs(squared) * t**2 < 1e-3
    z = squared * t**2
    series = t * (1 - z / 6 + z**2 / 120 - z**3 / 5040)
    sine = jnp.where(small, series, (jnp.sin(w * t) / jnp.where(small, 1, w)).real)
    return jnp.cos(w * t).real, sine


@eqx.filter_jit
def _moments(case: DrivenGaussian, ts: Times) -> Moments:
    # The energy of a Gaussian is quadratic, so a few nodes are exact.
    nodes, weights = GaussHermitePoints(3, discard=0.0)(case.mean.shape[0])

    def at(t: Time) -> Moments:
        centre, _ = case.centre_at(t)
        covariance = case.covariance_at(t)
        x = centre + jnp.asarray(nodes) @ jnp.linalg.cholesky(covariance).T
        energy = jnp.asarray(weights) @ jax.vmap(lambda y: case.energy(t, y))(x)
        return Moments(centre, jnp.sqrt(jnp.diag(covariance)), energy)

    return jax.vmap(at)(ts)


@eqx.filter_jit
def _ingredients(case: DrivenGaussian, t: Time) -> tuple[Array, ...]:
    q, p = case.centre_at(t)
    trace = jnp.sum(jnp.diag(jnp.linalg.inv(case.covariance_at(t))) / case.mass)
    return p, case.real_width_at(t), trace, case.potential(t, q)
