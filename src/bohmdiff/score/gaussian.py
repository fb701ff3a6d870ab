"""The score of a Gaussian that moves, spreads and rotates."""

from typing import NamedTuple

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
import scipy.interpolate
from jaxtyping import Array, PyTree

from .._types import Matrix, Scalar, Time, Times, Vector
from .score import AbstractGradientScore


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


def smooth_path(ts: Times, values: PyTree) -> diffrax.CubicInterpolation:
    """The piecewise cubic function through values at equal time steps, for any pytree. Its derivatives at the
    steps are those of the quintic spline through the values."""
    count = ts.size
    spline = scipy.interpolate.make_interp_spline(np.arange(count), np.eye(count), k=min(5, count - 1))
    slopes = jnp.asarray(spline(np.arange(count), nu=1), ts.dtype) / (ts[1] - ts[0])
    return cubic_path(ts, values, jax.tree.map(lambda y: jnp.tensordot(slopes, y, axes=1), values))
