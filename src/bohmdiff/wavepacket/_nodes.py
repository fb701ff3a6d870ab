"""Nodes of a wave function: where its density, followed downhill, falls to zero."""

import math
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, DTypeLike, Float
from scipy.stats import chi

from .._precision import in_full_precision
from .._types import Points, Scalar, Vector
from ._transport import LogDensityFunction, Transport
from .design import SobolPoints

# How many points go downhill, and how far out half of them start. They stay where all but this probability is.
_STARTS, _WIDER, _NEGLIGIBLE = 2048, 1.4, 1e-6
_STEPS, _LONGEST = 64, 1.0  # in standard deviations
# At a node the density rises by a factor of more than 100 within this distance, on both sides: its value there is
# below 1e-12 of that at one standard deviation from it.
_NEAR, _RISE = 1e-5, math.log(100)
_ROUNDING = 256  # times the precision: the least distance


class Node(NamedTuple):
    """The bottom of the steepest valley that points fell into, whether it is a node, and the density there as a
    share of that close by."""

    x: Vector
    found: Bool[Array, ""]
    share: Scalar


class _Descent(NamedTuple):
    """Points on their way, in whitened coordinates, what they try next, and the longest step for each."""

    z: Points
    value: Float[Array, " M"]
    gradient: Points
    along: Points
    tried: Points
    longest: Float[Array, " M"]


@in_full_precision
@eqx.filter_jit
def find_node(log_density: LogDensityFunction, transport: Transport) -> Node:
    r"""Follows $\ln\rho$ downhill from points of the density.

    The steps $-2 s/|s|^2$ with $s = \nabla\ln\rho$ are those of Newton's method for $|\psi| = 0$ and find a node
    quickly. A valley that is deep but smooth ends at a minimum, or in the tails.
    """
    # What is found has no derivatives.
    log_density, transport = jax.tree.map(
        lambda leaf: jax.lax.stop_gradient(leaf) if eqx.is_array(leaf) else leaf, (log_density, transport)
    )
    mean, cholesky, dtype = transport.mean, transport.cholesky, transport.mean.dtype
    radius = float(chi(mean.size).isf(_NEGLIGIBLE))

    def value(z: Vector) -> Scalar:
        return log_density(mean + cholesky @ z)

    @jax.vmap
    def is_inside(z: Vector) -> Bool[Array, ""]:
        xi = jax.vmap(jnp.interp, in_axes=(0, None, 0))(z, transport.z, transport.xi)
        return jnp.sum(xi**2) <= radius**2

    def step(_, here: _Descent) -> _Descent:
        lower, gradient = jax.vmap(jax.value_and_grad(value))(here.tried)
        # False also where the value is NaN.
        taken = (lower < here.value) & is_inside(here.tried)
        z, gradient, along = (
            jnp.where(taken[:, None], new, old)
            for new, old in (
                (here.tried, here.z),
                (gradient, here.gradient),
                (here.tried - here.z, here.along),
            )
        )
        longest = jnp.where(taken, _LONGEST, 0.25 * jnp.linalg.norm(here.tried - here.z, axis=1))
        size = jnp.linalg.norm(gradient, axis=1)
        tried = z - (jnp.minimum(2 / size, longest) / size)[:, None] * gradient
        return _Descent(z, jnp.where(taken, lower, here.value), gradient, along, tried, longest)

    start = jax.vmap(jax.vmap(jnp.interp, in_axes=(0, 0, None)), in_axes=(0, None, None))(
        _starts(mean.size, dtype), transport.xi, transport.z
    )
    nowhere, infinite = jnp.zeros_like(start), jnp.full(start.shape[:1], jnp.inf, dtype)
    first = _Descent(start, infinite, nowhere, nowhere, start, infinite)
    last = jax.lax.fori_loop(0, _STEPS, step, first)

    size = jnp.max(jnp.abs(mean) / jnp.linalg.norm(cholesky, axis=1))
    near = jnp.maximum(_NEAR, _ROUNDING * jnp.finfo(dtype).eps * (1 + size))
    length = jnp.linalg.norm(last.along, axis=1, keepdims=True)
    aside = near * last.along / jnp.where(length > 0, length, 1)
    sides = jax.lax.map(jax.vmap(value), jnp.stack([last.z + aside, last.z - aside]))
    rise = jnp.min(sides, axis=0) - last.value
    # Around a region of zeros, and where points came from, there may be no numbers.
    rise = jnp.where(jnp.isneginf(last.value), jnp.inf, jnp.where(jnp.isfinite(last.value), rise, 0))
    steepest = jnp.argmax(jnp.nan_to_num(rise, nan=0.0))
    return Node(mean + cholesky @ last.z[steepest], rise[steepest] > _RISE, jnp.exp(-rise[steepest]))


def _starts(dimension: int, dtype: DTypeLike) -> Points:
    with jax.ensure_compile_time_eval():
        points, _ = SobolPoints(_STARTS)(dimension, jax.random.key(0))
        return jnp.asarray(np.concatenate([points, _WIDER * np.asarray(points)]), dtype)
