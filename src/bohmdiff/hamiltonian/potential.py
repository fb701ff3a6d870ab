"""The base class of potentials, with sums (also with plain functions) and scaling."""

from abc import abstractmethod
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from .._check import as_real_array, describe, is_whole_number, require
from .._closure import as_module
from .._precision import in_full_precision
from .._types import Numbers, Scalar, Time, Vector


class AbstractPotential(eqx.Module):
    """A potential energy `V(t, x) -> scalar` of one particle, `x` of shape `(d,)`.

    Potentials can be added to each other and to plain functions `V(t, x)`, and scaled:

    ```python
    field = lambda t, x: -0.1 * jnp.sin(t) * x[0]
    potential = (
        bd.MorseChain(depth=12.5, width=0.2, coupling=0.3)
        + 0.5 * bd.Eckart(1.0, 0.5)
        + field
    )
    ```

    To write your own, subclass this, declare its parameters as fields and write `__call__`. A plain
    function is also accepted as a potential, and on either side of a `+` if the other side is an
    `AbstractPotential`.

    **Units:** energy.
    """

    # Without this, NumPy would turn `numpy.float64(2) * V` into an array of objects.
    __array_ufunc__ = None

    @abstractmethod
    def __call__(self, t: Time, x: Vector) -> Scalar:
        """The energy of one particle at `x`, shape `(d,)`, at time `t`."""

    def __add__(self, other: Any) -> "AbstractPotential":
        return _add(self, other)

    def __radd__(self, other: Any) -> "AbstractPotential":
        # sum([...]) starts from the integer zero.
        return self if _is_zero(other) else _add(other, self)

    def __sub__(self, other: Any) -> "AbstractPotential":
        return _add(self, ScaledPotential(other, -1.0)) if callable(other) else NotImplemented

    def __rsub__(self, other: Any) -> "AbstractPotential":
        return _add(other, -self)

    def __mul__(self, factor: Any) -> "AbstractPotential":
        return NotImplemented if callable(factor) else ScaledPotential(self, factor)

    def __rmul__(self, factor: Any) -> "AbstractPotential":
        # Not `self * factor`, which would call this method again if the factor is also a potential.
        return self.__mul__(factor)

    def __truediv__(self, divisor: Any) -> "AbstractPotential":
        if callable(divisor):
            return NotImplemented
        return ScaledPotential(self, 1.0 / as_real_array(divisor, "The divisor of a potential"))

    def __neg__(self) -> "AbstractPotential":
        return ScaledPotential(self, -1.0)


class AbstractSeparablePotential(AbstractPotential):
    """A potential that is a sum of terms of a few coordinates each.

    Methods that expand ψ in products of functions, such as
    [`HermiteFunctions`][bohmdiff.HermiteFunctions], need it in more than five coordinates, and are faster with
    it in fewer. All potentials of bohmdiff are such sums, but for tables, and so are sums of them.

    ```python
    class Coupled(bd.AbstractSeparablePotential):
        def __call__(self, t, x):
            return 0.5 * jnp.sum(x**2) + 0.1 * x[0] * x[1]

        def separable_terms(self, dimension):
            square = lambda t, y: 0.5 * y[0] ** 2
            product = lambda t, y: 0.1 * y[0] * y[1]
            return (
                *(bd.PotentialTerm((i,), square) for i in range(dimension)),
                bd.PotentialTerm((0, 1), product),
            )
    ```

    **Units:** energy.
    """

    @abstractmethod
    def separable_terms(self, dimension: int) -> "tuple[PotentialTerm, ...]":
        """The terms for a number of coordinates, `d`; their sum is the potential."""


class PotentialTerm(eqx.Module):
    """A term of a potential that depends on some coordinates only.

    ```python
    bd.PotentialTerm((0, 2), lambda t, y: 0.3 * y[0] * y[1])  # 0.3 x_0 x_2
    ```

    **Arguments:**

    - `coordinates`: the indices of its coordinates, increasing.
    - `potential`: a function `V(t, y) -> scalar` of these coordinates, `y` of shape `(len(coordinates),)`.

    **Units:** energy.

    **Raises:** `ValueError` if the indices do not increase or the potential is not callable.
    """

    coordinates: tuple[int, ...] = eqx.field(static=True)
    potential: Callable[[Time, Vector], Scalar]

    def __init__(self, coordinates: Sequence[int], potential: Callable[..., Any]):
        indices = tuple(coordinates) if isinstance(coordinates, Sequence) else ()
        whole = all(is_whole_number(i) and i >= 0 for i in indices)
        if not indices or not whole or any(i >= j for i, j in pairwise(indices)):
            raise ValueError(
                "coordinates must be indices of coordinates that increase, such as (0, 2), but "
                f"{coordinates!r} was given."
            )
        if not callable(potential):
            raise ValueError(f"A term must be a potential V(t, y) -> scalar, but {potential!r} was given.")
        self.coordinates, self.potential = tuple(map(int, indices)), as_module(potential)

    def __call__(self, t: Time, x: Vector) -> Scalar:
        return self.potential(t, x[np.array(self.coordinates)])


