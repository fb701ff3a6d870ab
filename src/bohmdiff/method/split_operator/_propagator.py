"""Symmetric products of kicks exp(−iV dt/ħ) and drifts exp(−iT dt/ħ) on a Fourier grid."""

import functools
import math

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from equinox.internal import unvmap_max
from jaxtyping import Array, Bool, Complex, Float, Int

from ..._types import Scalar, Vector
from ...hamiltonian import Hamiltonian, depends_on_time
from ._fourier import FourierGrid
from .absorber import ComplexAbsorber

# Order: kicks b_0 … b_s, drifts a_1 … a_s between them, and how much of −(dt²/48) Σ (∂_i V)²/m_i is added
# to the potential of each kick. Order 2: Feit, Fleck & Steiger, J. Comput. Phys. 47, 412 (1982). Order 4:
# algorithm 4A of Chin & Chen, J. Chem. Phys. 114, 7338 (2001), whose coefficients are all positive
# (117, 1409 (2002) for potentials that depend on time).
_SCHEMES = {
    2: ((1 / 2, 1 / 2), (1.0,), (0.0, 0.0)),
    4: ((1 / 6, 2 / 3, 1 / 6), (1 / 2, 1 / 2), (0.0, 1.0, 0.0)),
}
ORDERS = tuple(_SCHEMES)


def kick_times(order: int) -> tuple[np.ndarray, tuple[float, ...]]:
    """When the kicks of a step come, in units of the step, and their weights."""
    kicks, drifts, _ = _SCHEMES[order]
    return np.concatenate([[0.0], np.cumsum(drifts)]), kicks


# The slack that keeps the rounding of the times from adding a step.
_SLACK = 1e-4


class Operators(eqx.Module):
    """The factors of steps of one length.

    `kicks` are the first one of a step, those in its middle, and the double one at the seam of two steps;
    `None` if the potential depends on time.
    """

    dt: Scalar
    kicks: Array | None
    drifts: tuple[tuple[Array | None, Array], ...]


