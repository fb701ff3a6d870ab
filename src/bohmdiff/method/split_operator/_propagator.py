"""Symmetric products of kicks exp(−iV dt/ħ) and drifts exp(−iT dt/ħ) on a Fourier grid."""

import math

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.interpreters import partial_eval
from jaxtyping import Array, Complex

from ...hamiltonian import Hamiltonian
from ._fourier import FourierGrid

# Order: kicks b_0 … b_s, drifts a_1 … a_s between them, and how much of −(dt²/48) Σ (∂_i V)²/m_i is added
# to the potential of each kick. Order 2: Feit, Fleck & Steiger, J. Comput. Phys. 47, 412 (1982). Order 4:
# algorithm 4A of Chin & Chen, J. Chem. Phys. 114, 7338 (2001), whose coefficients are all positive
# (117, 1409 (2002) for potentials that depend on time).
_SCHEMES = {
    2: ((1 / 2, 1 / 2), (1.0,), (0.0, 0.0)),
    4: ((1 / 6, 2 / 3, 1 / 6), (1 / 2, 1 / 2), (0.0, 1.0, 0.0)),
}
ORDERS = tuple(_SCHEMES)


def depends_on_time(hamiltonian: Hamiltonian, dimension: int, dtype) -> bool:
    """Whether the potential's program uses t.

    The answer comes from the traced program, not from trial values: `False` means that no operation
    that leads to the result reads t. `True` may be wrong (`x + 0 * t`), and costs only time.
    """
    t, x = jax.ShapeDtypeStruct((), dtype), jax.ShapeDtypeStruct((dimension,), dtype)
    closed = jax.make_jaxpr(hamiltonian.potential)(t, x)
    _, used = partial_eval.dce_jaxpr(closed.jaxpr, [True] * len(closed.jaxpr.outvars))
    return used[0]


class Operators(eqx.Module):
    """What steps of one length need. `kicks` and `seam` are `None` if the potential depends on time."""

    dt: Array
    kicks: tuple[Array, ...] | None
    seam: Array | None
    drifts: tuple[tuple[Array | None, Array], ...]


