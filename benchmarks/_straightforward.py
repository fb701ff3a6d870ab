"""What the benchmarks compare with: the equations written down as they stand, by nested differentiation.

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


def end_point(score, x0, t1, steps):
    """Where one particle is in the end, shape `(d,)`."""
    h = t1 / steps

    def step(state, t):
        x, v, a = state
        v = v + 0.5 * h * a
        x = x + h * v
        a = acceleration(score, t + h, x)
        return (x, v + 0.5 * h * a, a), None

    start = (x0, jnp.zeros_like(x0), acceleration(score, jnp.zeros_like(t1), x0))
    (x, _, _), _ = jax.lax.scan(step, start, h * jnp.arange(steps))
    return x


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
