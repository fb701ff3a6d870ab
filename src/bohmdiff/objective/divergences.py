"""Measures of the distance of a score from that of the density which its flow produces."""

import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .._types import Points, Scalar, Time, Vector
from ..flow import HalfState
from ..problem import Problem
from ..score import AbstractScore, scalar_of
from .objective import (
    AbstractLeastSquares,
    AbstractObjective,
    Ensemble,
    determinant_limit,
    mean,
    own_score,
    positive,
    rooted,
    target_limit,
)


def _outlier_scale() -> Any:
    """A field: the size above which an error counts as an outlier."""
    return eqx.field(static=True, default=math.inf, converter=lambda v: positive(v, "outlier_scale"))


class FisherDivergence(AbstractLeastSquares):
    r"""$E_\rho\,|s_\theta - s_\rho|^2$, with the score $s_\rho$ of the density that the flow itself
    produces: the quantity in the exactness theorem. It needs `d` second tangents.

    ```python
    method = bd.SelfConsistentScoreMatching(
        score, bd.FisherDivergence(), training=bd.Training(epochs=30)
    )
    ```

    **Arguments:**

    - `min_determinant`: a particle with $|\det F|$ below this is close to a caustic and is masked at
        that time. 0 masks none.
    - `max_target`: components of $s_\rho$ are clipped to plus or minus this. `math.inf` clips none.
    - `outlier_scale`: a particle whose error $e = |s_\theta - s_\rho|$ is well above this $c$ counts as
        $c^2\ln(1 + e^2/c^2)$ instead of $e^2$ (the Cauchy loss), so that a few particles in the
        far tails do not dominate the gradient. With `math.inf` the objective is the Fisher divergence itself.

    **Units:** 1 / length²; `max_target` and `outlier_scale` in 1 / length.

    **Raises:** `ValueError` for a negative `min_determinant`, and for limits that are not positive.
    """

    second_tangents = "all"

    min_determinant: float = determinant_limit()
    max_target: float = target_limit()
    outlier_scale: float = _outlier_scale()

    def at(self, problem: Problem, score: AbstractScore, t: Time, ensemble: Ensemble) -> Scalar:
        error = self._error(problem, score, t, ensemble)
        return mean(ensemble, _cauchy_loss(jnp.sum(error**2, axis=1), self.outlier_scale))

    def residuals(
        self, problem: Problem, score: AbstractScore, t: Time, ensemble: Ensemble
    ) -> Float[Array, "M components"]:
        """The error of the score on each particle, times the square root of its weight."""
        error = self._error(problem, score, t, ensemble)
        # The slope of the Cauchy loss: an outlier counts with a smaller weight.
        trust = 1 / (1 + jnp.sum(jax.lax.stop_gradient(error) ** 2, axis=1) / self.outlier_scale**2)
        return rooted(ensemble, jnp.sqrt(trust)[:, None] * error)

    def _error(self, problem: Problem, score: AbstractScore, t: Time, ensemble: Ensemble) -> Points:
        own = own_score(problem, ensemble, self.max_target)
        return jax.vmap(score, in_axes=(None, 0))(t, ensemble.position.motion) - own


class DirectionalDivergence(AbstractLeastSquares):
    r"""$E\,|\nabla_{x_0} e|^2$ with $e = \ln\rho_\theta(x(t), t) - \ln\rho(x(t), t)$, estimated along one
    random direction for each particle, which needs one second tangent instead of `d`.

    As $\nabla_{x_0} e = F^\top(s_\theta - s_\rho)$, it vanishes exactly when the Fisher divergence does. The
    estimate is unbiased: the directions are Gaussian with the identity as covariance. Only the score
    is needed, not the scalar whose gradient it is.

    ```python
    objective = bd.DirectionalDivergence()
    method = bd.SelfConsistentScoreMatching(
        score, objective, training=bd.Training(epochs=30)
    )
    ```

    **Arguments:**

    - `min_determinant`: as for [`FisherDivergence`][bohmdiff.FisherDivergence].

    **Units:** 1 / length², as directions have lengths.

    **Raises:** `ValueError` for a negative `min_determinant`.
    """

    second_tangents = "random"

    min_determinant: float = determinant_limit()

    def at(self, problem: Problem, score: AbstractScore, t: Time, ensemble: Ensemble) -> Scalar:
        return mean(ensemble, jnp.sum(self._error(problem, score, t, ensemble) ** 2, axis=1))

    def residuals(
        self, problem: Problem, score: AbstractScore, t: Time, ensemble: Ensemble
    ) -> Float[Array, "M components"]:
        """The error along the directions of each particle, times the square root of its weight."""
        return rooted(ensemble, self._error(problem, score, t, ensemble))

    def _error(
        self, problem: Problem, score: AbstractScore, t: Time, ensemble: Ensemble
    ) -> Float[Array, "M components"]:
        directions = ensemble.directions
        assert directions is not None

        def one(start: Vector, position: HalfState, directions: Float[Array, "n d"]) -> Float[Array, " n"]:
            assert position.tangent is not None
            assert position.second is not None
            inverse = jnp.linalg.inv(position.tangent)
            own = directions @ problem.initial.score(start) - jnp.einsum(
                "ij,jin->n", inverse, position.second
            )
            ours = directions @ (position.tangent.T @ score(t, position.motion))
            return ours - own

        each = 0 if directions.ndim == 3 else None
        return jax.vmap(one, in_axes=(0, 0, each))(ensemble.start, ensemble.position, directions)