class PotentialSum(AbstractSeparablePotential):
    """A sum of potentials, as returned by `V + W`.

    ```python
    bd.PotentialSum(bd.DoubleWell(), lambda t, x: 0.1 * x[0])
    ```

    **Arguments:**

    - `*terms`: at least one potential or plain function `V(t, x) -> scalar`.

    **Units:** energy for every term; each takes one point of shape `(d,)`.

    **Raises:** `ValueError` if there is no term, or if a term is not callable.
    """

    terms: tuple[Callable[[Time, Vector], Scalar], ...]

    def __init__(self, *terms: Callable[[Time, Vector], Scalar]):
        if not terms:
            raise ValueError("A sum of potentials needs at least one term, but none was given.")
        for term in terms:
            if not callable(term):
                raise ValueError(
                    f"Each term of a sum must be a potential V(t, x) -> scalar, but {term!r} was given."
                )
        self.terms = tuple(map(as_module, terms))

    def __call__(self, t: Time, x: Vector) -> Scalar:
        total = self.terms[0](t, x)
        for term in self.terms[1:]:
            total = total + term(t, x)
        return total

    def separable_terms(self, dimension: int) -> tuple[PotentialTerm, ...]:
        return tuple(part for term in self.terms for part in separable_terms(term, dimension))


class ScaledPotential(AbstractSeparablePotential):
    """A potential times a number, as returned by `factor * V`, `V / number` and `-V`.

    ```python
    bd.ScaledPotential(bd.DoubleWell(), 2.0)
    ```

    **Arguments:**

    - `potential`: a potential or plain function `V(t, x) -> scalar`.
    - `factor`: a number, of either sign; differentiable.

    **Units:** the factor has no units; the potential takes one point of shape `(d,)`.

    **Raises:** `ValueError` if the potential is not callable or the factor is not one finite number.
    """

    potential: Callable[[Time, Vector], Scalar]
    factor: Scalar

    @in_full_precision
    def __init__(self, potential: Callable[..., Any], factor: Numbers):
        if not callable(potential):
            raise ValueError(f"Only a potential V(t, x) can be scaled, but {potential!r} was given.")
        self.potential = as_module(potential)
        self.factor = scalar(factor, "The factor of a potential")

    def __call__(self, t: Time, x: Vector) -> Scalar:
        return self.factor * self.potential(t, x)

    def separable_terms(self, dimension: int) -> tuple[PotentialTerm, ...]:
        parts = separable_terms(self.potential, dimension)
        scaled = (eqx.tree_at(lambda whole: whole.potential, self, part.potential) for part in parts)
        return tuple(PotentialTerm(part.coordinates, one) for part, one in zip(parts, scaled, strict=True))


class Monomial(AbstractPotential):
    """A coefficient times powers of the coordinates: a term of a polynomial."""

    coefficient: Scalar
    powers: tuple[int, ...] = eqx.field(static=True)

    def __call__(self, t: Time, x: Vector) -> Scalar:
        return self.coefficient * jnp.prod(jnp.stack([x[i] ** n for i, n in enumerate(self.powers)]))


def separable_terms(potential: Callable[..., Any], dimension: int) -> tuple[PotentialTerm, ...]:
    """The terms of any potential; what is not known as a sum is one term of all coordinates."""
    if isinstance(potential, AbstractSeparablePotential):
        return potential.separable_terms(dimension)
    return (PotentialTerm(tuple(range(dimension)), potential),)


def scalar(value: Numbers, name: str) -> Scalar:
    """`value` as one real number."""
    array = as_real_array(value, name)
    if array.ndim != 0:
        raise ValueError(f"{name} must be a single number, but shape {array.shape} was given.")
    return array


def number_or_vector(value: Numbers, name: str) -> Array:
    """`value` as one real number, or as one real number per coordinate."""
    array = as_real_array(value, name)
    if array.ndim > 1 or array.size == 0:
        raise ValueError(
            f"{name} must be a number or have one entry per coordinate, shape (d,), but shape "
            f"{array.shape} was given."
        )
    return array


def check_fits(array: Array, name: str, x: Vector) -> Array:
    """Raises unless `array`, a number or one entry per coordinate, fits the shape of the particle `x`."""
    if array.shape not in ((), x.shape):
        raise ValueError(
            f"{name} has shape {array.shape}, which does not match {x.size} coordinates: it must be a "
            f"number or have shape {x.shape}."
        )
    return array


def positive(array: Array, name: str) -> Array:
    """`array`, with a check that every entry is positive."""
    return require(array, jnp.all(array > 0), f"{name} must be positive, but {describe(array)} was given.")


def _is_zero(value: Any) -> bool:
    return isinstance(value, int | float | np.number) and value == 0


def _add(left: Any, right: Any) -> AbstractPotential:
    if not (callable(left) and callable(right)):
        return NotImplemented
    return PotentialSum(*terms_of(left), *terms_of(right))


def terms_of(potential: Any) -> tuple:
    """The terms of a sum; any other potential is its own single term. This keeps long sums flat."""
    return potential.terms if isinstance(potential, PotentialSum) else (potential,)