class Propagator(eqx.Module):
    """Takes ψ on a grid from one time to another.

    `potential` and `correction` are V and the Σ (∂_i V)²/m_i of the fourth-order scheme on the grid. If the
    potential depends on time, they are `None`, and `hamiltonian` provides them. Otherwise `hamiltonian` is
    `None`, so another potential does not compile the steps again.

    `absorption` is the W of the absorber along each coordinate, `None` where there is none.
    """

    grid: FourierGrid
    order: int = eqx.field(static=True)
    masses: Vector
    hbar: Scalar
    potential: Array | None
    correction: Array | None
    hamiltonian: Hamiltonian | None
    absorber: ComplexAbsorber | None
    absorption: tuple[Float[Array, " n"] | None, ...] | None

    def __init__(
        self,
        grid: FourierGrid,
        hamiltonian: Hamiltonian,
        order: int,
        absorber: ComplexAbsorber | None = None,
    ):
        dtype = hamiltonian.mass.dtype
        self.grid, self.order = grid, order
        self.masses, self.hbar = hamiltonian.masses(grid.dimension), hamiltonian.hbar
        self.potential = self.correction = self.absorption = None
        self.absorber = absorber
        if absorber is not None:
            self.absorption = absorber.on_axes(grid, self.masses, self.hbar)
        if depends_on_time(hamiltonian, grid.dimension, dtype):
            self.hamiltonian = hamiltonian
            return
        now, self.hamiltonian = jnp.zeros((), dtype), None
        self.potential = _potential(grid, hamiltonian, now)
        if order == 4:
            self.correction = _correction(grid, hamiltonian, now)

    def potential_at(self, t: Scalar) -> Array:
        """V on the grid."""
        if self.hamiltonian is not None:
            return _potential(self.grid, self.hamiltonian, t)
        assert self.potential is not None
        return self.potential

    def correction_at(self, t: Scalar) -> Array:
        """Σ (∂_i V)²/m_i on the grid."""
        if self.hamiltonian is not None:
            return _correction(self.grid, self.hamiltonian, t)
        assert self.correction is not None
        return self.correction

    @eqx.filter_jit
    def operators(self, dt: Scalar) -> Operators:
        """Prepares steps of length `dt`, so that their costly part is done once."""
        kicks, drifts, _ = _SCHEMES[self.order]
        phases = None
        if self.hamiltonian is None:
            middle = [self._phase(i, dt, dt) for i in range((len(kicks) + 1) // 2)]
            phases = jnp.stack([*middle, self._phase(0, dt, dt, 2.0)])
        return Operators(dt, phases, tuple(self._drift(a * dt) for a in drifts))

    def begin(
        self, operators: Operators, psi: Complex[Array, "..."], start: Scalar
    ) -> Complex[Array, "..."]:
        """The first kick, before any steps."""
        if operators.kicks is not None:
            return psi * operators.kicks[0]
        return psi * self._phase(0, start, operators.dt)

    def step(
        self,
        operators: Operators,
        psi: Complex[Array, "..."],
        start: Scalar,
        n: Int[Array, ""],
        last: Bool[Array, ""],
    ) -> Complex[Array, "..."]:
        """Step `n` since `start`, without its first kick.

        The last kick of a step and the first of the next are at the same time, so they are merged into one, twice
        as long, unless this step is the `last`.
        """
        kicks, drifts, _ = _SCHEMES[self.order]
        elapsed, end, dt = 0.0, len(kicks) - 1, operators.dt
        for i, share in enumerate(drifts, 1):
            psi = _drifted(self.grid, operators.drifts[i - 1], psi)
            # Time is a coordinate that advances with the drifts.
            elapsed += share
            if operators.kicks is None:
                times = jnp.where(last, 1.0, 2.0).astype(dt.dtype) if i == end else 1.0
                psi = psi * self._phase(i, start + (n.astype(dt.dtype) + elapsed) * dt, dt, times)
            elif i < end:
                psi = psi * operators.kicks[min(i, end - i)]
            else:
                which = jnp.where(last, 0, operators.kicks.shape[0] - 1)
                psi = psi * jax.lax.dynamic_index_in_dim(operators.kicks, which, keepdims=False)
        return psi

    def _phase(self, i: int, t: Scalar, dt: Scalar, times: Scalar | float = 1.0) -> Array:
        """exp(−iV dt/ħ) of kick `i` at time `t`, to the power `times`."""
        kicks, _, corrections = _SCHEMES[self.order]
        potential = self.potential_at(t)
        if corrections[i]:
            potential = potential - corrections[i] * dt**2 / 48 * self.correction_at(t)
        length = (-times * kicks[i]) * dt / self.hbar
        angle = length * potential
        if self.absorption is None:
            return jax.lax.complex(jnp.cos(angle), jnp.sin(angle))
        # W has no part in the correction, so that no step lets ψ grow.
        left = jnp.ones((), potential.dtype)
        for axis, along in enumerate(self.absorption):
            if along is not None:
                left = left * self.grid.spread(jnp.exp(length * along), axis)
        return jax.lax.complex(left * jnp.cos(angle), left * jnp.sin(angle))

    def _drift(self, dt: Scalar) -> tuple[Array | None, Array]:
        """exp(−iT dt/ħ): phases in momentum space, but a matrix for the first of four axes."""
        grid = self.grid
        phases = []
        for i in range(grid.dimension):
            squared = jnp.asarray(grid.wavenumbers(i) ** 2, dt.dtype)
            angle = -0.5 * self.hbar * dt / self.masses[i] * squared
            phases.append(jax.lax.complex(jnp.cos(angle), jnp.sin(angle)))
        matrix = None
        if grid.dimension == 4:
            # A convolution: each column is the first one, shifted.
            n = grid.sizes[0]
            shift = (np.arange(n)[:, None] - np.arange(n)[None, :]) % n
            matrix, phases = jnp.fft.ifft(phases[0])[shift], phases[1:]
        product = phases[0]
        for phase in phases[1:]:
            product = product[..., None] * jnp.expand_dims(phase, tuple(range(product.ndim)))
        return matrix, product


def steps_between(start: float, end: float, largest: float) -> int:
    """The least number of equal steps that are no longer than the `largest`."""
    return max(1, math.ceil((end - start) / largest * (1 - _SLACK)))


def traced_steps(
    start: Float[Array, "*n"], end: Float[Array, "*n"], largest: Scalar, most: int
) -> Int[Array, "*n"]:
    """The same number for traced times, at most `most`."""
    ratio = jax.lax.stop_gradient((end - start) / largest) * (1 - _SLACK)
    return jnp.clip(jnp.ceil(ratio), 1, most).astype(int)


def advance(
    propagator: Propagator,
    psi: Complex[Array, "..."],
    start: float,
    end: float,
    steps: int,
    operators: Operators | None = None,
) -> tuple[Complex[Array, "..."], Operators]:
    """ψ at `end` from ψ at `start`, whose memory is reused, by equal steps, and the operators that were needed.

    All values are concrete. The loop reads its number of steps at run time, so it compiles once.
    """
    dt, dtype = (end - start) / steps, propagator.masses.dtype
    # Lengths that differ only by the rounding of the times are equal.
    rounding = 8 * float(jnp.finfo(dtype).eps) * max(abs(start), abs(end))
    if operators is None or abs(float(operators.dt) - dt) > rounding:
        operators = propagator.operators(jnp.asarray(dt, dtype))
    fixed = (propagator, operators, jnp.asarray(start, dtype), jnp.asarray(steps))
    return _advance(fixed, psi), operators


@eqx.filter_jit(donate="all-except-first")
def _advance(fixed: tuple[Propagator, Operators, Array, Array], psi: Complex[Array, "..."]):
    propagator, operators, start, steps = fixed

    def step(n, psi):
        return propagator.step(operators, psi, start, n, n == steps - 1)

    return jax.lax.fori_loop(0, steps, step, propagator.begin(operators, psi, start))


def advance_traced(
    propagator: Propagator,
    psi: Complex[Array, "..."],
    start: Scalar,
    end: Scalar,
    steps: Int[Array, ""],
    most: int,
) -> Complex[Array, "..."]:
    """ψ at `end` from ψ at `start` by `steps` equal steps, at most `most`; for all transformations of JAX.

    Reverse mode needs a loop of fixed length, in which steps that are not needed are skipped. Every √`most`-th
    ψ is kept for the backward pass; those between are recomputed.
    """
    operators = propagator.operators((end - start) / jnp.maximum(steps, 1).astype(start.dtype))
    inner = math.isqrt(max(most - 1, 0)) + 1
    # Under vmap over times, a batched condition would execute every step for all times.
    needed = unvmap_max(steps)

    def step(n, psi):
        psi_next = propagator.step(operators, psi, start, n, n == steps - 1)
        return jnp.where(n < steps, psi_next, psi)

    def steps_from(first, psi):
        def one(psi, n):
            return _where_needed(n < needed, lambda psi: step(n, psi), psi), None

        return jax.lax.scan(one, psi, first + jnp.arange(inner))[0]

    # Inside a scan, XLA does not merge recomputed values with the earlier ones.
    @functools.partial(jax.checkpoint, prevent_cse=False)
    def block(psi, first):
        return _where_needed(first < needed, lambda psi: steps_from(first, psi), psi), None

    psi = propagator.begin(operators, psi, start)
    if most == 1:
        return step(jnp.zeros((), int), psi)
    return jax.lax.scan(block, psi, inner * jnp.arange(-(-most // inner)))[0]


def _where_needed(needed, function, psi):
    return jax.lax.cond(needed, function, lambda psi: psi, psi)


@eqx.filter_jit
def _potential(grid: FourierGrid, hamiltonian: Hamiltonian, t: Scalar) -> Array:
    return grid.map(lambda x: jnp.asarray(hamiltonian.potential(t, x), x.dtype), t.dtype)


@eqx.filter_jit
def _correction(grid: FourierGrid, hamiltonian: Hamiltonian, t: Scalar) -> Array:
    def squared_force(x):
        gradient = jax.grad(lambda y: hamiltonian.potential(t, y))(x)
        return jnp.sum(gradient**2 / hamiltonian.mass).astype(x.dtype)

    return grid.map(squared_force, t.dtype)


def _drifted(grid: FourierGrid, drift: tuple[Array | None, Array], psi: Array) -> Array:
    # T is a sum over the axes, so that its exponential is a product. XLA transforms three axes at
    # a time: the fourth one's factor is applied as one dense matrix, without a transform.
    matrix, phase = drift
    if matrix is not None:
        n = grid.sizes[0]
        psi = jnp.matmul(matrix, psi.reshape(n, -1), precision="highest").reshape(grid.sizes)
    axes = tuple(range(grid.dimension))[-3:]
    return jnp.fft.ifftn(jnp.fft.fftn(psi, axes=axes) * phase, axes=axes)
