"""The derivatives of a score that enter the quantum force and its derivatives.

The force needs third derivatives of ln ρ, its own derivatives fourth and fifth ones. Nested automatic
differentiation computes them for any score. A score with a faster method declares it by its base class.
"""

from abc import abstractmethod
from collections.abc import Callable, Sequence
from functools import reduce
from itertools import combinations_with_replacement, product
from operator import add
from typing import NamedTuple, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float

from .._types import Field, Scalar, Time, Vector

_Value = TypeVar("_Value")


class LocalScore(NamedTuple):
    r"""A score at one point and the derivatives that the quantum force needs; or, with additional axes at the
    end, the derivatives of each part along the coordinates.

    ```python
    here, slopes = score.derivatives(t, x, 1 / mass, order=1)
    ```

    - `score`: $s_i$, shape `(d,)`.
    - `jacobian`: $\partial_k s_i$, shape `(d, d)`, `i` first.
    - `divergence_gradient`: $\partial_k \sum_i \partial_i s_i / m_i$, shape `(d,)`.
    """

    score: Float[Array, " d *n"]
    jacobian: Float[Array, "d d *n"]
    divergence_gradient: Float[Array, " d *n"]


class Pullback(NamedTuple):
    r"""The quantities that the quantum force needs from a score at one point, less than its full derivatives.

    ```python
    score.pullback(t, x, 1 / mass).quantum_force(hbar)
    ```

    - `score`: $s$, shape `(d,)`.
    - `divergence`: $D = \sum_i \partial_i s_i / m_i$.
    - `pull`: a function of a direction $u$, shape `(d,)`, that gives the gradient of $D + \sum_i u_i s_i / m_i$
        with $u$ held fixed.
    """

    score: Vector
    divergence: Scalar
    pull: Callable[[Vector], Vector]

    def quantum_force(self, hbar: Float[ArrayLike, ""]) -> Vector:
        r"""$-\nabla Q = \tfrac{\hbar^2}{4}(\nabla D + \nabla s \cdot m^{-1} s)$, shape `(d,)`."""
        return 0.25 * jnp.asarray(hbar) ** 2 * self.pull(self.score)


class AbstractWithDerivatives(eqx.Module):
    """The base class of a score that computes its own derivatives.

    ```python
    class Squeezed(bd.AbstractScore, bd.AbstractWithDerivatives):
        stiffness: jax.Array

        def __call__(self, t, x):
            return -self.stiffness * x

        def derivatives(self, t, x, inverse_mass, order):
            def local(y):
                return bd.LocalScore(
                    self(t, y),
                    -self.stiffness * jnp.eye(y.size),
                    jnp.zeros_like(y),
                )

            return bd.network.ladder(local, x, order)
    ```

    The flow and the objectives then use `derivatives` instead of nested automatic differentiation.
    """

    @abstractmethod
    def derivatives(self, t: Time, x: Vector, inverse_mass: Vector, order: int) -> tuple[LocalScore, ...]:
        """The score at one point and its derivatives along the coordinates.

        **Arguments:**

        - `t`, `x`: a time and one position, shape `(d,)`.
        - `inverse_mass`: one over the masses, shape `(d,)`: the weights in the divergence.
        - `order`: 0 for the force, 1 for tangents, 2 for the Fisher divergence.

        **Returns:** `order + 1` objects [`LocalScore`][bohmdiff.LocalScore]: the values, the first derivatives
        with one more axis at the end, the second ones with two. `ladder` computes the derivatives from a
        function that returns the values.
        """


class AbstractWithPullback(eqx.Module):
    """The base class of a score that computes its own [`Pullback`][bohmdiff.Pullback].

    ```python
    class Trap(bd.AbstractScore, bd.AbstractWithPullback):
        stiffness: jax.Array

        def __call__(self, t, x):
            return -self.stiffness * x

        def pullback(self, t, x, inverse_mass):
            divergence = -self.stiffness * jnp.sum(inverse_mass)
            return bd.Pullback(
                self(t, x),
                divergence,
                lambda u: -self.stiffness * inverse_mass * u,
            )
    ```

    The force is then computed from `pullback` alone; tangents use `derivatives` or automatic differentiation.
    """

    @abstractmethod
    def pullback(self, t: Time, x: Vector, inverse_mass: Vector) -> Pullback:
        """The quantities that the force needs at one point; `t`, `x` and `inverse_mass` as for
        [`derivatives`][bohmdiff.AbstractWithDerivatives]."""


