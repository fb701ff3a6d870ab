"""A Gaussian in a driven quadratic potential in closed form, written without the library's own dynamics.

V = ½ (x − c)ᵀ K (x − c) + cos(ωt) b·x. In normal modes the centre is a driven oscillator, and so are,
undriven, the columns of Q, P of the complex width A = P Q⁻¹.
What has no closed form in more than one dimension (F, whose polar factor depends on the path) and the
integrals of the action come from scipy at 1e-12.
"""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.integrate import solve_ivp

import bohmdiff as bd


class Drive(eqx.Module):
    strength: jax.Array
    frequency: jax.Array

    def __call__(self, t):
        return self.strength * jnp.cos(self.frequency * t)


class DrivenGaussian(eqx.Module):
    """Everything about one case, as arrays, so that cases of one dimension share their compilations."""

    mass: jax.Array
    hbar: jax.Array
    stiffness: jax.Array
    centre: jax.Array
    drive: Drive
    mean: jax.Array
    covariance: jax.Array
    momentum: jax.Array
    chirp: jax.Array
    t1: jax.Array

    def problem(self) -> bd.Problem:
        return bd.Problem(
            bd.Hamiltonian(bd.Quadratic(self.stiffness, self.centre, self.drive), self.mass, self.hbar),
            bd.GaussianWavePacket(self.mean, self.covariance, self.momentum, self.chirp),
            t1=self.t1,
        )

    def _modes(self):
        """Normal modes: squared frequencies λ, and the matrix R with x = R y, Rᵀ m R = 1."""
        root = jnp.sqrt(self.mass)
        squared, vectors = jnp.linalg.eigh(self.stiffness / jnp.outer(root, root))
        return squared, vectors / root[:, None]

    def centre_at(self, t):
        """q and p: the free motion, plus the response to the drive at its own frequency."""
        squared, r = self._modes()
        w = self.drive.frequency
        c, s = cosine_and_sine(squared, t)
        force = r.T @ self.drive.strength / (w**2 - squared)
        y0 = r.T @ (self.mass * (self.mean - self.centre)) - force
        rate0 = r.T @ self.momentum
        q = self.centre + r @ (c * y0 + s * rate0 + force * jnp.cos(w * t))
        p = self.mass * (r @ (-squared * s * y0 + c * rate0 - w * force * jnp.sin(w * t)))
        return q, p

    def width_at(self, t):
        """The complex matrices Q and P."""
        squared, r = self._modes()
        c, s = cosine_and_sine(squared, t)
        a0 = self.chirp + 0.5j * self.hbar * jnp.linalg.inv(self.covariance)
        y0, rate0 = r.T @ jnp.diag(self.mass) + 0j, r.T @ a0
        big_q = r @ (c[:, None] * y0 + s[:, None] * rate0)
        big_p = self.mass[:, None] * (r @ ((-squared * s)[:, None] * y0 + c[:, None] * rate0))
        return big_q, big_p

    def covariance_at(self, t):
        big_q, _ = self.width_at(t)
        return (big_q @ self.covariance @ big_q.conj().T).real

    def real_width_at(self, t):
        """Re A, with A = P Q⁻¹."""
        big_q, big_p = self.width_at(t)
        return (big_p @ jnp.linalg.inv(big_q)).real

    def __call__(self, t, x):
        """The exact score."""
        q, _ = self.centre_at(t)
        return -jnp.linalg.solve(self.covariance_at(t), x - q)

    def velocity(self, t, x):
        q, p = self.centre_at(t)
        return (p + self.real_width_at(t) @ (x - q)) / self.mass

    def log_density(self, t, x):
        q, _ = self.centre_at(t)
        _, log_determinant = jnp.linalg.slogdet(2 * jnp.pi * self.covariance_at(t))
        return -0.5 * log_determinant + 0.5 * (x - q) @ self(t, x)

    def potential(self, t, x):
        y = x - self.centre
        return 0.5 * y @ self.stiffness @ y + self.drive(t) @ x

    def energy(self, t, x):
        """½ m v² + V + Q with the exact Q of a Gaussian."""
        precision = jnp.linalg.inv(self.covariance_at(t))
        quantum = 0.25 * self.hbar**2 * jnp.sum((jnp.diag(precision) - 0.5 * self(t, x) ** 2) / self.mass)
        return 0.5 * jnp.sum(self.mass * self.velocity(t, x) ** 2) + self.potential(t, x) + quantum


