"""A penalty that keeps a flow from folding."""

from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .._types import Scalar, Time
from ..problem import Problem
from ..score import AbstractScore
from .objective import AbstractLeastSquares, Ensemble, positive


class CausticPenalty(AbstractLeastSquares):
    r"""The mean over particles of $\max(0, 1 - \det F/f)^2$, which pushes a flow away from caustics.

    Bohmian trajectories never cross, so $\det F$ stays positive. Under a score that is wrong in the tails it
    may become negative, and the other objectives mask exactly the particles that would show it. Every
    particle counts the same, whatever its weight. The penalty is zero if all $\det F$ are above $f$, so it
    does not act on a flow that stays clear of caustics.

    ```python
    objective = bd.LogDensityVariance() + 0.3 * bd.CausticPenalty(0.4)
    ```

    **Arguments:**

    - `threshold`: $f$, positive. It must be below the smallest $\det F$ of the exact flow: 1 where nothing
        moves, the product of the ratios of final to initial widths for a Gaussian.

    **Units:** none.

    **Raises:** `ValueError` for a threshold that is not positive.
    """

    second_tangents = "none"
    min_determinant: ClassVar[None] = None

    threshold: float = eqx.field(converter=lambda v: positive(v, "threshold"))

    def at(self, problem: Problem, score: AbstractScore, t: Time, ensemble: Ensemble) -> Scalar:
        return ensemble.equal_weights @ self._missing(ensemble) ** 2

    def residuals(
        self, problem: Problem, score: AbstractScore, t: Time, ensemble: Ensemble
    ) -> Float[Array, "M components"]:
        """The relative deficit of each determinant, times the square root of an equal weight."""
        return (jnp.sqrt(ensemble.equal_weights) * self._missing(ensemble))[:, None]

    def _missing(self, ensemble: Ensemble) -> Float[Array, " M"]:
        return jax.nn.relu(1 - ensemble.determinant / self.threshold)
