"""Plain functions as modules."""

import types
import weakref
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array

from .._check import warn
from ._recipe import (
    TOO_LARGE,
    Builder,
    Constant,
    Inventory,
    Recipe,
    fits,
    is_known,
    is_value,
    name_of_function,
    original,
    precision,
)

_WARN_AT = 3

_seen: weakref.WeakKeyDictionary[types.CodeType, set[int]] = weakref.WeakKeyDictionary()


class ClosedFunction(eqx.Module):
    """A plain function with the numbers that it closes over as leaves; what `as_module` makes of one."""

    name: str = eqx.field(static=True)
    recipe: Recipe = eqx.field(static=True, repr=False)
    values: tuple[Array, ...]

    def __call__(self, *arguments: Any, **keywords: Any) -> Any:
        function = Builder(self.values, precision((arguments, keywords))).build(self.recipe)
        return function(*arguments, **keywords)

    def __hash__(self) -> int:
        # As that of a function, so that `jax.jit` takes it.
        return id(self)


def as_module(function: Callable[..., Any]) -> Any:
    """`function` as a module whose leaves are arrays, with the values that it closes over now.

    A module stays what it is, apart from plain functions among its leaves. See `settled` for functions that need
    the values of their numbers.
    """
    if isinstance(function, eqx.Module):
        leaves, structure = jax.tree.flatten(function)
        if not any(map(_is_plain, leaves)):
            return function
        return jax.tree.unflatten(structure, [as_module(one) if _is_plain(one) else one for one in leaves])
    inventory = Inventory()
    recipe = inventory.take(function)
    closed = ClosedFunction(name_of_function(function), recipe, tuple(inventory.values))
    if inventory.opaque:
        _hint(closed, inventory.opaque)
    if inventory.inspects:
        return with_constants(closed, "it looks at the type of its values")
    return closed


def name_of(module: Any) -> str:
    """The name of the function that a module was made of, or that of the type of the module."""
    return module.name if isinstance(module, ClosedFunction) else type(module).__name__


def settled(tree: Any, *options: tuple) -> Any:
    """`tree`, a module that is called with the arguments of an option, so that `jax.jit` can trace it.

    Some functions need the values of their numbers: `if c > 0`, `math.sqrt(c)`. Where the tree can't be called
    with traced numbers, or returns another shape or type, they become constants. That is always right, but
    compiles anew for each value. The first option with which the tree can be called at all decides; if there is
    none, it stays as it is.
    """
    if not any(one.values for one in jax.tree.leaves(tree, is_leaf=_is_closed) if _is_closed(one)):
        return tree
    for arguments in options:
        # With known values a function gets its numbers as the user wrote them.
        expected = _shapes(lambda *a: tree(*a), arguments)
        if expected is not None:
            return _settled(tree, arguments, expected)
    return tree


def _settled(tree: Any, arguments: tuple, expected: list) -> Any:
    dtype = precision(arguments)

    def is_unsafe(kind: str, value: Array) -> bool:
        return kind != "array" and not fits(value, dtype)

    tree = _map(lambda one: with_constants(one, TOO_LARGE, is_unsafe), tree)
    if _shapes(lambda one, *a: one(*a), (tree, *arguments)) == expected:
        return tree
    return _map(lambda one: with_constants(one, "it needs their values (`if`, `math`, NumPy)"), tree)


def with_constants(
    closed: ClosedFunction, reason: str, which: Callable[[str, Array], bool] = lambda kind, value: True
) -> ClosedFunction:
    """Moves the values that are known and `which` into the recipe, and hints at the reason."""
    kept = []

    def walk(recipe: Any) -> Any:
        if type(recipe) is not tuple:
            return recipe
        if not is_value(recipe):
            return tuple(map(walk, recipe))
        kind, index = recipe
        value = closed.values[index]
        if is_known(value) and which(kind, value):
            return ("constant", Constant(original(kind, value)))
        kept.append(value)
        return (kind, len(kept) - 1)

    out = ClosedFunction(closed.name, walk(closed.recipe), tuple(kept))
    if len(kept) < len(closed.values):
        _hint(out, reason)
    return out


def _hint(closed: ClosedFunction, reason: str) -> None:
    """Warns once, where functions of the same code come again and again and each compiles."""
    kind, *parts = closed.recipe
    if kind != "function":
        return
    code = parts[1].value
    seen = _seen.setdefault(code, set())
    if len(seen) == _WARN_AT:
        return
    seen.add(hash(closed.recipe))
    if len(seen) == _WARN_AT:
        warn(
            f"This is the third function {closed.name} ({code.co_filename}:{code.co_firstlineno}) with the "
            f"same code and other values. Everything compiles anew for each, because {reason}. To compile once, "
            "pass an equinox.Module with the values as fields, or a function that uses only numbers, arrays and "
            "jax.numpy."
        )


def _is_closed(value: Any) -> bool:
    return isinstance(value, ClosedFunction)


def _map(change: Callable[[ClosedFunction], ClosedFunction], tree: Any) -> Any:
    return jax.tree.map(lambda one: change(one) if _is_closed(one) else one, tree, is_leaf=_is_closed)


def _shapes(function: Callable[..., Any], arguments: tuple) -> list | None:
    """Shapes and types of what the function returns, or `None` if it can't be called."""
    try:
        out = eqx.filter_eval_shape(lambda *a: jax.tree.map(jnp.asarray, function(*a)), *arguments)
    except Exception:
        return None
    return [(one.shape, one.dtype) for one in jax.tree.leaves(out)]


def _is_plain(value: Any) -> bool:
    return callable(value) and not isinstance(value, eqx.Module | type)
