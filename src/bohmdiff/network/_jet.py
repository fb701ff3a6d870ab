"""The chain rule for an activation that acts on a function of several variables, to any order."""

from collections import Counter
from collections.abc import Callable, Iterable
from functools import cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .._types import Vector
from .derivatives import combinations

# The coordinates along which to differentiate, in increasing order.
Index = tuple[int, ...]


class Jet(NamedTuple):
    r"""The derivatives of every unit of a layer at one point; $\Delta = \sum_i \partial_i^2 / m_i$.

    - `parts`: the derivative along every combination of coordinates, up to some order.
    - `laplacian`: the derivatives of $\Delta$ of the order just below the highest in `parts`. They contain
        one derivative more than `parts`, so they do not follow from it.
    """

    parts: dict[Index, Float[Array, " width"]]
    laplacian: dict[Index, Float[Array, " width"]]

    @property
    def order(self) -> int:
        """The order of the highest derivatives."""
        return max(map(len, self.parts))


def activate(activation: Callable[[Array], Array], jet: Jet, inverse_mass: Vector) -> Jet:
    r"""The jet after the activation.

    With $f_k = \sigma^{(k)}(u)$ the chain rule is $\partial_i f_k = f_{k+1}\,\partial_i u$, and Leibniz' rule
    gives the higher derivatives of this product one after the other. For the Laplacian,
    $\Delta f_0 = f_2 \sum_i (\partial_i u)^2 / m_i + f_1 \Delta u$.
    """
    u, order = jet.parts, jet.order
    axes = range(inverse_mass.shape[0])
    values = slopes(activation, u[()], order + 1)
    composed: dict[tuple[int, Index], Array] = {}

    def part(k: int, index: Index) -> Array:
        """A derivative of f_k."""
        if not index:
            return values[k]
        if (k, index) not in composed:
            first, others = index[:1], index[1:]
            composed[k, index] = _total(
                times * part(k + 1, left) * u[_joined(first, right)]
                for (left, right), times in _splits(others).items()
            )
        return composed[k, index]

    @cache
    def square(index: Index) -> Array:
        """A derivative of Σ (∂_i u)² / m_i."""
        return _total(
            times * inverse_mass[i] * u[_joined((i,), left)] * u[_joined((i,), right)]
            for i in axes
            for (left, right), times in _halves(index).items()
        )

    @cache
    def laplacian(index: Index) -> Array:
        """A derivative of Δu."""
        if index in jet.laplacian:
            return jet.laplacian[index]
        return _total(inverse_mass[i] * u[_joined((i, i), index)] for i in axes)

    return Jet(
        {index: part(0, index) for index in u},
        {
            index: _total(
                times * (part(2, left) * square(right) + part(1, left) * laplacian(right))
                for (left, right), times in _splits(index).items()
            )
            for index in jet.laplacian
        },
    )


def activate_affine(
    activation: Callable[[Array], Array],
    u: Float[Array, " width"],
    rows: Float[Array, "d width"],
    inverse_mass: Vector,
    order: int,
) -> Jet:
    """The jet, up to `order`, after the activation of affine functions with values `u` and gradients `rows`:
    the derivatives factorise."""
    values = slopes(activation, u, order + 1)
    square = inverse_mass @ rows**2

    @cache
    def product(index: Index) -> Array:
        return product(index[:-1]) * rows[index[-1]] if index else jnp.ones_like(square)

    def indices(k: int) -> list[Index]:
        return combinations(rows.shape[0], k)

    return Jet(
        {index: values[k] * product(index) for k in range(order + 1) for index in indices(k)},
        {index: values[order + 1] * (square * product(index)) for index in indices(order - 1)},
    )


def slopes(activation: Callable[[Array], Array], u: Array, order: int) -> tuple[Array, ...]:
    """The activation at `u` and its derivatives up to `order`."""
    functions = [activation]
    for _ in range(order):
        functions.append(lambda v, last=functions[-1]: jax.jvp(last, (v,), (jnp.ones_like(v),))[1])
    return tuple(function(u) for function in functions)


@cache
def _splits(index: Index) -> Counter[tuple[Index, Index]]:
    """The ways to distribute a derivative of a product over its two factors, each with its multiplicity."""
    ways: Counter[tuple[Index, Index]] = Counter()
    for chosen in range(2 ** len(index)):
        left = tuple(axis for place, axis in enumerate(index) if chosen >> place & 1)
        right = tuple(axis for place, axis in enumerate(index) if not chosen >> place & 1)
        ways[left, right] += 1
    return ways


@cache
def _halves(index: Index) -> Counter[tuple[Index, Index]]:
    """The same for a product of two factors of the same form."""
    ways: Counter[tuple[Index, Index]] = Counter()
    for (left, right), times in _splits(index).items():
        ways[min(left, right), max(left, right)] += times
    return ways


def _joined(first: Index, second: Index) -> Index:
    return tuple(sorted(first + second))


def _total(terms: Iterable[Any]) -> Any:
    first, *others = terms
    return sum(others, first)
