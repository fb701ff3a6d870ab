"""How our calculations run, whatever the settings of JAX are for those of users."""

import functools
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import jax

_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")


def in_full_precision(function: Callable[_Arguments, _Result]) -> Callable[_Arguments, _Result]:
    """The same function with matrix products in full precision. In single precision, JAX otherwise lets a GPU
    round the factors of a product to ten bits, unless `jax_default_matmul_precision` is set. Transfers between
    host and device are allowed, which `jax_transfer_guard` may forbid: even `jnp.zeros(3)` is one."""

    @functools.wraps(function)
    def full(*args: _Arguments.args, **kwargs: _Arguments.kwargs) -> _Result:
        with jax.transfer_guard("allow"):
            # CPUs never round in this way. They are left unchanged, since another precision compiles programs
            # again.
            if jax.default_backend() == "cpu" or jax.default_matmul_precision.value is not None:
                return function(*args, **kwargs)
            with jax.default_matmul_precision("highest"):
                return function(*args, **kwargs)

    return full
