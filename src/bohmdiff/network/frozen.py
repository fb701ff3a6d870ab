"""The arrays of a module that training may change."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp

from .._closure import ClosedFunction


class AbstractFrozen(eqx.Module):
    """A module whose arrays training does not change.

    ```python
    class Offset(bd.network.AbstractFrozen):
        value: jax.Array
    ```
    """


def trainable(tree: Any) -> Any:
    """The mask of the arrays that training may change: real ones, outside of frozen modules and of plain
    functions, whose numbers are not parameters."""

    def is_frozen(node: Any) -> bool:
        return isinstance(node, AbstractFrozen | ClosedFunction)

    def mask(node: Any) -> Any:
        if is_frozen(node):
            return jax.tree.map(lambda _: False, node)
        # The gradient of JAX leads uphill in the imaginary part of a complex array.
        return eqx.is_inexact_array(node) and not jnp.iscomplexobj(node)

    return jax.tree.map(mask, tree, is_leaf=is_frozen)


def held_fixed(tree: Any) -> Any:
    """The same tree, but no derivative goes through its arrays."""
    return jax.tree.map(lambda leaf: jax.lax.stop_gradient(leaf) if eqx.is_array(leaf) else leaf, tree)
