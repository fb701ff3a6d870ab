"""Solutions that consist of weighted particles."""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Bool, Complex, Float, PyTree

from .._check import is_concrete, warn
from .._precision import in_full_precision
from .._types import Key, Paths, Points, Scalar, Times, Vector, Weights
from ..problem import Problem
from ..wavepacket import RandomPoints, SobolPoints
from .solution import Solution, WaveFunction, wave_function_of

# For probabilities: independent sets of points, and how many points each has.
_SETS, _POINTS = 8, 1024
# By how much the norm of a state, seen by the particles, may differ from one.
_LARGEST_LOSS = 0.1
# Where the density is lowest, fitted densities are not known well: this share of the probability is left out.
_LEFT_OUT = 3e-4


class Particles(eqx.Module):
    r"""Weighted particles that represent the density at the saved times.

    ```python
    particles = solution.particles
    particles.weights @ particles.position[:, -1]  # the mean at the last time
    ```

    - `position`: shape `(M, K, d)`.
    - `weights`: shape `(M,)`; they sum to one.
    - `log_density`: $\ln\rho$ at each particle, shape `(M, K)`.
    - `phase`: S at each particle, shape `(M, K)`.

    The last two are `None` where the method does not know them.
    """

    position: Paths
    weights: Weights
    log_density: Float[Array, "M K"] | None = None
    phase: Float[Array, "M K"] | None = None


class AbstractParticleSolution(Solution):
    """A solution whose expectation values are those of weighted particles.

    Subclass it, declare the fields `problem`, `method`, `ts`, `particles` and `diagnostics`, and write `energy`,
    `move` and the four functions of time and place:

    ```python
    class Still(bd.AbstractParticleSolution):  # an eigenstate at rest
        problem: bd.Problem
        method: bd.AbstractMethod
        ts: jax.Array
        particles: bd.Particles
        diagnostics: bd.Diagnostics

        def energy(self):
            return jnp.full(self.ts.shape, 0.5)

        def move(self, x0):
            return jnp.broadcast_to(
                x0[:, None], (x0.shape[0], self.ts.size, x0.shape[1])
            )

        def score_at(self, t, x):
            return self.problem.initial.score(x)

        def velocity_at(self, t, x):
            return jnp.zeros_like(x)

        def log_density_at(self, t, x):
            return self.problem.initial.log_density(x)

        def wave_function_at(self, t, x):
            raise self.unavailable("wave_function", "Use SplitOperator.")
    ```
    """

    particles: eqx.AbstractVar[Particles]

    @in_full_precision
    def mean(self) -> Float[Array, "K d"]:
        return jnp.einsum("m,mkd->kd", self.particles.weights, self.particles.position)

    @in_full_precision
    def covariance(self) -> Float[Array, "K d d"]:
        return particle_covariance(self.particles)

    def average(self, f: Callable[[Scalar, Vector], PyTree]) -> PyTree:
        return particle_average(self.particles, self.ts, f)

    def measure(self, inside: Callable[[Vector], Bool[Array, ""]]) -> tuple[Times, Times]:
        return moved_measure(self, inside)

    def draw(self, key: Key, n: int) -> Float[Array, "n K d"]:
        return moved_draws(self, key, n)

    def project(self, psi: WaveFunction | Solution) -> Complex[Array, " K"]:
        particles = self.particles
        if particles.log_density is None or particles.phase is None:
            raise self.unavailable(
                "wave function on its particles",
                "Use SplitOperator, or GaussianDynamics for quadratic potentials.",
            )
        return particle_projection(self.problem, particles, self.ts, wave_function_of(psi))


@eqx.filter_jit
def particle_covariance(particles: Particles) -> Float[Array, "K d d"]:
    """The covariance matrix at each time; one time after the other, as all at once could fill the memory."""

    def at(x: Points) -> Float[Array, "d d"]:
        centred = x - (particles.weights @ x)[None]
        return (centred * particles.weights[:, None]).T @ centred

    return jax.lax.map(at, jnp.moveaxis(particles.position, 1, 0))


