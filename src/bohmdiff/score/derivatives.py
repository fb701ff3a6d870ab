"""The derivatives of a score that the quantum force and its gradient are made of.

The force needs third derivatives of ln ρ, its gradient fourth ones. Nested automatic differentiation finds
them for any score; one that knows a shorter way offers it as a method `derivatives`.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .._types import Time, Vector


class LocalScore(NamedTuple):
    r"""A score at one point, and what the quantum force needs besides; or, with one axis more, the
    derivative of each part along every coordinate.

    A score with a method `derivatives(t, x, inverse_mass)` that returns one of each, in this order, is not
    differentiated automatically; `inverse_mass` has shape `(d,)`.

    ```python
    here, slopes = score.derivatives(t, x, 1 / mass)
    ```

    - `score`: $s_i$, shape `(d,)`.
    - `jacobian`: $\partial_k s_i$, shape `(d, d)`, `i` first.
    - `divergence_gradient`: $\partial_k \sum_i \partial_i s_i / m_i$, shape `(d,)`.
    """

    score: Float[Array, "d *n"]
    jacobian: Float[Array, "d d *n"]
    divergence_gradient: Float[Array, "d *n"]


def local_derivatives(
    score: Callable[[Time, Vector], Vector], t: Time, x: Vector, inverse_mass: Vector
) -> tuple[LocalScore, LocalScore]:
    """A score at one point, and the derivatives of it along the coordinates, in a last axis.

    By the score's own method `derivatives(t, x, inverse_mass)` if it has one.
    """
    own: Any = getattr(score, "derivatives", None)
    if own is not None:
        return own(t, x, inverse_mass)
    return differentiated(score, t, x, inverse_mass)


def differentiated(
    score: Callable[[Time, Vector], Vector], t: Time, x: Vector, inverse_mass: Vector
) -> tuple[LocalScore, LocalScore]:
    """The same for any score, by automatic differentiation."""

    def local(y: Vector) -> LocalScore:
        def jacobian(z: Vector):
            return jax.jacfwd(score, argnums=1)(t, z)

        return LocalScore(
            score(t, y), jacobian(y), jax.grad(lambda z: inverse_mass @ jnp.diagonal(jacobian(z)))(y)
        )

    return jax.vmap(lambda axis: jax.jvp(local, (x,), (axis,)), out_axes=(None, -1))(
        jnp.eye(x.shape[0], dtype=x.dtype)
    )
