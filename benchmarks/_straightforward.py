"""The reference of the benchmarks: a direct implementation of the equations, by nested differentiation.

Masses and ħ are one. Nothing here is tuned, and nothing is slowed down: leapfrog with the force carried from
one step to the next, everything compiled and batched over particles.
"""

import time

import jax
import jax.numpy as jnp
import numpy as np

import bohmdiff as bd

DEPTH, WIDTH, COUPLING = 12.5, 0.2, 0.3
VARIANCE = 0.5


def morse_chain(dimension: int) -> bd.Problem:
    """The chain of the paper: one oscillator displaced by 1, all others at rest."""
    potential = bd.MorseChain(depth=DEPTH, width=WIDTH, coupling=COUPLING)
    mean = jnp.zeros(dimension).at[0].set(1.0)
    return bd.Problem(bd.Hamiltonian(potential), bd.GaussianWavePacket(mean, VARIANCE), t1=jnp.pi)


def network(problem: bd.Problem, width: int) -> bd.NeuralScore:
    """A network on the Gaussian that the harmonic oscillator makes: close to the exact score."""
    return bd.NeuralScore(
        problem,
        baseline=bd.HarmonicScore(problem),
        width=width,
        output_scale=0.03,
        key=jax.random.key(0),
    )


def potential(x):
    return DEPTH * jnp.sum((1 - jnp.exp(-WIDTH * x)) ** 2) + COUPLING * jnp.sum(x[:-1] * x[1:])


def field(score, t, x):
    return jax.grad(score.log_density, argnums=1)(t, x)


def acceleration(score, t, x):
    def total(y):
        s = field(score, t, y)
        divergence = jnp.trace(jax.jacfwd(lambda z: field(score, t, z))(y))
        return potential(y) - 0.25 * (divergence + 0.5 * s @ s)

    return -jax.grad(total)(x)


def path(score, x0, t1, steps):
    """Positions of one particle, shape `(steps + 1, d)`; of the steps only the states are kept for a gradient."""
    h = t1 / steps

    @jax.checkpoint
    def step(state, t):
        x, v, a = state
        v = v + 0.5 * h * a
        x = x + h * v
        a = acceleration(score, t + h, x)
        return (x, v + 0.5 * h * a, a), x

    start = (x0, jnp.zeros_like(x0), acceleration(score, jnp.zeros_like(t1), x0))
    _, later = jax.lax.scan(step, start, h * jnp.arange(steps))
    return jnp.concatenate([x0[None], later])


def fisher_divergence(score, x0, mean, t1, steps, min_determinant=0.1):
    """The mean over particles away from caustics, and over times by the trapezoidal rule."""
    ts = t1 / steps * jnp.arange(steps + 1)

    def log_determinant(x):
        deformation = jax.jacfwd(lambda y: path(score, y, t1, steps))(x)
        return jnp.linalg.slogdet(deformation)[1], deformation

    def one(x):
        slopes, deformation = jax.jacfwd(log_determinant, has_aux=True)(x)
        start = -(x - mean) / VARIANCE
        own = jax.vmap(lambda f, slope: jnp.linalg.solve(f.T, start - slope))(deformation, slopes)
        ours = jax.vmap(lambda t, y: field(score, t, y))(ts, path(score, x, t1, steps))
        kept = jnp.abs(jnp.linalg.det(deformation)) >= min_determinant
        return kept, jnp.sum((ours - own) ** 2, axis=1)

    kept, errors = jax.vmap(one)(x0)
    per_time = jnp.sum(jnp.where(kept, errors, 0), axis=0) / jnp.sum(kept, axis=0)
    return 0.5 * jnp.mean(per_time[1:] + per_time[:-1])


def timed(function, *arguments, repeats: int = 2):
    """Seconds of the first call, the least seconds of the others, and the result."""
    start = time.perf_counter()
    result = jax.block_until_ready(function(*arguments))
    first, best = time.perf_counter() - start, np.inf
    for _ in range(repeats):
        start = time.perf_counter()
        jax.block_until_ready(function(*arguments))
        best = min(best, time.perf_counter() - start)
    return first, best, result