class Propagator(eqx.Module):
    """Takes ψ on a grid from one time to another.

    `potential` and `correction` are V and the Σ (∂_i V)²/m_i of the fourth-order scheme on the grid,
    or `None` if the potential depends on time.
    """

    grid: FourierGrid
    hamiltonian: Hamiltonian
    order: int = eqx.field(static=True)
    largest_step: float = eqx.field(static=True)
    potential: Array | None
    correction: Array | None

    def __init__(self, grid: FourierGrid, hamiltonian: Hamiltonian, order: int, largest_step: float):
        dtype = hamiltonian.mass.dtype
        self.grid, self.hamiltonian = grid, hamiltonian
        self.order, self.largest_step = order, largest_step
        self.potential = self.correction = None
        if not depends_on_time(hamiltonian, grid.dimension, dtype):
            now = jnp.zeros((), dtype)
            self.potential = _potential(grid, hamiltonian, now)
            if order == 4:
                self.correction = _correction(grid, hamiltonian, now)

    def potential_at(self, t: Array) -> Array:
        """V on the grid."""
        return _potential(self.grid, self.hamiltonian, t) if self.potential is None else self.potential

    def correction_at(self, t: Array) -> Array:
        """Σ (∂_i V)²/m_i on the grid."""
        return _correction(self.grid, self.hamiltonian, t) if self.correction is None else self.correction

    def steps_between(self, start: float, end: float) -> tuple[int, float]:
        """The least number of equal steps no longer than the nominal one, and their length."""
        # The slack keeps the rounding of the times from adding a step.
        steps = max(1, math.ceil((end - start) / self.largest_step * (1 - 1e-4)))
        return steps, (end - start) / steps

    def operators(self, dt: float) -> Operators:
        """Prepares steps of length `dt`: the dear part of it is done once."""
        kicks, drifts, _ = _SCHEMES[self.order]
        step = jnp.asarray(dt, self.hamiltonian.mass.dtype)
        phases = seam = None
        if self.potential is not None:
            phases = tuple(_phase(self, i, step, step, 1.0) for i in range((len(kicks) + 1) // 2))
            seam = _phase(self, 0, step, step, 2.0)
        return Operators(step, phases, seam, tuple(self._drift(a * dt) for a in drifts))

    def advance(
        self, psi: Complex[Array, "..."], start: float, end: float, operators: Operators | None = None
    ):
        """ψ at `end` from ψ at `start`, whose memory is reused, and the operators that were needed."""
        steps, dt = self.steps_between(start, end)
        # Two lengths that differ by the rounding of the times are one.
        rounding = 8 * float(jnp.finfo(self.hamiltonian.mass.dtype).eps) * max(abs(start), abs(end))
        if operators is None or abs(float(operators.dt) - dt) > rounding:
            operators = self.operators(dt)
        start_time = jnp.asarray(start, operators.dt.dtype)
        return _advance((self, operators, start_time, jnp.asarray(steps)), psi), operators

    def _drift(self, dt: float) -> tuple[Array | None, Array]:
        grid, h = self.grid, self.hamiltonian
        masses = np.broadcast_to(np.asarray(h.mass, float), (grid.dimension,))
        dtype = jnp.result_type(h.mass.dtype, jnp.complex64)
        phases = [
            np.exp(-0.5j * float(h.hbar) * grid.wavenumbers(i) ** 2 * dt / masses[i])
            for i in range(grid.dimension)
        ]
        matrix = None
        if grid.dimension == 4:
            identity = np.eye(grid.sizes[0])
            matrix = jnp.asarray(
                np.fft.ifft(phases[0][:, None] * np.fft.fft(identity, axis=0), axis=0), dtype
            )
            phases = phases[1:]
        product = phases[0]
        for phase in phases[1:]:
            product = product[..., None] * phase
        return matrix, jnp.asarray(product, dtype)


@eqx.filter_jit
def _potential(grid: FourierGrid, hamiltonian: Hamiltonian, t: Array) -> Array:
    return grid.map(lambda x: jnp.asarray(hamiltonian.potential(t, x), x.dtype), t.dtype)


@eqx.filter_jit
def _correction(grid: FourierGrid, hamiltonian: Hamiltonian, t: Array) -> Array:
    def squared_force(x):
        gradient = jax.grad(lambda y: hamiltonian.potential(t, y))(x)
        return jnp.sum(gradient**2 / hamiltonian.mass).astype(x.dtype)

    return grid.map(squared_force, t.dtype)


@eqx.filter_jit
def _phase(propagator: Propagator, i: int, t: Array, dt: Array, times: float) -> Array:
    """exp(−iV dt/ħ) of kick `i` at time `t`, to the power `times`."""
    kicks, _, corrections = _SCHEMES[propagator.order]
    potential = propagator.potential_at(t)
    if corrections[i]:
        potential = potential - corrections[i] * dt**2 / 48 * propagator.correction_at(t)
    angle = (-times * kicks[i]) * dt / propagator.hamiltonian.hbar * potential
    return jax.lax.complex(jnp.cos(angle), jnp.sin(angle))


@eqx.filter_jit(donate="all-except-first")
def _advance(fixed: tuple[Propagator, Operators, Array, Array], psi: Complex[Array, "..."]):
    propagator, operators, start, steps = fixed
    kicks, drifts, _ = _SCHEMES[propagator.order]
    dt, last = operators.dt, len(kicks) - 1

    def phase(i, t, times=1.0):
        if operators.kicks is None or operators.seam is None:
            return _phase(propagator, i, t, dt, times)
        return operators.seam if times == 2.0 else operators.kicks[min(i, last - i)]

    def step(n, psi, times):
        """All of a step but its first kick; the last one is done `times` times."""
        elapsed = 0.0
        for i, share in enumerate(drifts, 1):
            psi = _drifted(propagator.grid, operators.drifts[i - 1], psi)
            # Time is a coordinate that advances with the drifts.
            elapsed += share
            psi = psi * phase(i, start + (n + elapsed) * dt, times if i == last else 1.0)
        return psi

    psi = psi * phase(0, start)
    # The last kick of a step and the first of the next are at the same time: one kick, twice as long.
    psi = jax.lax.fori_loop(0, steps - 1, lambda n, psi: step(n, psi, 2.0), psi)
    return step(steps - 1, psi, 1.0)


def _drifted(grid: FourierGrid, drift: tuple[Array | None, Array], psi: Array) -> Array:
    # T is a sum over the axes, so that its exponential is a product. XLA transforms three axes at
    # a time: the fourth one's factor is applied as one dense matrix, without a transform.
    matrix, phase = drift
    if matrix is not None:
        n = grid.sizes[0]
        psi = jnp.matmul(matrix, psi.reshape(n, -1), precision="highest").reshape(grid.sizes)
    axes = tuple(range(grid.dimension))[-3:]
    return jnp.fft.ifftn(jnp.fft.fftn(psi, axes=axes) * phase, axes=axes)
