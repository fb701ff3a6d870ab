"""The score of a Gaussian that moves, spreads and rotates."""

from functools import lru_cache
from typing import NamedTuple

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
import scipy.interpolate
from jaxtyping import Array, ArrayLike, Int, PyTree

from .._types import Matrix, Scalar, Time, Times, Vector
from .score import AbstractGradientScore

_ORDER = 6  # of the differences in time


class MovingGaussian(NamedTuple):
    """A Gaussian at one time, without its normalisation."""

    mean: Vector
    precision: Matrix


class GaussianScore(AbstractGradientScore):
    r"""$s = -C^{-1}(t)\,(x - \mu(t))$, with mean and precision as cubic functions of time.

    ```python
    thawed = bd.solve(problem, bd.GaussianDynamics()).fitted
    thawed(0.5, x)
    ```

    **Arguments:**

    - `path`: a Diffrax interpolation whose value at `t` is a `MovingGaussian`.

    **Units:** 1 / length.

    **Raises:** nothing; it is made by [`GaussianDynamics`][bohmdiff.GaussianDynamics].
    """

    path: diffrax.CubicInterpolation

    def __call__(self, t: Time, x: Vector) -> Vector:
        mean, precision = self.path.evaluate(jnp.asarray(t, x.dtype))
        return -precision @ (x - mean)

    def log_density(self, t: Time, x: Vector) -> Scalar:
        r"""$\ln\rho$ up to a function of time."""
        mean, precision = self.path.evaluate(jnp.asarray(t, x.dtype))
        return -0.5 * (x - mean) @ precision @ (x - mean)


def cubic_path(ts: Times, values: PyTree, rates: PyTree) -> diffrax.CubicInterpolation:
    """The piecewise cubic function of time with these values and derivatives, for any pytree."""

    def coefficients(y: Array, rate: Array) -> tuple[Array, Array, Array, Array]:
        step = jnp.diff(ts).reshape(-1, *[1] * (y.ndim - 1))
        secant = jnp.diff(y, axis=0) / step
        c = (3 * secant - 2 * rate[:-1] - rate[1:]) / step
        d = (rate[:-1] + rate[1:] - 2 * secant) / step**2
        return d, c, rate[:-1], y[:-1]

    coeffs = jax.tree.map(coefficients, values, rates)
    return diffrax.CubicInterpolation(ts, jax.tree.transpose(jax.tree.structure(values), None, coeffs))


def smooth_path(
    ts: Times, values: PyTree, steps: Int[ArrayLike, ""] | None = None
) -> diffrax.CubicInterpolation:
    """The piecewise cubic function through values at equal time steps, for any pytree. Its derivatives at the
    steps come from differences of up to sixth order.

    `steps`, which may be traced, is the number of steps that count; later times and values are ignored.
    """
    room = ts.size
    steps = jnp.asarray(room - 1 if steps is None else steps)
    order = jnp.minimum(steps, _ORDER)
    index = jnp.arange(room)
    # The window of each time lies around it, and at the ends beside it.
    first = jnp.clip(index - order // 2, 0, steps - order)
    slopes = jnp.asarray(_difference_weights(), ts.dtype)[order, jnp.minimum(index - first, _ORDER)]
    window = jnp.minimum(first[:, None] + jnp.arange(_ORDER + 1)[None], steps)
    step = ts[1] - ts[0]
    values = jax.tree.map(lambda y: y[jnp.minimum(index, steps)], values)
    rates = jax.tree.map(lambda y: jnp.einsum("kj,kj...->k...", slopes, y[window]) / step, values)
    return cubic_path(ts[0] + step * index.astype(ts.dtype), values, rates)


@lru_cache
def _difference_weights() -> np.ndarray:
    """Weights of the values at 0, 1, ... in the derivative at each of them, by the order of the polynomial
    through these values: shape `(orders, places, values)`."""
    weights = np.zeros((_ORDER + 1,) * 3)
    for order in range(1, _ORDER + 1):
        nodes = np.arange(order + 1)
        lagrange = scipy.interpolate.make_interp_spline(nodes, np.eye(order + 1), k=order)
        weights[order, : order + 1, : order + 1] = lagrange(nodes, nu=1)
    return weights
