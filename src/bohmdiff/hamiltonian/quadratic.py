"""The quadratic potential, in which Gaussian wave packets stay Gaussian."""

from collections.abc import Callable
from itertools import combinations
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .._check import as_real_array, describe, is_concrete, reason, require
from .._closure import as_module, name_of, settled
from .._precision import in_full_precision
from .._types import Numbers, Scalar, Time, Vector
from .potential import (
    AbstractPotential,
    AbstractSeparablePotential,
    PotentialTerm,
    check_fits,
    number_or_vector,
)


class Quadratic(AbstractSeparablePotential):
    r"""$V(t, x) = \tfrac12 (x-c)^\top K(t)\,(x-c) + b(t)\cdot x$.

    It can be bound, free or inverted, coupled and driven: $K$, $c$ and $b$ may each depend on time.

    ```python
    trap = bd.Quadratic(matrix=[[1.0, 0.2], [0.2, 2.0]])
    driven = bd.Quadratic(matrix=1.0, linear=lambda t: -0.3 * jnp.cos(t))
    ```

    **Arguments:**

    - `matrix`: the force constants $K$, of either sign: a number, `(d,)` for one per coordinate, or a
        symmetric `(d, d)`; or a function of time that returns one of these. Energy per length squared.
    - `centre`: $c$, a number or `(d,)`, or a function of time; zero if not given. Length.
    - `linear`: $b$, a number (the same for each coordinate) or `(d,)`, or a function of time; zero if
        not given. Energy per length.

    If the matrix is a function of time, its symmetry is not checked; only its symmetric part enters
    the formula. The arrays that such functions return are checked for their shapes at the call and
    cast to the dtype of `x`.

    **Units:** `matrix` in energy / length², `centre` in length, `linear` in energy / length.

    **Raises:** `ValueError` for a wrong shape, inconsistent shapes, or a matrix that is not symmetric.
    """

    matrix: Float[Array, "..."] | Callable[[Time], Array]
    centre: Float[Array, "..."] | Callable[[Time], Array] | None
    linear: Float[Array, "..."] | Callable[[Time], Array] | None

    @in_full_precision
    def __init__(
        self,
        matrix: Numbers | Callable[[Time], Array],
        centre: Numbers | Callable[[Time], Array] | None = None,
        linear: Numbers | Callable[[Time], Array] | None = None,
    ):
        self.matrix = _of_time(matrix) if callable(matrix) else _symmetric(as_real_array(matrix, "matrix"))
        self.centre = _vector_or_function(centre, "centre")
        self.linear = _vector_or_function(linear, "linear")
        fields = {"matrix": self.matrix, "centre": self.centre, "linear": self.linear}
        shapes = {name: value.shape for name, value in fields.items() if getattr(value, "ndim", 0)}
        if len({shape[0] for shape in shapes.values()}) > 1:
            given = ", ".join(f"{name} {shape}" for name, shape in shapes.items())
            raise ValueError(f"The parameters must agree on the number of coordinates, but have: {given}.")

    def __call__(self, t: Time, x: Vector) -> Scalar:
        y = x if self.centre is None else x - _vector_at(self.centre, "centre", t, x)
        matrix = _at(self.matrix, t, x)
        if matrix.shape == (x.size, x.size):
            energy = 0.5 * y @ matrix @ y
        elif matrix.shape in ((), x.shape):
            energy = 0.5 * jnp.sum(matrix * y**2)
        else:
            raise ValueError(
                f"matrix has shape {matrix.shape}, which does not match {x.size} coordinates: it must be "
                f"a number or have shape {x.shape} or {(x.size, x.size)}."
            )
        if self.linear is None:
            return energy
        return energy + jnp.sum(_vector_at(self.linear, "linear", t, x) * x)

    def separable_terms(self, dimension: int) -> tuple[PotentialTerm, ...]:
        matrix, pairs = self.matrix, tuple(combinations(range(dimension), 2))
        if not callable(matrix):
            coupled = matrix.ndim == 2
            known = is_concrete(matrix)
            pairs = tuple(p for p in pairs if coupled and not (known and float(matrix[p]) == 0))
        return (
            *(PotentialTerm((i,), _Part(self, (i,), dimension)) for i in range(dimension)),
            *(PotentialTerm(pair, _Part(self, pair, dimension)) for pair in pairs),
        )


class _Part(AbstractPotential):
    """What a quadratic potential adds for one coordinate, or for a pair beyond its coordinates."""

    whole: Quadratic
    coordinates: tuple[int, ...] = eqx.field(static=True)
    dimension: int = eqx.field(static=True)

    def __call__(self, t: Time, x: Vector) -> Scalar:
        everywhere = jnp.zeros(self.dimension, x.dtype)
        centre = self.whole.centre
        at_rest = everywhere if centre is None else everywhere + _vector_at(centre, "centre", t, everywhere)
        where = np.array(self.coordinates)
        y = x - at_rest[where]
        matrix = _at(self.whole.matrix, t, everywhere)
        if len(self.coordinates) == 2:
            i, j = self.coordinates
            return (0.5 * (matrix[i, j] + matrix[j, i]) * y[0] * y[1]) if matrix.ndim == 2 else 0.0 * y[0]
        (i,) = self.coordinates
        force = matrix[i, i] if matrix.ndim == 2 else jnp.broadcast_to(matrix, (self.dimension,))[i]
        energy = 0.5 * force * y[0] ** 2
        if self.whole.linear is None:
            return energy
        slope = jnp.broadcast_to(_vector_at(self.whole.linear, "linear", t, everywhere), (self.dimension,))
        return energy + slope[i] * x[0]


def _symmetric(matrix: Array) -> Array:
    if matrix.ndim > 2 or matrix.size == 0 or (matrix.ndim == 2 and matrix.shape[0] != matrix.shape[1]):
        raise ValueError(
            f"matrix must be a number or have shape (d,) or (d, d), but shape {matrix.shape} was given."
        )
    asymmetry, size = jnp.max(jnp.abs(matrix - matrix.T)), jnp.max(jnp.abs(matrix))
    return require(
        matrix,
        asymmetry <= 1e-5 * size,
        f"matrix must be symmetric, but {describe(matrix)} was given. Only the symmetric part of a "
        "quadratic form matters: pass (K + K.T) / 2.",
    )


def _vector_or_function(value: Any, name: str) -> Any:
    if callable(value):
        return _of_time(value)
    return None if value is None else number_or_vector(value, name)


def _of_time(function: Callable[[Time], Any]) -> Any:
    return settled(as_module(function), (jnp.zeros(()),))


def _at(value: Array | Callable[[Time], Array], t: Time, x: Vector) -> Array:
    if not callable(value):
        return value
    try:
        return jnp.asarray(value(t)).astype(x.dtype)
    except Exception as error:
        raise ValueError(
            f"A parameter that is a function of time must return a number or an array, but {name_of(value)} did "
            f"not: {reason(error)}"
        ) from error


def _vector_at(value: Array | Callable[[Time], Array], name: str, t: Time, x: Vector) -> Array:
    return check_fits(_at(value, t, x), name, x)
