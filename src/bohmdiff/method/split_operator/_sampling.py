"""Draws and quantiles of a density on a Fourier grid. On the host, with NumPy."""

from itertools import product

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Complex, Float

from ..._check import numpy_generator
from ..._types import Key
from ._fourier import FourierGrid

# A bound of the ratio of a resolved density to its multilinear interpolant; a larger ratio raises it. Its inverse
# is the share of proposals that are accepted.
_BOUND = 1.5


def sample_density(grid: FourierGrid, psi: Complex[Array, "..."], key: Key, n: int) -> Float[Array, "n d"]:
    """`n` independent draws from |ψ|² between the points."""
    table = grid.table(psi)
    density = (np.abs(np.asarray(psi)) ** 2).astype(float)
    cumulative = np.cumsum(density.ravel())
    cumulative /= cumulative[-1]
    rng = numpy_generator(key)
    bound, accepted, missing = _BOUND, [], n
    # A single batch size needs a single compilation.
    size = min(int(1.2 * _BOUND * n) + 16, 2**16)
    while missing > 0:
        x = _propose(grid, cumulative, rng, size)
        true = np.abs(np.asarray(grid.evaluate(table, jnp.asarray(x, psi.real.dtype))[0])) ** 2
        ratio = true / np.maximum(_interpolated(grid, density, x), np.finfo(float).tiny)
        if ratio.max() > bound:
            # All earlier draws were accepted with too low a bound: they are drawn again.
            bound, accepted, missing = 1.2 * ratio.max(), [], n
            continue
        kept = x[rng.random(size) * bound < ratio][:missing]
        accepted.append(kept)
        missing -= len(kept)
    return jnp.asarray(np.concatenate(accepted), psi.real.dtype)


def _propose(grid: FourierGrid, cumulative: np.ndarray, rng: np.random.Generator, size: int) -> np.ndarray:
    """Draws from the multilinear interpolant: a grid point by its weight, and a hat function around it."""
    index = np.minimum(np.searchsorted(cumulative, rng.random(size), side="right"), cumulative.size - 1)
    where = np.stack(np.unravel_index(index, grid.sizes), axis=1)
    hat = rng.random((size, grid.dimension)) + rng.random((size, grid.dimension)) - 1
    return np.asarray(grid.lower) + np.mod((where + hat) * grid.spacing, grid.lengths)


def _interpolated(grid: FourierGrid, density: np.ndarray, x: np.ndarray) -> np.ndarray:
    scaled = (x - np.asarray(grid.lower)) / np.asarray(grid.spacing)
    base = np.floor(scaled).astype(int)
    share = scaled - base
    total = np.zeros(len(x))
    for corner in product((0, 1), repeat=grid.dimension):
        weight = np.prod(np.where(corner, share, 1 - share), axis=1)
        total += weight * density[tuple(np.mod(base + corner, grid.sizes).T)]
    return total


def invert_distribution(grid: FourierGrid, psi: np.ndarray, levels: np.ndarray) -> np.ndarray:
    """The points with a share `levels` of |ψ|² to their left, in one dimension."""
    n, length = grid.sizes[0], grid.lengths[0]
    # |ψ|² has twice the bandwidth of ψ. Interpolating it from more than twice as many points is exact.
    fine = 2 * n + 2
    modes = np.fft.fft(psi.astype(complex)) / n
    padded = np.zeros(fine, complex)
    padded[: (n + 1) // 2], padded[-(n // 2) :] = modes[: (n + 1) // 2], modes[-(n // 2) :]
    if n % 2 == 0:  # the Nyquist mode is a cosine: half of it on either side
        padded[n // 2] = padded[-(n // 2)] = modes[n // 2] / 2
    density = np.abs(fine * np.fft.ifft(padded)) ** 2
    coefficients = np.fft.rfft(density)[1 : n + 1] / fine
    mean, k = density.mean(), 2 * np.pi * np.arange(1, n + 1) / length

    def below_and_slope(y):
        waves = np.exp(1j * np.outer(y, k))
        below = mean * y + 2 * ((waves - 1) @ (coefficients / (1j * k))).real
        return below / (mean * length), (mean + 2 * (waves @ coefficients).real) / (mean * length)

    low, high = np.zeros_like(levels), np.full_like(levels, length)
    y = (low + high) / 2
    # Newton steps inside the bracket, bisection otherwise: safe where ρ vanishes.
    for _ in range(100):
        below, slope = below_and_slope(y)
        low, high = np.where(below < levels, y, low), np.where(below < levels, high, y)
        with np.errstate(divide="ignore", invalid="ignore"):
            step = y - (below - levels) / slope
        proposal = np.where((step > low) & (step < high), step, (low + high) / 2)
        if np.all(np.abs(proposal - y) <= 1e-12 * length):
            break
        y = proposal
    return grid.lower[0] + y
