"""The derivatives of a score that the quantum force and its derivatives are made of.

The force needs third derivatives of ln ρ, its own derivatives fourth and fifth ones. Nested automatic
differentiation finds them for any score; one that knows a shorter way offers it as a method `derivatives`.
"""

from collections.abc import Callable, Sequence
from functools import reduce
from inspect import signature
from itertools import combinations_with_replacement, product
from operator import add
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float

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


class Pullback(NamedTuple):
    r"""All that the quantum force needs of a score at one point, which is less than its derivatives.

    A score with a method `pullback(t, x, inverse_mass)` that returns one is not differentiated in any other way
    for the force alone.

    ```python
    score, divergence, pull = score.pullback(t, x, 1 / mass)
    force = hbar**2 / 4 * pull(score)
    ```

    - `score`: $s$, shape `(d,)`.
    - `divergence`: $D = \sum_i \partial_i s_i / m_i$.
    - `pull`: a function of a direction $u$, shape `(d,)`, that gives the gradient of $D + \sum_i u_i s_i / m_i$
        with $u$ held fixed.
    """

    score: Vector
    divergence: Scalar
    pull: Callable[[Vector], Vector]

    def quantum_force(self, hbar: Scalar) -> Vector:
        r"""$-\nabla Q = \tfrac{\hbar^2}{4}(\nabla D + \nabla s \cdot m^{-1} s)$, shape `(d,)`."""
        return 0.25 * hbar**2 * self.pull(self.score)


def pullback(score: Callable[[Time, Vector], Vector], t: Time, x: Vector, inverse_mass: Vector) -> Pullback:
    """That of a score: by its own method `pullback` or `derivatives`, if it has one."""
    own: Any = getattr(score, "pullback", None)
    if own is not None:
        return own(t, x, inverse_mass)
    if hasattr(score, "derivatives"):
        (local,) = local_derivatives(score, t, x, inverse_mass, 0)
        return Pullback(
            local.score,
            inverse_mass @ jnp.diagonal(local.jacobian),
            lambda direction: local.divergence_gradient + (inverse_mass * direction) @ local.jacobian,
        )

    def score_and_divergence(y: Vector) -> tuple[Vector, Scalar]:
        return score(t, y), inverse_mass @ jnp.diagonal(jax.jacfwd(score, argnums=1)(t, y))

    return differentiated_once(score_and_divergence, x, inverse_mass)


def differentiated_once(
    score_and_divergence: Callable[[Vector], tuple[Vector, Scalar]], x: Vector, inverse_mass: Vector
) -> Pullback:
    """That of a function that gives both, by one reverse pass."""
    (score, divergence), pull = jax.vjp(score_and_divergence, x)

    def along(direction: Vector) -> Vector:
        (gradient,) = pull((inverse_mass * direction, jnp.ones_like(divergence)))
        return gradient

    return Pullback(score, divergence, along)


def combined(terms: Sequence[tuple[ArrayLike, Pullback]]) -> Pullback:
    """That of a weighted sum of scores; the weights do not depend on the place."""

    def total(find: Callable[[Pullback], Array]) -> Array:
        return weighted_sum([(weight, find(part)) for weight, part in terms])

    return Pullback(
        total(lambda part: part.score),
        total(lambda part: part.divergence),
        lambda direction: total(lambda part: part.pull(direction)),
    )


def weighted_sum(terms: Sequence[tuple[ArrayLike, _Value]]) -> _Value:
    """The sum of trees of one structure, each array times the weight of its tree."""
    weights, trees = zip(*terms, strict=True)

    def total(*leaves: Array) -> Array:
        return reduce(add, (weight * leaf for weight, leaf in zip(weights, leaves, strict=True)))

    return jax.tree.map(total, *trees)


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