def particle_average(particles: Particles, ts: Times, f: Callable[[Scalar, Vector], PyTree]) -> PyTree:
    """The weighted mean of `f(t, x)` at each time."""

    def at(here: tuple[Scalar, Points]) -> PyTree:
        t, x = here
        values = jax.vmap(lambda y: f(t, y))(x)
        return jax.tree.map(lambda value: weighted_sum(particles.weights, value), values)

    return jax.lax.map(at, (ts, jnp.moveaxis(particles.position, 1, 0)))


def weighted_sum(weights: Float[Array, " M"], values: ArrayLike) -> Array:
    """The sum of values of any dtype, each with its weight."""
    values = jnp.asarray(values)
    inexact = jnp.issubdtype(values.dtype, jnp.inexact)
    dtype = np.result_type(values.dtype, weights.dtype) if inexact else weights.dtype
    return jnp.tensordot(weights.astype(dtype), values.astype(dtype), axes=1)


def particle_projection(
    problem: Problem,
    particles: Particles,
    ts: Times,
    psi: WaveFunction,
    left_out: float = _LEFT_OUT,
) -> Complex[Array, " K"]:
    r"""$\int\psi^* f\,dx = E_\rho[f/\psi]$ with ψ known at the particles.

    Particles in the tails, which make up the probability `left_out`, are left out: there a fitted density has
    large relative errors. Warns where the particles do not cover f: its norm $E_\rho|f/\psi|^2$ then differs
    from one.
    """
    assert particles.log_density is not None
    assert particles.phase is not None
    hbar = problem.hamiltonian.hbar

    def at(here: tuple[Scalar, Points, Times, Times]) -> tuple[Complex[Array, ""], Scalar]:
        t, x, log_density, phase = here
        ours = jnp.exp(jax.lax.complex(-0.5 * log_density, -phase / hbar))
        ratio = jax.vmap(lambda y: psi(t, y))(x) * ours
        order = jnp.argsort(log_density)
        kept = jnp.zeros(order.shape, bool).at[order].set(jnp.cumsum(particles.weights[order]) > left_out)
        # A weight of zero alone would not keep out what is infinite.
        ratio = jnp.where(kept & (particles.weights > 0), ratio, 0)
        return particles.weights.astype(ratio.dtype) @ ratio, particles.weights @ jnp.abs(ratio) ** 2

    arrays = (particles.position, particles.log_density, particles.phase)
    values, norms = jax.lax.map(at, (ts, *(jnp.moveaxis(array, 1, 0) for array in arrays)))
    if is_concrete(norms):
        worst = int(jnp.argmax(jnp.abs(norms - 1)))
        if not abs(float(norms[worst]) - 1) <= _LARGEST_LOSS:
            warn(
                f"The particles represent the other wave function badly: its norm is {float(norms[worst]):.2g} "
                f"instead of 1 at t = {float(ts[worst]):.4g}. The overlap there is not reliable; pass more "
                "particles that reach farther out, or use SplitOperator."
            )
    return values


def moved_measure(solution: Solution, inside: Callable[[Vector], Bool[Array, ""]]) -> tuple[Times, Times]:
    """The share of moved points inside a region, and its standard error from independent sets."""
    initial = solution.problem.initial
    sets = [initial.particles(SobolPoints(_POINTS), jax.random.key(n)) for n in range(_SETS)]
    x0, weights = (jnp.concatenate(parts) for parts in zip(*sets, strict=True))
    paths = solution.trajectories(x0)
    hits = jax.vmap(jax.vmap(inside))(paths).astype(paths.dtype)
    shares = jnp.einsum("sm,smk->sk", weights.reshape(_SETS, -1), hits.reshape(_SETS, _POINTS, -1))
    # A comparison with NaN is false, so lost paths would count as outside.
    shares = jnp.where(jnp.all(jnp.isfinite(paths)), shares, jnp.nan)
    return jnp.mean(shares, axis=0), jnp.std(shares, axis=0) / (_SETS - 1) ** 0.5


def moved_draws(solution: Solution, key: Key, n: int) -> Float[Array, "n K d"]:
    """Random draws from the initial density that the flow moves."""
    return solution.trajectories(solution.problem.initial.particles(RandomPoints(n), key)[0])
