"""A map from the standard normal distribution to an unnormalised density."""

import math
from collections.abc import Callable
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.scipy.special import ndtri
from jaxtyping import Array, DTypeLike, Float

from .._precision import in_full_precision
from .._types import Matrix, Points, Scalar, Vector, Weights
from .design import GaussHermitePoints, SobolPoints

_REACH = 10.0  # extent of the tables, in standard deviations
_KNOTS = 401
_ROUNDS = 2
_BATCH = 4096
# Quadrature nodes per axis, by dimension, for integrals over all coordinates and over all but one. An odd number
# puts one in the middle, where a node of a wave function is most likely. In more dimensions, Sobol points.
_MORE = 0
_NODES = {1: 201, 2: 101, 3: 41, 4: 17, _MORE: 2**16}
_OTHER_NODES = {1: 64, 2: 24, _MORE: 2**10}
# Extent of the grid for the normaliser, in standard deviations, and points per axis.
_GRID = {1: (20.0, 1601), 2: (14.0, 281), 3: (8.0, 65), 4: (7.0, 35)}
_LOG_NORMAL = 0.5 * math.log(2 * math.pi)

LogDensityFunction = Callable[[Vector], Scalar]


class Transport(eqx.Module):
    r"""$x = \bar x + L\,(T_1(\xi_1), \ldots, T_d(\xi_d))$ with increasing $T_i$, monotone rational quadratic
    splines (Gregory and Delbourgo, IMA J. Numer. Anal. 2, 123 (1982)).

    For standard normal ξ, $T_i$ produces the marginal density of the target along the whitened axis $i$. Weights
    from the derivative of the map correct for the remaining difference from the target.
    """

    mean: Vector
    cholesky: Matrix
    xi: Float[Array, "d knots"]
    z: Float[Array, " knots"]
    slope: Float[Array, "d knots"]

    def __call__(self, xi: Vector) -> tuple[Vector, Scalar]:
        r"""The image $x$ of a point, and $\ln|\partial x/\partial\xi|$."""
        z, rate = jax.vmap(self._along, in_axes=(0, 0, 0))(xi, self.xi, self.slope)
        x = self.mean + self.cholesky @ z
        return x, jnp.sum(jnp.log(rate)) + jnp.sum(jnp.log(jnp.diag(self.cholesky)))

    def log_ratio(self, log_density: LogDensityFunction, xi: Vector) -> tuple[Vector, Scalar]:
        r"""The image of a point, and $\ln\rho/q$ there, where q is the density that the map produces."""
        x, stretch = self(xi)
        return x, log_density(x) + stretch + 0.5 * jnp.sum(xi**2) + xi.size * _LOG_NORMAL

    def _along(
        self, xi: Scalar, knots: Float[Array, " knots"], slopes: Float[Array, " knots"]
    ) -> tuple[Scalar, Scalar]:
        """One coordinate and its derivative; linear beyond the outermost knots."""
        inside = jnp.clip(xi, knots[0], knots[-1])
        k = jnp.clip(jnp.searchsorted(knots, inside, side="right") - 1, 0, knots.size - 2)
        width, height = knots[k + 1] - knots[k], self.z[k + 1] - self.z[k]
        s, left, right = height / width, slopes[k], slopes[k + 1]
        u = (inside - knots[k]) / width
        bent = u * (1 - u)
        below = s + (left + right - 2 * s) * bent
        z = self.z[k] + height * (s * u**2 + left * bent) / below
        rate = s**2 * (right * u**2 + 2 * s * bent + left * (1 - u) ** 2) / below**2
        return z + rate * (xi - inside), rate


class FittedTransport(NamedTuple):
    r"""A transport to $e^f / \int e^f$, and its quality.

    - `log_normaliser`: $\ln\int e^f$.
    - `effective`: the effective fraction of the points: 1 if all have the same weight.
    - `outside`: the largest marginal density at the ends of the tables, relative to its maximum.
    - `worst`: one of the evaluated points and f there: a point where f is not finite, if there is one.
    """

    transport: Transport
    log_normaliser: Scalar
    effective: Scalar
    outside: Scalar
    worst: tuple[Vector, Scalar]


@in_full_precision
@eqx.filter_jit
def fit_transport(log_density: LogDensityFunction, mean: Vector, covariance: Matrix) -> FittedTransport:
    """Computes the marginal densities by quadrature and from these the mean and the covariance, and repeats this
    with the new mean and covariance. The arguments `mean` and `covariance` are the starting values."""
    nodes, weights = _standard(mean.size, _NODES, mean.dtype)
    for _ in range(_ROUNDS):
        transport, _ = _from_marginals(log_density, mean, covariance)
        x, log_ratio = transported(transport, log_density, nodes)
        moved = jax.nn.softmax(log_ratio + jnp.log(weights))
        mean = moved @ x
        centred = x - mean[None]
        covariance = (centred.T * moved[None]) @ centred
    transport, outside = _from_marginals(log_density, mean, covariance)
    x, log_ratio = transported(transport, log_density, nodes)
    moved = jax.nn.softmax(log_ratio + jnp.log(weights))
    worst = jnp.argmax(~jnp.isfinite(log_ratio))
    return FittedTransport(
        transport,
        _log_integral(log_density, transport, log_ratio + jnp.log(weights)),
        1 / jnp.sum(moved**2 / weights),
        outside,
        (x[worst], log_density(x[worst])),
    )


