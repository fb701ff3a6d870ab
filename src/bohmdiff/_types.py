"""Shapes that appear in signatures. `d` coordinates, `M` particles, `K` saved times."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from jaxtyping import Array, ArrayLike, Float, PRNGKeyArray, UInt32

if TYPE_CHECKING:
    from numpy.typing import ArrayLike as Numbers
else:
    # Anything that a user may pass as an array; constructors convert and check it.
    Numbers = Any

Scalar = Float[Array, ""]
Time = Float[ArrayLike, ""]
Vector = Float[Array, " d"]
Matrix = Float[Array, "d d"]
Times = Float[Array, " K"]
Weights = Float[Array, " M"]
Points = Float[Array, "M d"]
Paths = Float[Array, "M K d"]
Key = PRNGKeyArray | UInt32[Array, "2"]

# A vector field: a time and one position of shape (d,), to a vector of that shape.
Field = Callable[[Time, Vector], Array]

__all__ = [
    "Field",
    "Key",
    "Matrix",
    "Numbers",
    "Paths",
    "Points",
    "Scalar",
    "Time",
    "Times",
    "Vector",
    "Weights",
]