class LogDensityVariance(AbstractObjective):
    r"""The variance over particles of $e = \ln\rho_\theta(x(t), t) - \ln\rho(x(t), t)$: it needs no
    derivative with respect to the starting point beyond $F$, which makes it the cheapest.

    Where there are particles, it vanishes exactly when the Fisher divergence does, but it gives less weight
    to errors of short wavelength. The score must be the gradient of a scalar, which it provides as
    `log_density(t, x)`.

    ```python
    adam = bd.Training(optax.adam(1e-3), epochs=1000)
    method = bd.SelfConsistentScoreMatching(
        score, bd.LogDensityVariance(), training=adam
    )
    ```

    **Arguments:**

    - `min_determinant`: as for [`FisherDivergence`][bohmdiff.FisherDivergence].
    - `outlier_scale`: the same for $|e|$, measured from the mean of $e$, which has no unit: 1 is an error by
        a factor of 2.7 in the density.

    **Raises:** `ValueError` for a negative `min_determinant` and a scale that is not positive, and in training
    for a score without `log_density`.
    """

    second_tangents = "none"
    needs_gradient = True

    min_determinant: float = determinant_limit()
    outlier_scale: float = _outlier_scale()

    def at(self, problem: Problem, score: AbstractScore, t: Time, ensemble: Ensemble) -> Scalar:
        position = ensemble.position
        assert position.tangent is not None
        _, log_determinant = jnp.linalg.slogdet(position.tangent)
        own = jax.vmap(problem.initial.log_density)(ensemble.start) - log_determinant
        error = jax.vmap(scalar_of(score), in_axes=(None, 0))(t, position.motion) - own
        error = jnp.where(ensemble.kept, error, 0)
        square = (error - ensemble.weights @ error) ** 2
        if not math.isinf(self.outlier_scale):
            # The mean must not follow the outliers either.
            trust = ensemble.weights / (1 + square / self.outlier_scale**2)
            square = (error - trust @ error / jnp.sum(trust)) ** 2
        return mean(ensemble, _cauchy_loss(square, self.outlier_scale))


class ImplicitScoreMatching(AbstractObjective):
    r"""Hyvärinen's $E_\rho[\tfrac12|s_\theta|^2 + \nabla\cdot s_\theta]$ with the trajectories held fixed.

    Its minimum over all scores is that of the particles' density, and the value there is minus half
    the Fisher information: it may be negative. It needs neither $F$ nor derivatives through the flow,
    so an epoch is cheap; but a descent step ignores that the flow will change, and repeated
    steps from a poor start need not converge.

    ```python
    adam = bd.Training(optax.adam(1e-3), epochs=1000)
    method = bd.SelfConsistentScoreMatching(
        score, bd.ImplicitScoreMatching(), training=adam
    )
    ```

    **Arguments:**

    - `min_determinant`: as for [`FisherDivergence`][bohmdiff.FisherDivergence].

    **Units:** 1 / length².

    **Raises:** `ValueError` for a negative `min_determinant`.

    ??? cite "Reference"

        A. Hyvärinen, *Estimation of non-normalized statistical models by score matching*,
        J. Mach. Learn. Res. 6, 695 (2005).
    """

    second_tangents = "none"
    through_flow = False

    min_determinant: float = determinant_limit()

    def at(self, problem: Problem, score: AbstractScore, t: Time, ensemble: Ensemble) -> Scalar:
        def one(x: Vector) -> Scalar:
            s = score(t, x)
            return 0.5 * jnp.sum(s**2) + jnp.trace(jax.jacfwd(score, argnums=1)(t, x))

        return mean(ensemble, jax.vmap(one)(ensemble.position.motion))


def _cauchy_loss(square: Float[Array, " M"], scale: float) -> Float[Array, " M"]:
    """The square of an error, which grows logarithmically where the error is above `scale`."""
    return square if math.isinf(scale) else scale**2 * jnp.log1p(square / scale**2)
