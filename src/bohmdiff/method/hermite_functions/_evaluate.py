"""ψ at any point, moments and draws, from coefficients."""

import functools
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from ..._types import Points, Scalar
from ._index import Quanta, functions_at_nodes, listed, module_of, prefixes
from ._operator import Coefficients, Frame

# The distribution function of one coordinate is tabulated at so many points, to so many scales beyond the
# classical turning point of the highest function.
_TABLE = 512
_BEYOND = 3.0


class _Children(eqx.Module):
    """For each list of quantum numbers before a coordinate, the index of each list that has one more; N where
    there is none."""

    index: Int[Array, "R k"]


@functools.lru_cache(16)
def _children(quanta: Quanta) -> tuple[_Children, ...]:
    with jax.ensure_compile_time_eval():
        found = []
        for i, one in enumerate(prefixes(quanta)):
            k = np.arange(quanta.most[i] + 1, dtype=np.int32)[None]
            total = int(one.first[-1] + one.lengths[-1])
            index = np.where(k < one.lengths[:, None], one.first[:, None] + k, total)
            found.append(_Children(jnp.asarray(index.astype(np.int32))))
        return tuple(found)


def functions_and_slopes(
    most: int, x: Float[Array, " M"], centre: Scalar, scale: Scalar
) -> tuple[Float[Array, "k M"], Float[Array, "k M"]]:
    """φ_0 to φ_most of one coordinate and their derivatives, at points."""
    xi = (x - centre) / scale
    root = jnp.sqrt(scale)

    def step(state, n):
        before, now = state
        after = jnp.sqrt(2 / (n + 1)) * xi * now - jnp.sqrt(n / (n + 1)) * before
        return (now, after), after

    zero = jnp.exp(-0.5 * xi**2) * jnp.pi**-0.25 / root
    n = jnp.arange(0, most + 1, dtype=x.dtype)
    _, later = jax.lax.scan(step, (jnp.zeros_like(zero), zero), n)
    values = jnp.concatenate([zero[None], later])
    # φ_n' = √(n/2) φ_{n−1} − √((n+1)/2) φ_{n+1}
    lower = jnp.concatenate([jnp.zeros_like(zero)[None], values[:most]])
    slopes = (jnp.sqrt(n / 2)[:, None] * lower - jnp.sqrt((n + 1) / 2)[:, None] * values[1:]) / scale
    return values[: most + 1], slopes


def psi_and_gradient(
    quanta: Quanta, frame: Frame, c: Coefficients, x: Points
) -> tuple[Float[Array, "2 M"], Float[Array, "d 2 M"]]:
    """ψ and its gradient at many points, by sums over one coordinate after the other."""
    d = quanta.dimension
    functions = [
        functions_and_slopes(quanta.most[i], x[:, i], frame.centre[i], frame.scale[i]) for i in range(d)
    ]
    children = _children(quanta)
    # The last coordinate first: the coefficients are the same for all points, so it is a matrix product.
    values, slopes = functions[-1]
    rows = _padded(c)[:, children[-1].index]
    now, gradient = rows @ values, [rows @ slopes]
    for i in range(d - 2, -1, -1):
        values, slopes = functions[i]

        def summed(a: Array, weights: Array, index: Int[Array, "R k"] = children[i].index) -> Array:
            padded = jnp.concatenate([a, jnp.zeros_like(a[:, :1])], axis=1)
            return jnp.sum(padded[:, index] * weights[None, None], axis=2)

        gradient = [summed(now, slopes), *(summed(one, values) for one in gradient)]
        now = summed(now, values)
    return now[:, 0], jnp.stack(gradient)[:, :, 0]


def _padded(c: Any) -> Any:
    xp = module_of(c)
    return xp.concatenate([c, xp.zeros((2, 1), c.dtype)], axis=1)


class Moments(eqx.Module):
    """Mean `(d,)`, covariance `(d, d)` and norm of ψ, in NumPy or JAX; with an axis in front for several
    times."""

    mean: Any
    covariance: Any
    norm: Any


@functools.lru_cache(16)
def _raised(quanta: Quanta) -> Int[np.ndarray, "d N"]:
    """The index of k + e_i for each coordinate, or N."""
    numbers = listed(quanta).astype(np.int64)
    radix = [most + 2 for most in quanta.most]
    steps = np.array([int(np.prod(radix[i + 1 :])) for i in range(len(radix))])
    keys = numbers @ steps
    found = np.full((len(radix), len(keys)), len(keys), np.int32)
    for i, step in enumerate(steps):
        where = np.minimum(np.searchsorted(keys, keys + step), len(keys) - 1)
        there = keys[where] == keys + step
        found[i, there] = where[there]
    return found


def moments(quanta: Quanta, frame: Frame, c: Any) -> Moments:
    """Mean, covariance and norm, by lowering operators; in NumPy or JAX, as the coefficients are."""
    xp = module_of(c)
    raised, d = _raised(quanta), quanta.dimension
    roots = [xp.asarray(root, c.dtype) for root in _roots(quanta)]
    norm = xp.sum(c**2)
    # a_i c has the coefficient √(k_i + 1) c_{k + e_i}.
    lowered = [roots[i] * _padded(c)[:, raised[i]] for i in range(d)]
    # Real parts of inner products.
    shift = np.sqrt(2.0).astype(c.dtype) / norm * xp.stack([xp.sum(c * one) for one in lowered])
    rows: list[list[Any]] = [[0.0] * d for _ in range(d)]
    for i in range(d):
        for j in range(i, d):
            twice = roots[j] * _padded(lowered[i])[:, raised[j]]
            # ξ_i ξ_j = (a_i + a_i†)(a_j + a_j†) / 2
            rows[i][j] = rows[j][i] = xp.sum(c * twice + lowered[i] * lowered[j]) / norm + 0.5 * (i == j)
    second = xp.stack([xp.stack(row) for row in rows])
    scale, centre = xp.asarray(frame.scale), xp.asarray(frame.centre)
    covariance = (second - xp.outer(shift, shift)) * xp.outer(scale, scale)
    return Moments(centre + scale * shift, covariance, norm)


