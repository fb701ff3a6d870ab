"""What a score is, and the ways to make one from something else."""

from abc import abstractmethod
from collections.abc import Callable

import equinox as eqx
import jax

from .._types import Scalar, Time, Vector


class AbstractScore(eqx.Module):
    r"""A score field $s(t, x) \approx \nabla\ln\rho(t, x)$ of one particle.

    Any callable `s(t, x) -> (d,)` will do wherever a score is wanted; this base adds nothing but
    the contract. A score must be differentiable twice in `x` for the quantum force, three times for
    tangents (`F`), four times for the Fisher divergence.
    """

    @abstractmethod
    def __call__(self, t: Time, x: Vector) -> Vector:
        """The score at time `t`, a scalar, and position `x`, shape `(d,)`; shape `(d,)`."""


class GradientScore(AbstractScore):
    r"""$s = \nabla\varphi$ of a scalar field, curl-free by construction.

    ```python
    score = bd.GradientScore(lambda t, x: -0.5 * jnp.sum(x**2) / (1 + t**2))
    score(0.0, jnp.ones(2))
    ```

    **Arguments:**

    - `scalar_field`: any callable or module `φ(t, x) -> scalar`; φ is a log density up to a
        function of time.
    """

    scalar_field: Callable[[Time, Vector], Scalar]

    def __call__(self, t: Time, x: Vector) -> Vector:
        return jax.grad(self.scalar_field, argnums=1)(t, x)
