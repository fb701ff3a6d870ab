"""Ensembles in chunks, so that working memory does not grow with the number of particles."""

from collections.abc import Callable
from math import ceil, prod
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from jax.extend.core import ClosedJaxpr, Jaxpr

from .._types import Points

_Result = TypeVar("_Result")

# The total size of the intermediate arrays of one chunk. Only about a twentieth of it is in use at the same time:
# this fits into the second-level cache of a processor, and keeps a GPU busy.
_BYTES = {"cpu": 2**26}
_BYTES_ELSEWHERE = 2**34
_SAMPLE = 256


def in_chunks(move: Callable[[Points], _Result], work: Callable[[Points], Any], x0: Points) -> _Result:
    """`move(x0)` of an ensemble, chunk by chunk if it is large.

    **Arguments:**

    - `move`: maps positions of shape `(M, d)`, for any `M`, to arrays whose first axis runs over particles.
    - `work`: the computation that `move` repeats; the size of its arrays sets the size of a chunk.
    - `x0`: shape `(M, d)`.
    """
    number = x0.shape[0]
    if number <= _SAMPLE:
        return move(x0)
    for_each = _bytes(jax.make_jaxpr(work)(x0[:_SAMPLE]).jaxpr) / _SAMPLE
    largest = _BYTES.get(jax.default_backend(), _BYTES_ELSEWHERE) / for_each
    size = ceil(number / ceil(number / max(largest, 1)))
    chunks = ceil(number / size)
    if chunks == 1:
        return move(x0)
    # The last chunk is filled up. Neighbours go to different chunks, so that each chunk has the same share of
    # every device that holds particles.
    filled = jnp.concatenate([x0, x0[: chunks * size - number]])
    moved = jax.lax.map(move, jnp.swapaxes(filled.reshape(size, chunks, -1), 0, 1))
    return jax.tree.map(
        lambda leaf: jnp.swapaxes(leaf, 0, 1).reshape(chunks * size, *leaf.shape[2:])[:number], moved
    )


def _bytes(jaxpr: Jaxpr) -> int:
    """The size of the results of all equations, in bytes."""
    total = 0
    for equation in jaxpr.eqns:
        inner = [part for part in jax.tree.leaves(equation.params) if isinstance(part, Jaxpr | ClosedJaxpr)]
        if inner:
            total += max(_bytes(part.jaxpr if isinstance(part, ClosedJaxpr) else part) for part in inner)
        else:
            arrays: list[Any] = [variable.aval for variable in equation.outvars]
            total += sum(prod(array.shape) * array.dtype.itemsize for array in arrays)
    return total
