"""Points from |ψ|² on a grid, by the conditional distribution of each coordinate given those before it."""

import functools
from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Complex, Float
from scipy.stats import qmc

from ..._types import Points, Scalar, Times, Vector
from ._fourier import FourierGrid, along

_SETS, _LOG_POINTS = 8, 12
# Refined grids have at most this many points.
_LARGEST_FINER = 2**23
# The size of the table of the distribution function of a kernel.
_TABLE = 2049


class Mixture(eqx.Module):
    """A density on a grid as a mixture of cubic B-splines, one around each point.

    The weights reproduce the Fourier coefficients of the density. Some are negative where the density falls off
    over less than the spacing; they are set to zero, and `missed` is their share.
    """

    grid: FourierGrid
    weights: tuple[Array, ...]
    missed: Scalar

    def __init__(self, grid: FourierGrid, psi: Complex[Array, "..."]):
        # The density has twice the bandwidth of ψ.
        finer = FourierGrid(tuple(2 * n for n in grid.sizes), grid.lower, grid.upper)
        if finer.size <= _LARGEST_FINER:
            psi, grid = grid.resampled(psi, finer), finer
        weights = psi.real**2 + psi.imag**2
        for i, n in enumerate(grid.sizes):
            kernel = np.sinc(np.fft.fftfreq(n)) ** 4
            matrix = np.fft.ifft(np.fft.fft(np.eye(n), axis=0) / kernel[:, None], axis=0).real
            weights = along(jnp.asarray(matrix, weights.dtype), weights, i)
        negative = jnp.sum(jnp.maximum(-weights, 0))
        self.missed = negative / jnp.sum(weights)
        weights = jnp.maximum(weights, 0)
        # Marginals of the first coordinate, the first two, and so on.
        marginals = [weights]
        for _ in range(grid.dimension - 1):
            marginals.append(jnp.sum(marginals[-1], axis=-1))
        self.grid, self.weights = grid, tuple(reversed(marginals))

    def points(self, uniform: Float[Array, "N d"]) -> Points:
        """Points from numbers that are uniform in [0, 1)."""
        coordinates, before = [], jnp.zeros(uniform.shape[0], int)
        for i, n in enumerate(self.grid.sizes):
            weights = self.weights[i].reshape(-1, n)[before]
            cumulative = jnp.cumsum(weights, axis=1)
            target = uniform[:, i] * cumulative[:, -1]
            index = jnp.minimum(jnp.sum(cumulative <= target[:, None], axis=1), n - 1)
            here, until = (
                jnp.take_along_axis(array, index[:, None], axis=1)[:, 0] for array in (weights, cumulative)
            )
            # The rest of a uniform number that has chosen a kernel is uniform again.
            left = (target - (until - here)) / jnp.where(here > 0, here, 1)
            offset = jnp.interp(left, *(jnp.asarray(column, uniform.dtype) for column in _kernel()))
            place = jnp.mod((index + offset) * self.grid.spacing[i], self.grid.lengths[i])
            coordinates.append(self.grid.lower[i] + place)
            before = before * n + index
        # Comparisons hide NaN.
        return jnp.where(jnp.isfinite(self.missed), jnp.stack(coordinates, axis=1), jnp.nan)


class Draws(eqx.Module):
    """At any time, points of the density from numbers that are uniform in [0, 1)."""

    grid: FourierGrid

    def __call__(self, t: Scalar, psi: Complex[Array, "..."], uniform: Float[Array, "N d"]) -> Points:
        return Mixture(self.grid, psi).points(uniform)


class SobolDraws(eqx.Module):
    """At any time, independent sets of points, one after the other, and the share that the mixture misses."""

    grid: FourierGrid

    def __call__(self, t: Scalar, psi: Complex[Array, "..."]) -> tuple[Points, Scalar]:
        mixture = Mixture(self.grid, psi)
        return mixture.points(jnp.asarray(_uniform_sets(self.grid.dimension), t.dtype)), mixture.missed


def shares(
    points: Float[Array, "K N d"], missed: Times, inside: Callable[[Vector], Bool[Array, ""]]
) -> tuple[Times, Times]:
    """The share of the points of `SobolDraws` that lie in a region, and its standard error."""
    hits = jax.vmap(jax.vmap(inside))(points).astype(points.dtype)
    of_sets = jnp.mean(hits.reshape(hits.shape[0], _SETS, -1), axis=2)
    of_sets = jnp.where(jnp.isfinite(missed)[:, None], of_sets, jnp.nan)
    scatter = jnp.std(of_sets, axis=1) / (_SETS - 1) ** 0.5
    return jnp.mean(of_sets, axis=1), jnp.hypot(scatter, missed)


@functools.cache
def _kernel() -> tuple[np.ndarray, np.ndarray]:
    """The distribution function of a cubic B-spline, and the places where it has these values, in spacings."""
    x = np.linspace(-2.0, 2.0, _TABLE)
    powers = np.stack([np.maximum(x + 2 - k, 0) ** 4 for k in range(5)])
    return np.array([1, -4, 6, -4, 1]) @ powers / 24, x


@functools.cache
def _uniform_sets(dimension: int) -> np.ndarray:
    """Independently scrambled sets of Sobol points in the unit cube, one after the other."""
    return np.concatenate(
        [
            qmc.Sobol(dimension, scramble=True, rng=np.random.default_rng(seed)).random_base2(_LOG_POINTS)
            for seed in range(_SETS)
        ]
    )