def cosine_and_sine(squared, t):
    """cos(wt) and sin(wt)/w as functions of w², of either sign or zero."""
    w = jnp.sqrt(squared + 0j)
    small = jnp.abs(squared) * t**2 < 1e-3
    z = squared * t**2
    series = t * (1 - z / 6 + z**2 / 120 - z**3 / 5040)
    sine = jnp.where(small, series, (jnp.sin(w * t) / jnp.where(small, 1, w)).real)
    return jnp.cos(w * t).real, sine


@eqx.filter_jit
def exact_moments(case: DrivenGaussian, ts):
    """Mean, standard deviations and mean energy at times `ts`."""
    # The energy of a Gaussian is quadratic, so few nodes are exact.
    nodes, weights = bd.GaussHermitePoints(3, discard=0.0)(case.mean.shape[0])

    def at(t):
        centre, _ = case.centre_at(t)
        covariance = case.covariance_at(t)
        x = centre + nodes @ jnp.linalg.cholesky(covariance).T
        energy = weights @ jax.vmap(lambda y: case.energy(t, y))(x)
        return centre, jnp.sqrt(jnp.diag(covariance)), energy

    return jax.vmap(at)(ts)


class Integrals(NamedTuple):
    deformation: np.ndarray
    phase_at_centre: float


@eqx.filter_jit
def _ingredients(case: DrivenGaussian, t):
    q, p = case.centre_at(t)
    trace = jnp.sum(jnp.diag(jnp.linalg.inv(case.covariance_at(t))) / case.mass)
    return p, case.real_width_at(t), trace, case.potential(t, q)


def integrals(case: DrivenGaussian, t: float) -> Integrals:
    """F and the phase at the centre at time t, by quadrature at 1e-12."""
    d = case.mean.shape[0]
    mass, hbar = np.asarray(case.mass), float(case.hbar)

    def rate(time, y):
        p, width, trace, v = (np.asarray(part) for part in _ingredients(case, jnp.asarray(time)))
        deformation = (width / mass[:, None]) @ y[:-1].reshape(d, d)
        # γ' = ½ p m⁻¹ p − V + (iħ/2) tr(m⁻¹A), of which the real part is the phase; Im A = (ħ/2) Σ⁻¹.
        phase = 0.5 * np.sum(p**2 / mass) - v - 0.25 * hbar**2 * trace
        return np.append(deformation.ravel(), phase)

    y0 = np.append(np.eye(d).ravel(), 0.0)
    y = solve_ivp(rate, (0.0, t), y0, method="DOP853", rtol=1e-11, atol=1e-11).y[:, -1]
    return Integrals(y[:-1].reshape(d, d), y[-1])


@eqx.filter_jit
def phases(case: DrivenGaussian, t, x, phase_at_centre):
    """S(t, x) at points x, shape (M, d)."""
    q, p = case.centre_at(t)
    return (
        0.5 * jnp.einsum("mi,ij,mj->m", x - q, case.real_width_at(t), x - q) + (x - q) @ p + phase_at_centre
    )


def driven_gaussians(d: int) -> st.SearchStrategy[DrivenGaussian]:
    """Random masses, ħ, covariance, momentum, chirp, coupling, curvature of either sign, and drive."""

    def numbers(low, high, *shape):
        return arrays(float, shape, elements=st.floats(low, high))

    def build(mass, hbar, stiffness, centre, strength, frequency, mean, factor, momentum, chirp):
        return DrivenGaussian(
            mass=jnp.asarray(mass),
            hbar=jnp.asarray(hbar),
            stiffness=jnp.asarray(stiffness + stiffness.T),
            centre=jnp.asarray(centre),
            drive=Drive(jnp.asarray(strength), jnp.asarray(frequency)),
            mean=jnp.asarray(mean),
            covariance=jnp.asarray(0.3 * np.eye(d) + 0.3 * factor @ factor.T),
            momentum=jnp.asarray(momentum),
            chirp=jnp.asarray(chirp + chirp.T),
            t1=jnp.asarray(1.0),
        )

    return st.builds(
        build,
        mass=numbers(0.5, 3, d),
        hbar=st.floats(0.3, 1.5),
        stiffness=numbers(-1, 1, d, d),
        centre=numbers(-1, 1, d),
        strength=numbers(-1, 1, d),
        frequency=st.floats(5, 7),  # beyond every resonance
        mean=numbers(-1, 1, d),
        factor=numbers(-1, 1, d, d),
        momentum=numbers(-1, 1, d),
        chirp=numbers(-0.25, 0.25, d, d),
    )