@functools.lru_cache(16)
def _roots(quanta: Quanta) -> Float[np.ndarray, "d N"]:
    return np.sqrt(listed(quanta).T.astype(float) + 1)


def on_nodes(
    quanta: Quanta, frame: Frame, c: Coefficients, more: int
) -> tuple[Points, Float[Array, " P"], Float[Array, "2 P"]]:
    """A product of Gauss–Hermite points, their weights, and ψ there."""
    nodes, weights, functions = [], [], []
    for i, most in enumerate(quanta.most):
        places, values, root = functions_at_nodes(most, most + 1 + more)
        nodes.append(frame.centre[i] + frame.scale[i] * jnp.asarray(places, c.dtype))
        weights.append(jnp.asarray(root**2, c.dtype) * frame.scale[i])
        functions.append(jnp.asarray(values / root[:, None], c.dtype) / jnp.sqrt(frame.scale[i]))
    points = jnp.stack(jnp.meshgrid(*nodes, indexing="ij"), axis=-1).reshape(-1, len(nodes))
    weight = functools.reduce(lambda a, b: jnp.outer(a, b).ravel(), weights)
    psi = tensor_of(quanta, c)
    for i, values in enumerate(functions):
        psi = jnp.moveaxis(jnp.tensordot(psi, values, axes=((i + 1,), (1,))), -1, i + 1)
    return points, weight, psi.reshape(2, -1)


def tensor_of(quanta: Quanta, c: Coefficients) -> Float[Array, "2 ..."]:
    """The coefficients with one axis for each coordinate, zero where there is no function."""
    shape = tuple(most + 1 for most in quanta.most)
    positions = np.ravel_multi_index(tuple(listed(quanta).astype(np.int64).T), shape)
    flat = jnp.zeros((2, int(np.prod(shape))), c.dtype).at[:, positions].set(c)
    return flat.reshape(2, *shape)


def placed(quanta: Quanta, frame: Frame, c: Coefficients, uniform: Float[Array, "M d"]) -> Points:
    """Points with density |ψ|² from numbers that are uniform in (0, 1), one coordinate after the other, the last
    one first: each from its distribution given those before."""
    d, m = quanta.dimension, uniform.shape[0]
    children = _children(quanta)
    found = [jnp.zeros(m, c.dtype)] * d
    given = None  # the coefficients that are left, (2, R, M), once a coordinate is known
    for i in range(d - 1, -1, -1):
        edge = (2 * quanta.most[i] + 1) ** 0.5 + _BEYOND
        xi = jnp.linspace(-edge, edge, _TABLE, dtype=c.dtype)
        one, zero = jnp.ones((), c.dtype), jnp.zeros((), c.dtype)
        values, _ = functions_and_slopes(quanta.most[i], xi, zero, one)
        index = children[i].index
        if given is None:
            rows = _padded(c)[:, index]  # (2, R, k)
            matrix = jnp.einsum("crk,crl->kl", rows, rows)
            density = jnp.sum(values * (matrix @ values), axis=0)[None]
        else:
            padded = jnp.concatenate([given, jnp.zeros_like(given[:, :1])], axis=1)
            rows = jnp.moveaxis(padded[:, index], -1, 0)  # (M, 2, R, k)
            matrix = jnp.einsum("mcrk,mcrl->mkl", rows, rows)
            density = jnp.einsum("kg,mkg->mg", values, matrix @ values)
        density = jnp.broadcast_to(jnp.maximum(density, 0), (m, _TABLE))
        place = jax.vmap(_inverted, in_axes=(None, 0, 0))(xi, density, uniform[:, i])
        found[i] = frame.centre[i] + frame.scale[i] * place
        here, _ = functions_and_slopes(quanta.most[i], place, zero, one)  # (k, M)
        given = rows @ here if given is None else jnp.einsum("mcrk,km->crm", rows, here)
        # Only ratios matter, and this keeps them away from the smallest numbers.
        given = given / jnp.sqrt(jnp.maximum(jnp.sum(given**2, axis=(0, 1)), jnp.finfo(c.dtype).tiny))
    return jnp.stack(found, axis=1)


def _inverted(xi: Float[Array, " G"], density: Float[Array, " G"], level: Scalar) -> Scalar:
    """Where the integral of a density, linear between the points, reaches a share of the whole."""
    h = xi[1] - xi[0]
    pieces = 0.5 * h * (density[1:] + density[:-1])
    below = jnp.concatenate([jnp.zeros(1, xi.dtype), jnp.cumsum(pieces)])
    target = level * below[-1]
    i = jnp.clip(jnp.searchsorted(below, target, side="right") - 1, 0, xi.shape[0] - 2)
    left, slope, rest = density[i], (density[i + 1] - density[i]) / h, target - below[i]
    # rest = left s + slope s²/2, without cancellation
    root = jnp.sqrt(jnp.maximum(left**2 + 2 * slope * rest, 0))
    tiny = jnp.finfo(xi.dtype).tiny
    s = 2 * rest / jnp.maximum(left + root, tiny)
    return xi[i] + jnp.clip(s, 0, h)
