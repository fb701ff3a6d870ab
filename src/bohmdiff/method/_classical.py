"""Classical particles that begin like ψ0: where they go, and how fast they become."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array

from .._types import Key, Points, Scalar, Times, Vector, Weights
from ..problem import Problem
from ..wavepacket import SobolPoints

# Particles, steps of their paths, and the share of them that is looked at: the others may run away.
_PARTICLES = 256
_STEPS = 2048
_SHARE = 0.98


def particles(problem: Problem) -> tuple[Points, Weights]:
    return problem.initial.particles(SobolPoints(_PARTICLES), _key(0))


def _key(seed: int) -> Key:
    """A key that is known inside a transformation too."""
    with jax.ensure_compile_time_eval():
        return jax.random.key(seed)


def extent(problem: Problem) -> tuple[Vector, Vector, Vector]:
    """The ends of all positions, and the largest momentum, along each coordinate."""
    points, weights = particles(problem)
    return _extent(problem, points, _momenta(problem, points, weights))


def _momenta(problem: Problem, points: Points, weights: Weights) -> Points:
    """Momenta of ψ0 at these positions: beyond ∇S0, those of the Wigner function are as wide as those of ψ0."""
    osmotic = 0.5 * problem.hamiltonian.hbar * jax.vmap(problem.initial.score)(points)
    width = jnp.sqrt(weights @ osmotic**2)
    normal = jnp.asarray(SobolPoints(_PARTICLES)(problem.dimension, _key(1))[0], points.dtype)
    return jax.vmap(jax.grad(problem.initial.phase))(points) + width[None] * normal


@eqx.filter_jit
def _extent(problem: Problem, points: Points, momenta: Points) -> tuple[Vector, Vector, Vector]:
    """The ends of all positions, and the largest momentum, along each coordinate."""
    masses = problem.hamiltonian.masses(problem.dimension)
    force = jax.vmap(jax.grad(problem.hamiltonian.potential, argnums=1), in_axes=(None, 0))
    dt = (problem.t1 - problem.t0) / _STEPS

    def step(state: tuple[Array, ...], n: Scalar) -> tuple[tuple[Array, ...], None]:
        x, p, low, high, fastest = state
        t = problem.t0 + (n + 0.5) * dt
        x = x + 0.5 * dt * p / masses[None]
        p = p - dt * force(t, x)
        x = x + 0.5 * dt * p / masses[None]
        ends = jnp.minimum(low, x), jnp.maximum(high, x), jnp.maximum(fastest, jnp.abs(p))
        return (x, p, *ends), None

    start = (points, momenta, points, points, jnp.abs(momenta))
    steps: Times = jnp.arange(_STEPS, dtype=points.dtype)
    ends = jax.lax.scan(step, start, steps)[0][2:]
    # Those that a singularity throws out are the farthest.
    infinities = (-jnp.inf, jnp.inf, jnp.inf)
    low, high, fastest = (
        jnp.where(jnp.isfinite(end), end, infinity) for end, infinity in zip(ends, infinities, strict=True)
    )
    return (
        jnp.quantile(low, 1 - _SHARE, axis=0, method="higher"),
        jnp.quantile(high, _SHARE, axis=0, method="lower"),
        jnp.quantile(fastest, _SHARE, axis=0, method="lower"),
    )
