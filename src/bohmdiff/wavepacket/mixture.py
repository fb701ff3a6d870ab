"""Mixtures of Gaussians: multimodal densities in closed form."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.scipy.special import ndtr
from jaxtyping import Array, DTypeLike, Float

from .._check import as_real_array, check_output, describe, require
from .._closure import as_module, settled
from .._precision import in_full_precision
from .._types import Key, Numbers, Points, Scalar, Vector, Weights
from .design import AbstractDesign, RandomPoints, SobolPoints, TruncatedPoints, WidenedPoints
from .gaussian import log_normal, positive_definite
from .state import AbstractInitialState


class GaussianMixture(AbstractInitialState):
    r"""$\rho_0 = \sum_k w_k\, \mathcal N(\text{mean}_k, \text{covariance}_k)$ with one phase
    $S_0 = p\cdot(x-\bar x) + S(x)$.

    This is a sum of densities, not of wave functions: $\psi_0 = \sqrt{\rho_0}\,e^{iS_0/\hbar}$ has no nodes.
    (Two packets in a superposition interfere, and have nodes if their momenta differ.)

    ```python
    initial = bd.GaussianMixture(
        [0.7, 0.3], means=[[-1.0, 0.0], [1.0, 0.5]], covariances=[0.5, 0.8]
    )
    initial.score(jnp.zeros(2))
    ```

    **Arguments:**

    - `weights`: positive, shape `(n,)`. They are divided by their sum.
    - `means`: centres of the components, shape `(n, d)`. Their dtype sets the precision of the solution.
    - `covariances`: of the components, length squared: one positive scalar for all, `(n,)` for one scalar
        per component, `(n, d)` variances, or `(n, d, d)` symmetric positive definite matrices. The first
        axis counts components.
    - `momentum`: $p$, shape `(d,)`, common to all components; zero if not given. $\bar x$ is the mean of the
        mixture.
    - `phase`: a function $S(x)$ of one position that returns a scalar, an action in the same units as ħ; zero
        if not given.

    **Points** of a design represent the mixture as they do a Gaussian. A copy of a Gauss–Hermite grid, or of your
    own design, is placed in each component and multiplied by its weight. This gives `n` times the points, and
    the rule is exact for the same polynomials as for a Gaussian. `SobolPoints` and `RandomPoints`, also inside
    `TruncatedPoints` and `WidenedPoints`, keep their number of points: an additional coordinate selects the
    component. Random points are independent draws of equal weight.

    **Raises:** `ValueError` for a wrong shape, weights that are not positive, covariances that are not
    symmetric positive definite, entries that are not finite, or a phase that is not a scalar.
    """

    weights: Float[Array, " n"]
    means: Float[Array, "n d"]
    covariances: Float[Array, "n d d"]
    momentum: Vector
    added_phase: Callable[[Vector], Scalar] | None

    @in_full_precision
    def __init__(
        self,
        weights: Numbers,
        means: Numbers,
        covariances: Numbers,
        momentum: Numbers | None = None,
        phase: Callable[[Any], Any] | None = None,
    ):
        means = as_real_array(means, "means")
        if means.ndim != 2 or means.size == 0:
            raise ValueError(
                "means must have shape (n, d), one row per component and one column per coordinate, but shape "
                f"{means.shape} was given; in one coordinate pass means=[[first], [second]]."
            )
        (n, d), dtype = means.shape, means.dtype
        shares = as_real_array(weights, "weights").astype(dtype)
        if shares.shape != (n,):
            raise ValueError(
                f"weights must have shape ({n},), one per row of means, but shape {shares.shape} was given."
            )
        shares = require(
            shares,
            jnp.all(shares > 0),
            f"weights must be positive, but {describe(shares)} was given. Leave out components of no weight.",
        )
        covariances = as_real_array(covariances, "covariances").astype(dtype)
        if covariances.shape not in ((), (n,), (n, d), (n, d, d)):
            raise ValueError(
                f"covariances must be a scalar or have shape ({n},), ({n}, {d}) or ({n}, {d}, {d}) to match "
                f"means of shape ({n}, {d}), but shape {covariances.shape} was given. The first axis counts "
                "components."
            )
        if covariances.ndim < 3:
            variances = covariances[:, None] if covariances.ndim == 1 else covariances
            covariances = jax.vmap(jnp.diag)(jnp.broadcast_to(variances, (n, d)))
        momentum = jnp.zeros(d, dtype) if momentum is None else as_real_array(momentum, "momentum")
        if momentum.shape != (d,):
            raise ValueError(f"momentum must have shape ({d},), but shape {momentum.shape} was given.")
        if phase is not None:
            origin = jnp.zeros(d, dtype)
            check_output(phase, (origin,), (), "phase")
            phase = settled(as_module(phase), (origin,))
        self.weights = shares / jnp.sum(shares)
        self.means = means
        self.covariances = positive_definite(covariances, "covariances")
        self.momentum = momentum.astype(dtype)
        self.added_phase = phase

    @property
    def dimension(self) -> int:
        return self.means.shape[1]

    @property
    def dtype(self) -> DTypeLike:
        return self.means.dtype

    def log_density(self, x: Vector) -> Scalar:
        components = jax.vmap(log_normal, in_axes=(None, 0, 0))(x, self.means, self.covariances)
        return jax.nn.logsumexp(jnp.log(self.weights) + components)

    def phase(self, x: Vector) -> Scalar:
        plane = self.momentum @ (x - self.weights @ self.means)
        return plane if self.added_phase is None else plane + self.added_phase(x)

    @in_full_precision
    def particles(self, design: AbstractDesign, key: Key | None = None) -> tuple[Points, Weights]:
        cholesky = jnp.linalg.cholesky(self.covariances)
        labelled = _labelled(design, self.dimension, key)
        if labelled is None:
            normal, weights = (jnp.asarray(a, self.dtype) for a in design(self.dimension, key))
            points = self.means[:, None] + jnp.einsum("kij,mj->kmi", cholesky, normal)
            return points.reshape(-1, self.dimension), jnp.outer(self.weights, weights).ravel()
        normal, weights = (
            jnp.asarray(labelled.normal, self.dtype),
            jnp.asarray(labelled.weights, self.dtype),
        )
        borders = jnp.cumsum(self.weights)[:-1]
        k = jnp.searchsorted(borders, jnp.asarray(labelled.label, self.dtype), side="right")
        points = self.means[k] + jnp.einsum("mij,mj->mi", cholesky[k], normal)
        # A change of the weights changes the weight of a point, not its component.
        share = self.weights / jax.lax.stop_gradient(self.weights)
        return points, weights * share[k]


class _Labelled(NamedTuple):
    """Points for the standard normal distribution, each with a label that is uniform in [0, 1]."""

    normal: Any
    weights: Any
    label: Any


def _labelled(design: AbstractDesign, dimension: int, key: Key | None) -> _Labelled | None:
    """The labelled points of a design with a fixed number of points in any dimension, otherwise `None`."""
    if isinstance(design, RandomPoints | SobolPoints):
        normal, weights = design(dimension + 1, key)
        return _Labelled(normal[:, :dimension], weights, ndtr(normal[:, dimension]))
    if isinstance(design, TruncatedPoints | WidenedPoints):
        inner = _labelled(design.design, dimension, key)
        if inner is not None:
            return _Labelled(*design.moved(inner.normal, inner.weights), inner.label)
    return None