@eqx.filter_jit
def transported(
    transport: Transport, log_density: LogDensityFunction, xi: Points
) -> tuple[Points, Float[Array, " M"]]:
    r"""The images of points, and $\ln\rho/q$ there; in batches, to limit memory."""
    return jax.lax.map(lambda p: transport.log_ratio(log_density, p), xi, batch_size=_BATCH)


def _log_integral(
    log_density: LogDensityFunction, transport: Transport, log_ratios: Float[Array, " M"]
) -> Scalar:
    """Integrates on a grid in the whitened coordinates, where the trapezoidal rule converges faster than any
    power for a smooth density. In many dimensions, uses the weights of the points."""
    d = transport.mean.size
    if d not in _GRID:
        return jax.nn.logsumexp(log_ratios)
    reach, number = _GRID[d]
    axis = jnp.linspace(-reach, reach, number, dtype=transport.mean.dtype)

    def at(index: Array) -> Scalar:
        z = axis[jnp.stack(jnp.unravel_index(index, (number,) * d))]
        return _finite_or_none(log_density(transport.mean + transport.cholesky @ z))

    values = jax.lax.map(at, jnp.arange(number**d), batch_size=_BATCH)
    # Not the difference of two points, which rounding would make.
    spacing = math.log(2 * reach / (number - 1))
    cell = d * spacing + jnp.sum(jnp.log(jnp.diag(transport.cholesky)))
    return jax.nn.logsumexp(values) + cell


def _finite_or_none(log_density: Array) -> Array:
    """Replaces values that are not finite by -∞. They may occur far out, where the density is negligible; `worst`
    reports those that matter."""
    return jnp.where(jnp.isfinite(log_density), log_density, -jnp.inf)


def _from_marginals(
    log_density: LogDensityFunction, mean: Vector, covariance: Matrix
) -> tuple[Transport, Scalar]:
    d, dtype = mean.size, mean.dtype
    cholesky = jnp.linalg.cholesky(covariance)
    z = jnp.linspace(-_REACH, _REACH, _KNOTS, dtype=dtype)
    others, weights = _standard(d - 1, _OTHER_NODES, dtype)
    log_weights = jnp.log(weights) + 0.5 * jnp.sum(others**2, axis=1)

    def marginals(at: Scalar) -> Vector:
        def along(i: int) -> Scalar:
            here = jnp.full_like(log_weights, at)[:, None]
            points = jnp.concatenate([others[:, :i], here, others[:, i:]], axis=1)
            values = jax.vmap(lambda p: log_density(mean + cholesky @ p))(points)
            return jax.nn.logsumexp(_finite_or_none(values) + log_weights)

        return jnp.stack([along(i) for i in range(d)])

    log_marginals = jax.lax.map(marginals, z).T
    log_marginals = log_marginals - jnp.max(log_marginals, axis=1, keepdims=True)
    xi, slope = jax.vmap(_knots, in_axes=(None, 0))(z, log_marginals)
    outside = jnp.exp(jnp.max(log_marginals[:, jnp.array([0, -1])]))
    return Transport(mean, cholesky, xi, z, slope), outside


def _knots(
    z: Float[Array, " knots"], log_marginal: Float[Array, " knots"]
) -> tuple[Float[Array, " knots"], Float[Array, " knots"]]:
    r"""$\xi = \Phi^{-1}(F(z))$ and $dz/d\xi = \phi(\xi)/g(z)$ for a density g with the distribution F."""
    h, dtype = z[1] - z[0], z.dtype
    density = jnp.exp(log_marginal)
    density = density / (h * jnp.sum(density))
    # A small Gaussian background keeps the density positive, and the map steep but finite across gaps.
    least = math.sqrt(float(jnp.finfo(dtype).eps))
    density = (1 - least) * density + least * jnp.exp(-0.5 * z**2 - _LOG_NORMAL)
    rate = jnp.asarray(jnp.gradient(density, h))
    trapezoid = 0.5 * h * (density[1:] + density[:-1])
    better = trapezoid + h**2 / 12 * (rate[:-1] - rate[1:])
    within = jnp.where(better > 0.5 * trapezoid, better, trapezoid)
    # The probability beyond the ends, estimated as for a Gaussian.
    first, last = density[:1] / _REACH, density[-1:] / _REACH
    below = jnp.cumsum(jnp.concatenate([first, within]))
    above = jnp.cumsum(jnp.concatenate([last, within[::-1]]))[::-1]
    total = below[-1] + last[0]
    below, above = below / total, above / total
    # Integrated from the nearer end: otherwise rounding would destroy the upper tail.
    lower = below < above
    xi = jnp.where(lower, ndtri(jnp.where(lower, below, 0.5)), -ndtri(jnp.where(lower, 0.5, above)))
    return xi, jnp.exp(-0.5 * xi**2 - _LOG_NORMAL) * total / density


def _standard(dimension: int, nodes: dict[int, int], dtype: DTypeLike) -> tuple[Points, Weights]:
    """Points and weights for the standard normal distribution."""
    if dimension == 0:
        return jnp.zeros((1, 0), dtype), jnp.ones(1, dtype)
    if dimension in nodes:
        points, weights = GaussHermitePoints(nodes[dimension], discard=1e-12)(dimension)
    else:
        with jax.ensure_compile_time_eval():
            points, weights = SobolPoints(nodes[_MORE])(dimension, jax.random.key(0))
    return jnp.asarray(points, dtype), jnp.asarray(weights, dtype)
