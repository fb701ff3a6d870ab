"""A pytree as text and arrays, and back.

The text is what JSON can hold. Restoring runs no constructor, and imports and calls nothing that the text names.

Functions and classes of the user cannot be written. A node has the number of one in a list of `Own`, and it is
found again in the problem or the method that the user passes.
"""

import dataclasses
import functools
import inspect
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from .._closure import ClosedFunction, as_module
from ._names import name_of, thing_named
from ._parts import (
    BoundMethod,
    Labels,
    Own,
    children,
    close,
    closed_like,
    field_names,
    follow,
    has_class,
    index_of,
    is_array,
    is_optimizer,
    library_function,
    own_name,
    text,
)

Node = Any


class UnsavedError(ValueError):
    """There is no way to write a part."""


class Writer:
    """Makes nodes of values, and collects their arrays with where they are."""

    def __init__(self, own: list[Own]):
        self.arrays: list[tuple[Labels, np.ndarray]] = []
        self._own = own
        # With the values themselves, so that no other one gets the identity of one of them.
        self._written: dict[int, tuple[int, Any]] = {}

    def node(self, value: Any, where: Labels) -> Node:
        """The node of a value. Objects and arrays that occur again are written once."""
        if value is None or type(value) in (bool, int, float, str):
            return value
        if id(value) in self._written:
            return {"again": self._written[id(value)][0]}
        node = self._new(value, where)
        if _is_shared(node):
            self._written[id(value)] = len(self._written), value
        return node

    def _new(self, value: Any, where: Labels) -> Node:
        if is_array(value):
            return self._array(value, where)
        if isinstance(value, complex):
            return {"complex": [value.real, value.imag]}
        if isinstance(value, np.dtype):
            return {"dtype": value.name}
        if isinstance(value, Path):
            return {"path": str(value)}
        if isinstance(value, ClosedFunction):
            return self._closed(value, where)
        if (k := index_of(value, self._own)) is not None:
            return {"own": k}
        if (name := name_of(value)) is not None:
            return {"name": name}
        if is_optimizer(value):
            return {"optimizer": type(value).__name__}
        parts = children(value)
        if parts is None:
            raise UnsavedError(_not_found(value, where))
        nodes = [(label, self.node(part, (*where, label))) for label, part in parts]
        if isinstance(value, BoundMethod):
            return {"method": value.__func__.__name__, "of": nodes[0][1]}
        if isinstance(value, functools.partial):
            return {
                "partial": [node for _, node in nodes],
                "of_jax": isinstance(value, jax.tree_util.Partial),
            }
        if has_class(value):
            return {
                "object": self._class(type(value)),
                "fields": {label[1:]: node for label, node in nodes},
            }
        if isinstance(value, dict):
            return {"dict": [[key, node] for key, (_, node) in zip(value, nodes, strict=True)]}
        return {type(value).__name__: [node for _, node in nodes]}

    def _closed(self, value: ClosedFunction, where: Labels) -> Node:
        if (thing := library_function(value)) is not None:
            return {"module_of": name_of(thing)}
        k = index_of(value, self._own)
        k = closed_like(value, self._own) if k is None else k
        if k is None:
            raise UnsavedError(_not_found(value, where))
        return {"closed": k, "values": self.node(value.values, (*where, ".values"))}

    def _class(self, cls: type) -> Node:
        k = index_of(cls, self._own)
        return (
            {"own": k}
            if k is not None
            else name_of(cls) or {"local": f"{cls.__module__}:{cls.__qualname__}"}
        )

    def _array(self, value: Any, where: Labels) -> Node:
        if jnp.issubdtype(value.dtype, jax.dtypes.prng_key):
            raise UnsavedError(f"{text(where)} is a random key, which a file cannot hold.")
        kind = (
            "jax"
            if isinstance(value, jax.Array)
            else "numpy"
            if isinstance(value, np.ndarray)
            else "scalar"
        )
        array = np.asarray(value)
        self.arrays.append((where, array))
        node = {
            "array": len(self.arrays) - 1,
            "of": kind,
            "dtype": array.dtype.name,
            "shape": list(array.shape),
        }
        # Without it, what is compiled for the saved solution would be compiled again for the loaded one.
        return node | {"weak": True} if getattr(value, "weak_type", False) else node


