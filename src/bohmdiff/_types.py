"""Shapes that appear in signatures. `d` coordinates, `M` particles, `K` saved times."""

from jaxtyping import Array, ArrayLike, Float, PRNGKeyArray, UInt32

Scalar = Float[Array, ""]
Time = Float[ArrayLike, ""]
Vector = Float[Array, " d"]
Matrix = Float[Array, "d d"]
Times = Float[Array, " K"]
Weights = Float[Array, " M"]
Points = Float[Array, "M d"]
Paths = Float[Array, "M K d"]
Key = PRNGKeyArray | UInt32[Array, "2"]
