"""Gaussian wave packets: initial states in closed form."""

import jax.numpy as jnp
import jax.scipy.linalg as jsl
from jaxtyping import Array, Bool, DTypeLike, Float

from .._check import as_real_array, describe, range_hint, require
from .._precision import in_full_precision
from .._types import Key, Matrix, Numbers, Points, Scalar, Vector, Weights
from .design import AbstractDesign
from .state import AbstractInitialState


class GaussianWavePacket(AbstractInitialState):
    r"""$\rho_0 = \mathcal N(\text{mean}, \text{covariance})$ with phase
    $S_0 = p\cdot(x-\bar x) + \tfrac12 (x-\bar x)^\top C\,(x-\bar x)$.

    ```python
    initial = bd.GaussianWavePacket(
        mean=[1.0, 0.0], covariance=0.5, momentum=[0.0, 2.0]
    )
    initial.log_density(jnp.zeros(2))
    ```

    **Arguments:**

    - `mean`: centre of the packet, shape `(d,)`. Its dtype sets the precision of the solution.
    - `covariance`: of the density $\rho_0$ (not of ψ0): a positive scalar, `(d,)` variances, or a
        symmetric positive definite `(d, d)` matrix. Length squared.
    - `momentum`: $p$, shape `(d,)`, zero if not given.
    - `chirp`: $C$, symmetric `(d, d)`, zero if not given: the linear part of the momentum field,
        $\nabla S_0 = p + C (x - \bar x)$.

    **Units:** `mean` in length, `covariance` in length², `momentum` in action / length and `chirp` in
    action / length², where the action has the units of $\hbar$.

    **Raises:** `ValueError` for a wrong shape, a covariance that is not symmetric positive definite,
    a chirp that is not symmetric, or entries that are not finite.
    """

    mean: Vector
    covariance: Matrix
    momentum: Vector
    chirp: Matrix

    @in_full_precision
    def __init__(
        self,
        mean: Numbers,
        covariance: Numbers,
        momentum: Numbers | None = None,
        chirp: Numbers | None = None,
    ):
        mean = as_real_array(mean, "mean")
        if mean.ndim != 1 or mean.size == 0:
            raise ValueError(
                f"mean must have shape (d,), one entry per coordinate, but shape {mean.shape} was "
                "given; for one coordinate pass mean=[value]."
            )
        d, dtype = mean.size, mean.dtype
        covariance = as_real_array(covariance, "covariance").astype(dtype)
        if covariance.shape not in ((), (d,), (d, d)):
            raise ValueError(
                f"covariance must be a scalar or have shape ({d},) or ({d}, {d}) to match a mean of "
                f"shape ({d},), but shape {covariance.shape} was given."
            )
        if covariance.ndim < 2:
            covariance = jnp.diag(jnp.broadcast_to(covariance, (d,)))
        momentum = jnp.zeros(d, dtype) if momentum is None else as_real_array(momentum, "momentum")
        if momentum.shape != (d,):
            raise ValueError(f"momentum must have shape ({d},), but shape {momentum.shape} was given.")
        chirp = jnp.zeros((d, d), dtype) if chirp is None else as_real_array(chirp, "chirp")
        if chirp.shape != (d, d):
            raise ValueError(f"chirp must have shape ({d}, {d}), but shape {chirp.shape} was given.")
        self.mean = mean
        self.covariance = positive_definite(covariance, "covariance")
        self.momentum = momentum.astype(dtype)
        self.chirp = require(
            chirp,
            is_symmetric(chirp),
            f"chirp must be symmetric, since S0 is a scalar, but {describe(chirp)} was given.",
        ).astype(dtype)

    @property
    def dimension(self) -> int:
        return self.mean.shape[0]

    @property
    def dtype(self) -> DTypeLike:
        return self.mean.dtype

    def log_density(self, x: Vector) -> Scalar:
        return log_normal(x, self.mean, self.covariance)

    def phase(self, x: Vector) -> Scalar:
        y = x - self.mean
        return self.momentum @ y + 0.5 * y @ self.chirp @ y

    @in_full_precision
    def particles(self, design: AbstractDesign, key: Key | None = None) -> tuple[Points, Weights]:
        normal, weights = design(self.dimension, key)
        cholesky = jnp.linalg.cholesky(self.covariance)
        points = self.mean[None] + jnp.asarray(normal, self.dtype) @ cholesky.T
        return points, jnp.asarray(weights, self.dtype)


def is_symmetric(matrices: Float[Array, "*n d d"]) -> Bool[Array, ""]:
    """Whether all matrices are symmetric up to rounding."""
    scale = jnp.max(jnp.abs(matrices), axis=(-2, -1), keepdims=True)
    return jnp.all(jnp.abs(matrices - jnp.swapaxes(matrices, -2, -1)) <= 1e-5 * scale)


def positive_definite(matrices: Float[Array, "*n d d"], name: str) -> Float[Array, "*n d d"]:
    """One or several covariance matrices, checked and symmetrised."""
    matrices = require(
        matrices,
        is_symmetric(matrices),
        f"{name} must be symmetric, but {describe(matrices)} was given.",
    )
    symmetric = 0.5 * (matrices + jnp.swapaxes(matrices, -2, -1))
    variances = jnp.diagonal(symmetric, axis1=-2, axis2=-1)
    return require(
        symmetric,
        jnp.all(jnp.isfinite(jnp.linalg.cholesky(symmetric)))
        & jnp.all(variances >= jnp.finfo(matrices.dtype).tiny),
        f"{name} must be positive definite (every eigenvalue > 0), but {describe(matrices)} was given."
        f"{range_hint(variances)}",
    )


def log_normal(x: Vector, mean: Vector, covariance: Matrix) -> Scalar:
    """The normalised log density of a Gaussian."""
    cholesky = jnp.linalg.cholesky(covariance)
    z = jsl.solve_triangular(cholesky, x - mean, lower=True)
    log_normaliser = jnp.sum(jnp.log(jnp.diag(cholesky))) + 0.5 * mean.size * jnp.log(2 * jnp.pi)
    return -0.5 * jnp.sum(z**2) - log_normaliser.astype(z.dtype)
