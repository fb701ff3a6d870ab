"""ψ on a grid at times that may be traced: between equally spaced ones it is a polynomial in time."""

from itertools import pairwise
from typing import Any, Protocol, runtime_checkable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Complex, Float

from ..._check import cast_floats
from ..._types import Scalar, Time, Vector
from ...problem import Problem
from ...solution.solution import place, within_span
from ._fourier import FourierGrid

# Values at so many times make a polynomial.
_NODES = 6
_FEWEST_INTERVALS, _MOST_INTERVALS, _MOST_BYTES = 16, 2**12, 2**32


@runtime_checkable
class Propagates(Protocol):
    """What a solution needs to know of its method: how ψ gets from one time to another."""

    def advance(self, psi: Any, start: float, end: float, operators: Any = None) -> tuple[Any, Any]: ...


class TabulatedWaveFunction(eqx.Module):
    r"""Score and velocity of a wave function on a grid at any time, a traced one too: what
    [`tabulated`][bohmdiff.GridSolution.tabulated] returns.

    ```python
    exact = bd.solve(problem, bd.SplitOperator(points=32, lower=-5.5, upper=7.5))
    psi = exact.tabulated()
    jax.jit(lambda t: (psi.score(t, x), psi.velocity(t, x)))(0.3)
    ```

    - `problem`: whose solution it is.
    - `fourier`: the grid.
    - `tables`: the waves that ψ is made of, real and imaginary part side by side, at equally spaced times from
        `t0` to `t1`.

    In place it is the trigonometric interpolant of the grid, in time the polynomial through the values at
    six equally spaced times around, without the phase of the mean energy, which is the same everywhere. There
    are so many times that this adds no more than the root of the rounding error to that of the method's steps:
    1.5e-8 of the norm of ψ, or 3.5e-4 in single precision. Where $|\psi|$ itself is not larger than that, score
    and velocity are noise. They are zero outside the box.

    **Units:** the score in 1 / length, the velocity in length / time.

    **Raises:** `ValueError` for a time outside of `[t0, t1]`, unless it is traced, and for wrong shapes.
    """

    problem: Problem
    fourier: FourierGrid
    tables: Float[Array, "N rows columns"]

    def score(self, t: Time, x: Vector) -> Vector:
        r"""$\nabla\ln|\psi|^2$ at one point, shape `(d,)`."""
        return 2 * self._log_gradient(t, x).real

    def velocity(self, t: Time, x: Vector) -> Vector:
        r"""$v_i = (\hbar/m_i)\,\mathrm{Im}\,\partial_i\psi/\psi$ at one point, shape `(d,)`."""
        hamiltonian = self.problem.hamiltonian
        return hamiltonian.hbar / hamiltonian.masses(self.fourier.dimension) * self._log_gradient(t, x).imag

    def _log_gradient(self, t: Time, x: Vector) -> Complex[Array, " d"]:
        t, x = place(self.problem, t, x)
        dtype, start, end = self.tables.dtype, self.problem.t0, self.problem.t1
        passed = jnp.asarray((within_span(self.problem, t) - start) / (end - start), dtype)
        psi, gradient = self.fourier.evaluate(
            _interpolated(self.tables, passed), jnp.asarray(x, dtype)[None]
        )
        return log_gradient(psi[0], gradient[0])


def log_gradient(psi: Complex[Array, ""], gradient: Complex[Array, " d"]) -> Complex[Array, " d"]:
    r"""$\nabla\psi/\psi$, or zero where $|\psi|^2$ is below the smallest normal number."""
    density = psi.real**2 + psi.imag**2
    seen = density >= jnp.finfo(density.dtype).tiny
    # 0 / 1 rather than 0 / 0 where nothing is seen, so that derivatives are finite too.
    return jnp.where(seen, jnp.conj(psi) * gradient / jnp.where(seen, density, 1), 0)


def tabulate(
    problem: Problem,
    fourier: FourierGrid,
    propagator: Propagates,
    start: Complex[Array, "..."],
    energy: Scalar,
) -> TabulatedWaveFunction:
    """As many times as it takes, from ψ at `t0`."""
    t0, t1 = float(problem.t0), float(problem.t1)
    rate = float(energy / problem.hamiltonian.hbar)
    intervals = _FEWEST_INTERVALS
    while True:
        times = np.linspace(t0, t1, intervals + 1).tolist()
        psi, operators, tables = jnp.copy(start), None, [fourier.table(start)]
        for earlier, t in pairwise(times):
            psi, operators = propagator.advance(psi, earlier, t, operators)
            phase = np.exp(1j * rate * (t - t0)).astype(psi.dtype)
            tables.append(fourier.table(phase * psi))
        tables = jnp.stack(tables)
        # What half of the times miss at those between; all of them miss less by a power of two.
        error = float(_largest_miss(tables)) / 2**_NODES
        if error <= float(jnp.finfo(tables.dtype).eps) ** 0.5:
            return TabulatedWaveFunction(cast_floats(problem, tables.dtype), fourier, tables)
        intervals *= 2
        if intervals > _MOST_INTERVALS or 2 * tables.nbytes > _MOST_BYTES:
            raise ValueError(
                f"ψ changes too fast to be tabulated: with {intervals // 2 + 1} times, which take "
                f"{tables.nbytes / 2**30:.2g} GiB, it is still wrong by {error:.1e} of its norm between them, "
                f"and at most {_MOST_INTERVALS + 1} times and {_MOST_BYTES / 2**30:g} GiB are allowed. Take "
                "fewer points of the grid, or a shorter span of time; if the potential jumps in time, solve "
                "from jump to jump."
            )


def _interpolated(tables: Float[Array, "N *n"], passed: Scalar) -> Float[Array, "*n"]:
    """The table when a share `passed` of the time has."""
    place = passed * (tables.shape[0] - 1)
    first = jnp.clip(jnp.floor(place).astype(int) - (_NODES // 2 - 1), 0, tables.shape[0] - _NODES)
    nodes = jax.lax.dynamic_slice_in_dim(tables, first, _NODES)
    return jnp.tensordot(_lagrange(place - first), nodes, axes=1)


def _lagrange(place: Scalar) -> Float[Array, " nodes"]:
    """The weights at `place` of the polynomial through the values at 0, 1, 2, ..."""
    nodes = np.arange(_NODES)
    others = [np.delete(nodes, node) for node in nodes]
    return jnp.stack(
        [jnp.prod((place - other) / (node - other)) for node, other in zip(nodes, others, strict=True)]
    )


@eqx.filter_jit
def _largest_miss(tables: Float[Array, "N rows columns"]) -> Scalar:
    """How far the interpolation of every other table is from those between, at most, relative to their norm."""
    coarse, between = tables[::2], tables[1::2]
    shares = (jnp.arange(between.shape[0]) + 0.5) / between.shape[0]

    def miss(one: tuple[Array, Array]) -> Scalar:
        share, table = one
        wrong = _interpolated(coarse, share.astype(table.dtype)) - table
        return jnp.linalg.norm(wrong) / jnp.linalg.norm(table)

    return jnp.max(jax.lax.map(miss, (shares, between)))