class ScalarDerivatives(NamedTuple):
    r"""Derivatives of a scalar at one point; $\Delta = \sum_i \partial_i^2 / m_i$.

    - `tensors`: gradient, Hessian and so on, shapes `(d,)`, `(d, d)`, ...: at least two.
    - `laplacian`: the derivative of $\Delta$ with one axis less than the last tensor.
    """

    tensors: tuple[Float[Array, " d *n"], ...]
    laplacian: Float[Array, " d *n"]

    def as_score(self, inverse_mass: Vector) -> tuple[LocalScore, ...]:
        """The gradient as a score, in the form that `local_derivatives` returns."""
        laplacians = [jnp.einsum("i,ii...->...", inverse_mass, part) for part in self.tensors[2:]]
        return tuple(map(LocalScore, self.tensors, self.tensors[1:], (*laplacians, self.laplacian)))


def local_derivatives(
    field: Field, t: Time, x: Vector, inverse_mass: Vector, order: int
) -> tuple[LocalScore, ...]:
    """A score at one point, and its derivatives along the coordinates up to `order`, each with one more axis at
    the end. An `AbstractWithDerivatives` computes its own; otherwise automatic differentiation is used."""
    if isinstance(field, AbstractWithDerivatives):
        return field.derivatives(t, x, inverse_mass, order)
    return differentiated(field, t, x, inverse_mass, order)


def differentiated(
    field: Field, t: Time, x: Vector, inverse_mass: Vector, order: int
) -> tuple[LocalScore, ...]:
    """The same for any vector field, by automatic differentiation."""

    def local(y: Vector) -> LocalScore:
        def jacobian(z: Vector):
            return jax.jacfwd(field, argnums=1)(t, z)

        return LocalScore(
            field(t, y), jacobian(y), jax.grad(lambda z: inverse_mass @ jnp.diagonal(jacobian(z)))(y)
        )

    return ladder(local, x, order)


def pullback(field: Field, t: Time, x: Vector, inverse_mass: Vector) -> Pullback:
    """The pullback of any vector field: its own if it declares one, from its own derivatives if it declares
    those, otherwise by automatic differentiation."""
    if isinstance(field, AbstractWithPullback):
        return field.pullback(t, x, inverse_mass)
    if isinstance(field, AbstractWithDerivatives):
        (local,) = field.derivatives(t, x, inverse_mass, 0)
        return Pullback(
            local.score,
            inverse_mass @ jnp.diagonal(local.jacobian),
            lambda direction: local.divergence_gradient + (inverse_mass * direction) @ local.jacobian,
        )

    def score_and_divergence(y: Vector) -> tuple[Vector, Scalar]:
        return field(t, y), inverse_mass @ jnp.diagonal(jax.jacfwd(field, argnums=1)(t, y))

    return differentiated_once(score_and_divergence, x, inverse_mass)


def differentiated_once(
    score_and_divergence: Callable[[Vector], tuple[Vector, Scalar]], x: Vector, inverse_mass: Vector
) -> Pullback:
    """The pullback of a function that returns both, by one reverse pass."""
    (score, divergence), pull = jax.vjp(score_and_divergence, x)

    def along(direction: Vector) -> Vector:
        (gradient,) = pull((inverse_mass * direction, jnp.ones_like(divergence)))
        return gradient

    return Pullback(score, divergence, along)


def combined(terms: Sequence[tuple[ArrayLike, Pullback]]) -> Pullback:
    """The pullback of a weighted sum of scores; the weights do not depend on the position."""

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
    """`function(x)` and its derivatives up to `order`, each with one more axis at the end, in forward mode."""
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
    """The index into `combinations` of each component of the full tensor, shape `(d,) * order`."""
    place = {combination: index for index, combination in enumerate(combinations(dimension, order))}
    components = product(range(dimension), repeat=order)
    return np.array([place[tuple(sorted(index))] for index in components]).reshape((dimension,) * order)
