"""Products of matrices in all digits of single precision."""

import functools
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import jax

_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")


def in_full_precision(function: Callable[_Arguments, _Result]) -> Callable[_Arguments, _Result]:
    """The same function, but a GPU rounds no factor of a product to ten bits, as JAX lets it in single precision
    unless `jax_default_matmul_precision` says something else."""

    @functools.wraps(function)
    def full(*args: _Arguments.args, **kwargs: _Arguments.kwargs) -> _Result:
        # Processors never round so. They are left alone, as programs are compiled again in another precision.
        if jax.default_backend() == "cpu" or jax.default_matmul_precision.value is not None:
            return function(*args, **kwargs)
        with jax.default_matmul_precision("highest"):
            return function(*args, **kwargs)

    return full
