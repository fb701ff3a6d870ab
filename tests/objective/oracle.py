"""The flow's own density, sharing nothing with the library: leapfrog by hand, and nested derivatives of
the whole path."""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

import bohmdiff as bd

MASS, HBAR, T1 = jnp.array([0.8, 1.7, 1.2]), jnp.asarray(0.9), 0.6
MEAN, VARIANCE, MOMENTUM = jnp.array([0.4, -0.3, 0.2]), 0.6, jnp.array([0.3, 0.5, -0.4])
STARTS = jnp.array([[0.1, 0.4, -0.5], [0.9, -0.8, 0.3], [-0.7, -0.2, 0.6]])


def potential(t, x):
    return 0.5 * jnp.sum(x**2) + 0.1 * jnp.sum(x**4) * (1 + t) + 0.2 * x[0] * x[-1]


class Score(bd.AbstractGradientScore):
    """A gradient, with a part that is not linear."""

    parameters: jax.Array

    def __call__(self, t, x):
        stiffness, strength = self.parameters
        return -(stiffness - 0.2 * t) * x + strength * jnp.sin(x + x[::-1])

    def log_density(self, t, x):
        stiffness, strength = self.parameters
        return -0.5 * (stiffness - 0.2 * t) * x @ x - 0.5 * strength * jnp.sum(jnp.cos(x + x[::-1]))


SCORE = Score(jnp.array([1.5, 0.3]))


def setting(d, potential=potential, t1=T1):
    problem = bd.Problem(
        bd.Hamiltonian(potential, MASS[:d], HBAR),
        bd.GaussianWavePacket(MEAN[:d], VARIANCE, MOMENTUM[:d]),
        t1=t1,
    )
    return problem, STARTS[:, :d]


class Flow(NamedTuple):
    """Of every particle at every step."""

    ts: jax.Array  # (N + 1,)
    position: jax.Array  # (M, N + 1, d)
    deformation: jax.Array  # (M, N + 1, d, d)
    own_score: jax.Array  # (M, N + 1, d)
    own_log_density: jax.Array  # (M, N + 1)

    def difference(self, score):
        return jax.vmap(jax.vmap(score), in_axes=(None, 0))(self.ts, self.position) - self.own_score

    def determinant(self):
        return jnp.abs(jnp.linalg.det(self.deformation))


@eqx.filter_jit
def oracle(score, x0, potential, t1, steps):
    d = x0.shape[1]
    mass, h, ts = MASS[:d], t1 / steps, t1 / steps * jnp.arange(steps + 1)

    def acceleration(t, x):
        def total(y):
            s, slopes = score(t, y), jnp.diag(jax.jacfwd(lambda z: score(t, z))(y))
            return potential(t, y) - jnp.sum(HBAR**2 / (4 * mass) * (slopes + 0.5 * s**2))

        return -jax.grad(total)(x) / mass

    def path(x):
        def step(state, k):
            x, v = state
            v = v + 0.5 * h * acceleration(k * h, x)
            x = x + h * v
            v = v + 0.5 * h * acceleration((k + 1) * h, x)
            return (x, v), x

        _, xs = jax.lax.scan(step, (x, MOMENTUM[:d] / mass), jnp.arange(steps))
        return jnp.concatenate([x[None], xs])

    def log_determinant(x):
        deformation = jax.jacfwd(path)(x)
        return jnp.linalg.slogdet(deformation)[1], deformation

    def one(x):
        slope, f = jax.jacfwd(log_determinant, has_aux=True)(x)
        initial = -(x - MEAN[:d]) / VARIANCE
        own = jax.vmap(lambda a, b: jnp.linalg.solve(a.T, initial - b))(f, slope)
        log_initial = 0.5 * initial @ (x - MEAN[:d]) - 0.5 * d * jnp.log(2 * jnp.pi * VARIANCE)
        return Flow(ts, path(x), f, own, log_initial - jnp.linalg.slogdet(f)[1])

    return jax.vmap(one, out_axes=Flow(None, 0, 0, 0, 0))(x0)


def trapezoid(values):
    return (0.5 * (values[1:] + values[:-1])).sum() / (len(values) - 1)


def squares(flow, score):
    """|s − s_ρ|², shape (M, N + 1)."""
    return np.sum(np.asarray(flow.difference(score)) ** 2, axis=2)
