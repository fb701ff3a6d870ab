"""The derivatives of a score that the quantum force and its derivatives are made of.

The force needs third derivatives of ln ρ, its own derivatives fourth and fifth ones. Nested automatic
differentiation finds them for any score; one that knows a shorter way offers it as a method `derivatives`.
"""

from collections.abc import Callable
from inspect import signature
from itertools import combinations_with_replacement, product
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .._types import Scalar, Time, Vector

_Value = TypeVar("_Value")


class LocalScore(NamedTuple):
    r"""A score at one point, and what the quantum force needs besides; or, with more axes at the end, the
    derivatives of each part along the coordinates.

    A score with a method `derivatives(t, x, inverse_mass)` that returns one of each, in this order, is not
    differentiated automatically for the force and for tangents; `inverse_mass` has shape `(d,)`. If the method
    has a further argument `order`, it is asked for derivatives up to that, 0, 1 or 2, and returns one more than
    that: the Fisher divergence needs the second.

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


class ScalarDerivatives(NamedTuple):
    r"""Derivatives of a scalar at one point; $\Delta = \sum_i \partial_i^2 / m_i$.

    - `tensors`: gradient, Hessian and so on, shapes `(d,)`, `(d, d)`, ...: two at least.
    - `laplacian`: the derivative of $\Delta$ with one axis less than the last of them.
    """

    tensors: tuple[Float[Array, "d *n"], ...]
    laplacian: Float[Array, "d *n"]

    def as_score(self, inverse_mass: Vector) -> tuple[LocalScore, ...]:
        """The gradient as a score, as [`local_derivatives`][bohmdiff.score.local_derivatives] has it."""
        laplacians = [jnp.einsum("i,ii...->...", inverse_mass, part) for part in self.tensors[2:]]
        return tuple(map(LocalScore, self.tensors, self.tensors[1:], (*laplacians, self.laplacian)))


def local_derivatives(
    score: Callable[[Time, Vector], Vector], t: Time, x: Vector, inverse_mass: Vector, order: int
) -> tuple[LocalScore, ...]:
    """A score at one point, and its derivatives along the coordinates up to `order`, each in one last axis
    more.

    By the score's own method `derivatives(t, x, inverse_mass, order)` if it has one; one without `order`
    gives the first two.
    """
    own: Any = getattr(score, "derivatives", None)
    if own is None:
        return differentiated(score, t, x, inverse_mass, order)
    if "order" in signature(own).parameters:
        return own(t, x, inverse_mass, order)
    if order < 2:
        return own(t, x, inverse_mass)[: order + 1]
    both, (_, curvatures) = ladder(lambda y: own(t, y, inverse_mass), x, 1)
    return (*both, curvatures)


def differentiated(
    score: Callable[[Time, Vector], Vector], t: Time, x: Vector, inverse_mass: Vector, order: int
) -> tuple[LocalScore, ...]:
    """The same for any score, by automatic differentiation."""

    def local(y: Vector) -> LocalScore:
        def jacobian(z: Vector):
            return jax.jacfwd(score, argnums=1)(t, z)

        return LocalScore(
            score(t, y), jacobian(y), jax.grad(lambda z: inverse_mass @ jnp.diagonal(jacobian(z)))(y)
        )

    return ladder(local, x, order)


def divergence_and_pull(
    score: Callable[[Time, Vector], Vector], t: Time, x: Vector, inverse_mass: Vector, direction: Vector
) -> tuple[Scalar, Vector]:
    r"""$D = \sum_i \partial_i s_i / m_i$ at one point, and the gradient of
    $D + \sum_i u_i s_i / m_i$ with $u$, the `direction`, held fixed: all that the force needs if $u = s$.

    By the score's own method `divergence_and_pull(t, x, inverse_mass, direction)` if it has one, or by its
    `derivatives`.
    """
    own: Any = getattr(score, "divergence_and_pull", None)
    if own is not None:
        return own(t, x, inverse_mass, direction)
    if hasattr(score, "derivatives"):
        (local,) = local_derivatives(score, t, x, inverse_mass, 0)
        divergence = inverse_mass @ jnp.diagonal(local.jacobian)
        return divergence, local.divergence_gradient + (inverse_mass * direction) @ local.jacobian

    def score_and_divergence(y: Vector) -> tuple[Vector, Scalar]:
        return score(t, y), inverse_mass @ jnp.diagonal(jax.jacfwd(score, argnums=1)(t, y))

    return pulled(score_and_divergence, x, inverse_mass * direction)


def pulled(
    score_and_divergence: Callable[[Vector], tuple[Vector, Scalar]], x: Vector, direction: Vector
) -> tuple[Scalar, Vector]:
    """The same for a function that gives both, and with the masses in the direction."""

    def total(y: Vector) -> tuple[Scalar, Scalar]:
        s, divergence = score_and_divergence(y)
        return divergence + direction @ s, divergence

    (_, divergence), gradient = jax.value_and_grad(total, has_aux=True)(x)
    return divergence, gradient


def ladder(function: Callable[[Vector], _Value], x: Vector, order: int) -> tuple[_Value, ...]:
    """`function(x)` and its derivatives up to `order`, each in one last axis more, forwards."""
    if order == 0:
        return (function(x),)

    def along(axis: Vector):
        rungs, slopes = jax.jvp(lambda y: ladder(function, y, order - 1), (x,), (axis,))
        return rungs, slopes[-1]

    rungs, last = jax.vmap(along, out_axes=(None, -1))(jnp.eye(x.shape[0], dtype=x.dtype))
    return (*rungs, last)


def combinations(dimension: int, order: int) -> list[tuple[int, ...]]:
    """The components of a symmetric tensor, each once."""
    return list(combinations_with_replacement(range(dimension), order))


def spread(dimension: int, order: int) -> np.ndarray:
    """Which of these `combinations` each component of the whole tensor is, shape `(d,) * order`."""
    place = {combination: index for index, combination in enumerate(combinations(dimension, order))}
    components = product(range(dimension), repeat=order)
    return np.array([place[tuple(sorted(index))] for index in components]).reshape((dimension,) * order)
