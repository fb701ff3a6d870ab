"""The distribution function of |ψ|² on a line, and its inverse."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Complex, DTypeLike, Float

from ..._types import Scalar, Vector
from ._fourier import FourierGrid

# In the cell between two points the density is a polynomial of this degree. Its largest wavenumber is 2π over the
# spacing, so that the polynomial is right to all digits: π^n / (2^n n!) is 4e-15.
_DEGREE = 19
_HALVINGS = 60
# A region is resolved on this many parts of the box, or a few more.
_FINE = 2**14


class Distribution(eqx.Module):
    """How much of |ψ|² lies on either side of a point.

    `below` and `above` are the shares at the edges of the cells. `density` and `partial` are polynomials in
    each cell, as Chebyshev coefficients: the density, and its integral from the left edge. Everything is a sum
    of positive numbers, so the tails on both sides have relative accuracy.
    """

    grid: FourierGrid
    density: Float[Array, "n p"]
    partial: Float[Array, "n q"]
    below: Float[Array, " n+1"]
    above: Float[Array, " n+1"]

    def __init__(self, grid: FourierGrid, psi: Complex[Array, " n"]):
        dtype = psi.real.dtype
        nodes = np.cos(np.pi * (np.arange(_DEGREE + 1) + 0.5) / (_DEGREE + 1))
        values = _between_points(grid, psi, 0.5 * (nodes + 1) * grid.spacing[0])
        # From values at the nodes to coefficients, and from these to those of the integral over the cell.
        to_coefficients = np.linalg.inv(np.polynomial.chebyshev.chebvander(nodes, _DEGREE))
        integral = np.stack(
            [
                np.polynomial.chebyshev.chebint(row, lbnd=-1, scl=0.5 * grid.spacing[0])
                for row in np.eye(_DEGREE + 1)
            ]
        )
        density = values @ jnp.asarray(to_coefficients.T, dtype)
        partial = values @ jnp.asarray(to_coefficients.T @ integral, dtype)
        masses = jnp.maximum(jnp.sum(partial, axis=1), 0)
        zero, total = jnp.zeros(1, dtype), jnp.sum(masses)
        self.grid = grid
        self.density, self.partial = density / total, partial / total
        self.below = jnp.concatenate([zero, jnp.cumsum(masses)]) / total
        self.above = jnp.concatenate([jnp.cumsum(masses[::-1])[::-1], zero]) / total

    def shares(self, x: Float[Array, " M"]) -> tuple[Float[Array, " M"], Float[Array, " M"]]:
        """The shares to the left and to the right of each point; both zero outside the box."""
        scaled = (x - self.grid.lower[0]) / self.grid.spacing[0]
        cell = jnp.clip(jnp.floor(scaled).astype(int), 0, self.grid.sizes[0] - 1)
        part = _chebyshev(self.partial[cell], 2 * (scaled - cell.astype(x.dtype)) - 1)
        mass = jnp.sum(self.partial[cell], axis=1)
        inside = (scaled >= 0) & (scaled <= self.grid.sizes[0])
        low, high = self.below[cell] + part, self.above[cell + 1] + (mass - part)
        return jnp.where(inside, low, 0), jnp.where(inside, high, 0)

    def inverse(self, low: Float[Array, " M"], high: Float[Array, " M"]) -> Float[Array, " M"]:
        """The points with the share `low` to their left and `high` to their right; the smaller share decides."""
        n, left = self.grid.sizes[0], low < high
        from_left = jnp.searchsorted(self.below, low, side="right") - 1
        from_right = n - jnp.searchsorted(self.above[::-1], high, side="right")
        cell = jnp.clip(jnp.where(left, from_left, from_right), 0, n - 1)
        partial, density = self.partial[cell], self.density[cell]
        mass = jnp.sum(partial, axis=1)
        target = jnp.where(left, low - self.below[cell], mass - (high - self.above[cell + 1]))
        unit, fixed = 0.5 * self.grid.spacing[0], jax.lax.stop_gradient((partial, density, target))

        def miss_and_slope(s: Array, cells: tuple[Array, Array, Array]) -> tuple[Array, Array]:
            partial, density, target = cells
            return _chebyshev(partial, s) - target, unit * _chebyshev(density, s)

        # Newton steps inside the bracket, bisection otherwise: safe where ρ vanishes.
        def narrow(_: Any, state: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
            s, first, last = state
            miss, slope = miss_and_slope(s, fixed)
            first, last = jnp.where(miss < 0, s, first), jnp.where(miss < 0, last, s)
            newton = s - miss / jnp.where(slope > 0, slope, 1)
            safe = (slope > 0) & (newton > first) & (newton < last)
            return jnp.where(safe, newton, 0.5 * (first + last)), first, last

        one = jnp.ones_like(low)
        s, _, _ = jax.lax.fori_loop(0, _HALVINGS, narrow, jax.lax.stop_gradient((0 * one, -one, one)))
        # The derivatives are those of the implicit function, not of the iterations.
        miss, slope = miss_and_slope(s, (partial, density, target))
        step = miss / jnp.where(slope > 0, slope, jnp.inf)
        s = s - (step - jax.lax.stop_gradient(step))
        x = self.grid.lower[0] + self.grid.spacing[0] * (cell.astype(s.dtype) + 0.5 * (s + 1))
        return jnp.where(jnp.isfinite(self.below[-1] + target), x, jnp.nan)


@eqx.filter_jit
def shares_beside(
    grid: FourierGrid, psi: Complex[Array, " n"], x: Float[Array, " M"]
) -> tuple[Float[Array, " M"], Float[Array, " M"]]:
    """The shares of |ψ|² to the left and to the right of points."""
    return Distribution(grid, psi).shares(x)


class Quantiles(eqx.Module):
    """At any time, the points with given shares on either side."""

    grid: FourierGrid
    low: Float[Array, " M"]
    high: Float[Array, " M"]

    def __call__(self, t: Scalar, psi: Complex[Array, " n"]) -> Float[Array, " M"]:
        return Distribution(self.grid, psi).inverse(self.low, self.high)


class Region(eqx.Module):
    """At any time, the share of a set that is given at equally spaced places, and its error."""

    grid: FourierGrid
    inside: Bool[Array, " fine"]

    def __call__(self, t: Scalar, psi: Complex[Array, " n"]) -> tuple[Scalar, Scalar]:
        partial = Distribution(self.grid, psi).partial
        parts = (self.inside.size - 1) // self.grid.sizes[0]
        s = 2 * np.arange(parts + 1) / parts - 1
        basis = np.polynomial.chebyshev.chebvander(s, partial.shape[1] - 1)
        masses = jnp.diff(partial @ jnp.asarray(basis.T, partial.dtype), axis=1).ravel()
        first, last = self.inside[:-1], self.inside[1:]
        share = 0.5 * (first.astype(masses.dtype) + last.astype(masses.dtype))
        # The boundary may lie anywhere in its part.
        unknown = jnp.where(first != last, masses, 0)
        return jnp.sum(masses * share), jnp.sqrt(jnp.sum(unknown**2) / 12)


def region(grid: FourierGrid, inside: Callable[[Vector], Bool[Array, ""]], dtype: DTypeLike) -> Region:
    """The region where `inside` is true."""
    fine = grid.sizes[0] * -(-_FINE // grid.sizes[0])
    places = grid.lower[0] + grid.lengths[0] / fine * np.arange(fine + 1)
    return Region(grid, jax.vmap(inside)(jnp.asarray(places[:, None], dtype)))


def _between_points(
    grid: FourierGrid, psi: Complex[Array, " n"], shifts: np.ndarray
) -> Float[Array, "n s"]:
    """|ψ|² at each point of the grid, moved by each of the shifts."""
    n = grid.sizes[0]
    factors = np.exp(1j * np.outer(shifts, grid.wavenumbers(0)))
    if n % 2 == 0:  # the wave at the Nyquist wavenumber is a cosine
        factors[:, n // 2] = np.real(factors[:, n // 2])
    values = jnp.fft.ifft(jnp.fft.fft(psi)[None] * jnp.asarray(factors, psi.dtype))
    return (values.real**2 + values.imag**2).T


def _chebyshev(coefficients: Float[Array, "M q"], s: Float[Array, " M"]) -> Float[Array, " M"]:
    """A polynomial for each point, by Clenshaw's recurrence."""
    later = latest = jnp.zeros_like(s)
    for k in range(coefficients.shape[1] - 1, 0, -1):
        later, latest = coefficients[:, k] + 2 * s * later - latest, later
    return coefficients[:, 0] + s * later - latest