class Reader:
    """Makes values of nodes again.

    `array` gives an array by its number, shape and dtype. `own` tells where the parts of the user are, and
    `passed` holds the problem and the method that the user passed. `optimizer` replaces every optimizer.
    """

    def __init__(
        self,
        array: Callable[[int, tuple[int, ...], np.dtype], np.ndarray],
        own: list[tuple[Labels, str]],
        passed: dict[str, Any],
        optimizer: Any,
    ):
        self._array_of, self._own, self._passed, self._optimizer = array, own, passed, optimizer
        self._restored: list[Any] = []

    def value(self, node: Node, where: Labels) -> Any:
        """The value of a node; `ValueError` for a node that no writer makes."""
        if not isinstance(node, dict):
            return node
        if "again" in node:
            return self._restored[node["again"]]
        value = self._new(node, where)
        if _is_shared(node):
            self._restored.append(value)
        return value

    def _new(self, node: dict[str, Node], where: Labels) -> Any:
        match node:
            case {"array": int(number), "of": kind, "dtype": str(dtype), "shape": [*shape]}:
                array = self._array_of(number, tuple(shape), np.dtype(dtype))
                return _as_it_was(array, kind, node.get("weak", False))
            case {"complex": [real, imag]}:
                return complex(real, imag)
            case {"dtype": str(name)}:
                return np.dtype(name)
            case {"path": str(path)}:
                return Path(path)
            case {"own": int(k)}:
                return self._passed_part(k)
            case {"module_of": str(name)} if (thing := thing_named(name)) is not None:
                return as_module(thing)
            case {"closed": int(k), "values": values}:
                return self._closed(k, self.value(values, (*where, ".values")), where)
            case {"name": str(name)} if (thing := thing_named(name)) is not None:
                return thing
            case {"optimizer": _}:
                return self._optimizer_at(where)
            case {"method": str(name), "of": of}:
                owner = self.value(of, (*where, ".__self__"))
                if inspect.isfunction(getattr(type(owner), name, None)):
                    return getattr(owner, name)
            case {"partial": [*parts], "of_jax": of_jax}:
                labels = (".func", ".args", ".keywords")
                function, args, keywords = (
                    self.value(part, (*where, label)) for part, label in zip(parts, labels, strict=True)
                )
                return (jax.tree_util.Partial if of_jax else functools.partial)(function, *args, **keywords)
            case {"object": cls, "fields": dict(fields)}:
                return self._object(self._class(cls), fields, where)
            case {"dict": [*items]}:
                return {key: self.value(part, (*where, f"[{key!r}]")) for key, part in items}
            case {"list": [*items]}:
                return list(self._items(items, where))
            case {"tuple": [*items]}:
                return tuple(self._items(items, where))
        raise ValueError(
            f"{text(where)} is {str(node)[:80]}, which this version of bohmdiff does not know or does not trust."
        )

    def _items(self, items: list[Node], where: Labels) -> Iterator[Any]:
        return (self.value(item, (*where, f"[{i}]")) for i, item in enumerate(items))

    def _object(self, cls: Any, nodes: dict[str, Node], where: Labels) -> Any:
        if not inspect.isclass(cls):
            raise ValueError(
                f"{text(where)} is of a class that is not known here. Define it before you load."
            )
        is_tuple = issubclass(cls, tuple)
        fields = field_names(cls)
        if set(fields) != set(nodes):
            raise ValueError(
                f"{text(where)} is a {cls.__name__} with {', '.join(nodes)}, but now a {cls.__name__} has "
                f"{', '.join(fields)}."
            )
        values = {name: self.value(part, (*where, f".{name}")) for name, part in nodes.items()}
        if is_tuple:
            return tuple.__new__(cls, [values[name] for name in fields])
        value = object.__new__(cls)
        for name, part in values.items():
            object.__setattr__(value, name, part)
        return value

    def _class(self, node: Node) -> Any:
        match node:
            case {"own": int(k)}:
                return type(self._passed_part(k))
            case {"local": str(name)}:
                return _defined_here(name)
        return thing_named(node)

    def _passed_part(self, k: int) -> Any:
        where, name = self._own[k]
        try:
            return follow(self._passed[where[0]], where[1:])
        except LookupError:
            raise ValueError(
                f"{text(where)} is {name}, but the {where[0]} that was passed has nothing there. Pass the "
                f"{where[0]} that was solved."
            ) from None

    def _closed(self, k: int, values: Any, where: Labels) -> Any:
        function, shapes = self._passed_part(k), [value.shape for value in values]
        same = isinstance(function, ClosedFunction) and [value.shape for value in function.values] == shapes
        if where == self._own[k][0]:
            # Values that agree are those of the file, to the last bit. Others are compared as they are.
            agrees = same and all(map(close, values, function.values))
            return dataclasses.replace(function, values=values) if agrees else function
        if not same:
            raise ValueError(
                f"{text(where)} is {self._own[k][1]} with other numbers, but the function that was passed does "
                "not close over as many. Pass the same function."
            )
        return dataclasses.replace(function, values=values)

    def _optimizer_at(self, where: Labels) -> Any:
        try:
            return follow(self._passed[where[0]], where[1:])
        except LookupError:
            return self._optimizer


def _is_shared(node: Node) -> bool:
    return isinstance(node, dict) and bool(node.keys() & {"array", "object", "closed"})


def _not_found(value: Any, where: Labels) -> str:
    return (
        f"{text(where)} is {own_name(value)}, which a file cannot hold and which is no part of the problem "
        "or the method."
    )


def _as_it_was(array: np.ndarray, kind: str, weak: bool) -> Any:
    """An array of the kind that was written."""
    if kind != "jax":
        return array if kind == "numpy" else array[()]
    if weak and array.size:
        numbers = jnp.stack([jnp.asarray(number.item()) for number in array.ravel()]).reshape(array.shape)
        if numbers.dtype == array.dtype:
            return numbers
    value = jnp.asarray(array)
    if value.dtype != array.dtype:
        raise ValueError(
            f"its arrays are {array.dtype}, which JAX does not hold now. Allow it before you load: "
            'jax.config.update("jax_enable_x64", True).'
        )
    return value


def _defined_here(name: str) -> type | None:
    """A class of modules that the user has defined in this process; of several with one name, the last."""
    found, level = None, [eqx.Module]
    while level:
        cls = level.pop(0)
        if f"{cls.__module__}:{cls.__qualname__}" == name:
            found = cls
        else:
            level += cls.__subclasses__()
    return found
