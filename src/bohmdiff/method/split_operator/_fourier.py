"""Periodic Fourier grids: their points, and the interpolation of functions between them."""

import math
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Complex, DTypeLike, Float

from ..._types import Points
from ...solution import weighted_sum

# How many points of the grid a user's function takes at once, and how many points in space the
# interpolant takes: both bound the memory, and are large enough to fill the cores.
_CHUNK_OF_GRID = 2**17
_CHUNK_OF_POINTS = 1024


class FourierGrid(eqx.Module):
    """Equally spaced points on a box whose opposite faces are identified; `upper` itself is left out.

    Functions on it are trigonometric polynomials. The mode at the Nyquist wavenumber of an even
    number of points is a cosine, so that a real function stays real between the points.
    """

    sizes: tuple[int, ...] = eqx.field(static=True)
    lower: tuple[float, ...] = eqx.field(static=True)
    upper: tuple[float, ...] = eqx.field(static=True)

    @property
    def dimension(self) -> int:
        return len(self.sizes)

    @property
    def size(self) -> int:
        """The total number of points."""
        return int(np.prod([int(n) for n in self.sizes], dtype=object))

    @property
    def lengths(self) -> tuple[float, ...]:
        return tuple(b - a for a, b in zip(self.lower, self.upper, strict=True))

    @property
    def spacing(self) -> tuple[float, ...]:
        return tuple(length / n for length, n in zip(self.lengths, self.sizes, strict=True))

    @property
    def cell(self) -> float:
        """The volume per point."""
        return float(np.prod(self.spacing))

    def axis(self, i: int) -> np.ndarray:
        """The positions along coordinate `i`."""
        return self.lower[i] + self.spacing[i] * np.arange(self.sizes[i])

    def wavenumbers(self, i: int) -> np.ndarray:
        """The wavenumbers along coordinate `i`, in the order of the FFT."""
        return 2 * np.pi * np.fft.fftfreq(self.sizes[i], self.spacing[i])

    def spread(self, values: Array, i: int) -> Array:
        """Values along coordinate `i` with an axis of length one for each of the others."""
        return values.reshape(*(1,) * i, -1, *(1,) * (self.dimension - 1 - i))

    def map(self, function: Callable[[Array], Any], dtype: DTypeLike, chunk: int = _CHUNK_OF_GRID) -> Any:
        """`function(x)` at every point x of the grid; scalars in its result become arrays of shape `sizes`."""
        at = self._at_index(function, dtype)
        if self.size <= chunk:
            values = jax.vmap(at)(jnp.arange(self.size))
        else:
            values = jax.lax.map(at, jnp.arange(self.size), batch_size=chunk)
        return jax.tree.map(lambda leaf: leaf.reshape(self.sizes), values)

    def mean(self, function: Callable[[Array], Any], density: Float[Array, "..."]) -> Any:
        """The mean of `function(x)`, of any shape, over a density on the grid; one chunk in memory at a time."""
        at = self._at_index(function, density.dtype)
        weights = density.ravel() / jnp.sum(density)
        out = jax.eval_shape(at, jax.ShapeDtypeStruct((), int))
        numbers = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(out))
        chunk = min(self.size, max(_CHUNK_OF_GRID // max(numbers, 1), 1))
        chunks = -(-self.size // chunk)
        # The last point, with zero weight, pads the last chunk.
        index = jnp.minimum(jnp.arange(chunks * chunk), self.size - 1).reshape(chunks, chunk)
        weights = jnp.pad(weights, (0, chunks * chunk - self.size)).reshape(chunks, chunk)

        def of_chunk(index: Array, weights: Array) -> Any:
            values = jax.vmap(at)(index)
            return jax.tree.map(lambda value: weighted_sum(weights, value), values)

        def add(total: Any, part: tuple[Array, Array]) -> tuple[Any, None]:
            return jax.tree.map(jnp.add, total, of_chunk(*part)), None

        if chunks == 1:
            return of_chunk(index[0], weights[0])
        zero = jax.tree.map(
            lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), jax.eval_shape(of_chunk, index[0], weights[0])
        )
        return jax.lax.scan(add, zero, (index, weights))[0]

    def _at_index(self, function: Callable[[Array], Any], dtype: DTypeLike) -> Callable[[Array], Any]:
        axes = [jnp.asarray(self.axis(i), dtype) for i in range(self.dimension)]

        def at(index: Array) -> Any:
            where = jnp.unravel_index(index, self.sizes)
            values = function(jnp.stack([axis[j] for axis, j in zip(axes, where, strict=True)]))
            return jax.tree.map(jnp.asarray, values)

        return at

    def resampled(self, psi: Complex[Array, "..."], other: "FourierGrid") -> Complex[Array, "..."]:
        """The trigonometric interpolant at the points of another grid; zero outside the box of this grid."""
        if other == self:
            return psi
        for i, n in enumerate(self.sizes):
            there, unit = other.axis(i), 2 * np.pi / self.lengths[i]
            angle = unit * (there[:, None] - self.axis(i)[None, :])
            matrix = np.ones_like(angle)
            for wave in range(1, (n - 1) // 2 + 1):
                matrix += 2 * np.cos(wave * angle)
            if n % 2 == 0:
                matrix += np.cos(n // 2 * angle)
            matrix *= ((there >= self.lower[i]) & (there <= self.upper[i]))[:, None] / n
            psi = along(jnp.asarray(matrix, psi.real.dtype), psi, i)
        return psi

    def to_momentum(self, psi: Complex[Array, "..."]) -> Complex[Array, "..."]:
        """The discrete Fourier transform over all axes, with the norm of `psi`."""
        # XLA transforms three axes at a time. A fourth is done by a matrix product: moving it to the
        # end costs more.
        rest = tuple(range(self.dimension))[-3:]
        if self.dimension == 4:
            n = self.sizes[0]
            matrix = jnp.asarray(np.fft.fft(np.eye(n), norm="ortho"), psi.dtype)
            psi = jnp.matmul(matrix, psi.reshape(n, -1), precision="highest").reshape(self.sizes)
        return jnp.fft.fftn(psi, axes=rest, norm="ortho")

    @eqx.filter_jit
    def table(self, psi: Complex[Array, "..."]) -> Float[Array, "rows columns"]:
        """The coefficients of `psi` in cosines and sines, for `evaluate`: the first half of the axes against the
        rest."""
        for i, n in enumerate(self.sizes):
            psi = jnp.moveaxis(psi, i, -1)
            forward = jnp.fft.fft(psi) / n
            backward = jnp.flip(forward[..., 1:], axis=-1)
            # A wave on the grid is a cosine alone if there is none in the opposite direction.
            both = forward[..., 1 : (n + 1) // 2], backward[..., : (n - 1) // 2]
            alone = forward[..., :1], forward[..., n // 2 : n // 2 + 1 - n % 2]
            waves = jnp.concatenate(
                [alone[0], both[0] + both[1], alone[1], 1j * (both[0] - both[1])], axis=-1
            )
            psi = jnp.moveaxis(waves, -1, i)
        rows = int(np.prod(self.sizes[: self._first()]))
        matrix = psi.reshape(rows, -1)
        return jnp.concatenate([matrix.real, matrix.imag], axis=1)

    @eqx.filter_jit
    def evaluate(
        self, table: Float[Array, "rows columns"], x: Points
    ) -> tuple[Complex[Array, " M"], Complex[Array, "M d"]]:
        """The trigonometric interpolant and its gradient at points `x`, `(M,)` and `(M, d)`.

        Zero outside the box. Many points are evaluated in chunks.
        """
        if x.shape[0] <= _CHUNK_OF_POINTS:
            return self._evaluate(table, x)

        def one(y):
            value, gradient = self._evaluate(table, y[None])
            return value[0], gradient[0]

        return jax.lax.map(one, x, batch_size=_CHUNK_OF_POINTS)

    def _first(self) -> int:
        return (self.dimension + 1) // 2

    def _evaluate(self, table, x):
        # The interpolant is separable: a product of one wave for each axis. Contracting half of the
        # axes by one matrix product leaves little to do for the other half.
        values, slopes = zip(*(self._waves(i, x[:, i]) for i in range(self.dimension)), strict=True)
        a = self._first()
        left = _products(values[:a], slopes[:a], x.dtype)  # (1 + a, M, rows)
        right = _products(values[a:], slopes[a:], x.dtype)  # (1 + d − a, M, columns / 2)
        contracted = jnp.matmul(left, table, precision="highest")
        half = table.shape[1] // 2
        contracted = jax.lax.complex(contracted[..., :half], contracted[..., half:])
        right = right.astype(contracted.dtype)
        along_left = jnp.sum(contracted * right[:1], axis=-1)
        along_right = jnp.sum(contracted[:1] * right[1:], axis=-1)
        lower, upper = jnp.asarray([self.lower], x.dtype), jnp.asarray([self.upper], x.dtype)
        inside = jnp.all((x >= lower) & (x <= upper), axis=1)
        value = jnp.where(inside, along_left[0], 0)
        gradient = jnp.concatenate([along_left[1:], along_right]).T
        return value, jnp.where(inside[:, None], gradient, 0)

    def _waves(self, i: int, x: Float[Array, " M"]) -> tuple[Array, Array]:
        """Cosines and sines of axis `i` and their slopes at `x`, each `(M, n)`."""
        n, unit = self.sizes[i], 2 * np.pi / self.lengths[i]
        theta = (unit * (x - self.lower[i]))[:, None]
        c = jnp.arange(n // 2 + 1, dtype=x.dtype)[None]
        s = jnp.arange(1, (n - 1) // 2 + 1, dtype=x.dtype)[None]
        waves = jnp.concatenate([jnp.cos(c * theta), jnp.sin(s * theta)], axis=1)
        slopes = unit * jnp.concatenate([-c * jnp.sin(c * theta), s * jnp.cos(s * theta)], axis=1)
        return waves, slopes


def along(matrix: Float[Array, "m n"], array: Array, axis: int) -> Array:
    """A matrix applied to one axis of an array."""
    moved = jnp.tensordot(matrix.astype(array.dtype), array, axes=(1, axis), precision="highest")
    return jnp.moveaxis(moved, 0, axis)


def _products(values, slopes, dtype):
    """The outer product of `values` over the axes, then the same with the slope of each axis in turn."""
    variants = [values] + [(*values[:i], slopes[i], *values[i + 1 :]) for i in range(len(values))]
    return jnp.stack([_outer(variant) for variant in variants]) if values else jnp.ones((1, 1, 1), dtype)


def _outer(factors):
    product = factors[0]
    for factor in factors[1:]:
        product = (product[:, :, None] * factor[:, None, :]).reshape(product.shape[0], -1)
    return product
