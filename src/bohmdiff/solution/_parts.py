"""The parts of a pytree, and which of them are the user's own."""

import dataclasses
import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import equinox as eqx
import jax
import numpy as np
import optax

from .._check import describe
from .._closure import ClosedFunction, as_module
from ._names import name_of

# The way to a part: where it starts, `problem` or `method`, then `.field`, `[0]` or `['key']`.
Labels = tuple[str, ...]


class _Bound(eqx.Module):
    def method(self):
        pass


# Equinox makes a pytree of `module.method`, of a class that is not public.
BoundMethod = type(_Bound().method)
# By how much two arrays may differ and still count as the same, relative to their largest entry.
_TOLERANCE = 1e-6


class Own(NamedTuple):
    """A part that is the user's own, such as a function, or one whose class is."""

    where: Labels
    name: str
    thing: Any


def text(where: Labels) -> str:
    """Where a part is, as the user would write it."""
    return "".join(where)


def is_array(value: Any) -> bool:
    return isinstance(value, jax.Array | np.ndarray | np.generic)


def is_plain(value: Any) -> bool:
    """Whether a value is one number, text or setting."""
    return type(value) in (type(None), bool, int, float, complex, str) or isinstance(value, np.dtype | Path)


def is_named_tuple(value: Any) -> bool:
    return isinstance(value, tuple) and isinstance(getattr(value, "_fields", None), tuple)


def has_class(value: Any) -> bool:
    """Whether a value is of a class with fields: a module, another dataclass or a named tuple."""
    others = BoundMethod | ClosedFunction | type
    return is_named_tuple(value) or (dataclasses.is_dataclass(value) and not isinstance(value, others))


def field_names(cls: Any) -> tuple[str, ...]:
    """The names of the fields of such a class. `TypeError` for other classes."""
    if issubclass(cls, tuple):
        names: Any = cls
        return names._fields
    return tuple(field.name for field in dataclasses.fields(cls))


def children(value: Any) -> list[tuple[str, Any]] | None:
    """What a value consists of, each with its label; `None` if it is one thing."""
    if isinstance(value, BoundMethod):
        known = getattr(type(value.__self__), value.__func__.__name__, None) is value.__func__
        return [(".__self__", value.__self__)] if known else None
    if isinstance(value, ClosedFunction):
        return [(".values", value.values)]
    if is_named_tuple(value):
        return [(f".{name}", part) for name, part in zip(value._fields, value, strict=True)]
    if has_class(value):
        inside = vars(value)
        # More than its fields: a wrapper of a function, such as that of `eqx.filter_jit`.
        return (
            None
            if set(inside) - set(field_names(type(value)))
            else [(f".{name}", inside[name]) for name in inside]
        )
    if isinstance(value, functools.partial):
        return [(".func", value.func), (".args", value.args), (".keywords", value.keywords)]
    if type(value) in (tuple, list):
        return [(f"[{i}]", part) for i, part in enumerate(value)]
    if type(value) is dict and all(type(key) in (str, int) for key in value):
        return [(f"[{key!r}]", part) for key, part in value.items()]
    return None


def follow(value: Any, labels: Labels) -> Any:
    """The part of a value that lies at some labels. `LookupError` if there is none."""
    for label in labels:
        value = dict(children(value) or [])[label]
    return value


def own_parts(value: Any, where: Labels, known: list[Own]) -> None:
    """Appends all parts of a value that are the user's own, the outer ones first, and each only once.

    The method may contain a function that is a part of the problem already, in other arrays.
    """
    if isinstance(value, ClosedFunction):
        if library_function(value) is not None:
            return
        same = closed_like(value, known)
        if index_of(value, known) is None and (same is None or known[same].where[0] == where[0]):
            known.append(Own(where, own_name(value), value))
        return
    if is_plain(value) or is_array(value) or is_optimizer(value) or name_of(value) is not None:
        return
    parts = children(value)
    if parts is None:
        if index_of(value, known) is None:
            known.append(Own(where, own_name(value), value))
        return
    if has_class(value) and name_of(type(value)) is None and index_of(type(value), known) is None:
        known.append(Own(where, own_name(type(value)), type(value)))
    for label, part in parts:
        own_parts(part, (*where, label), known)


def index_of(value: Any, known: list[Own]) -> int | None:
    return next((k for k, own in enumerate(known) if own.thing is value), None)


def library_function(value: ClosedFunction) -> Any:
    """The function of a library that a module was made of, such as `jnp.tanh`; `None` for other modules."""
    match value.recipe:
        case ("same", held):
            thing = held.value
        case ("function", _, code, _, _, ("same", names), *_):
            # A lambda that is a variable of its module.
            functions = (
                one for one in names.value.values() if getattr(one, "__code__", None) is code.value
            )
            thing = next(functions, None)
        case _:
            return None
    if not callable(thing) or name_of(thing) is None:
        return None
    return thing if as_module(thing).recipe == value.recipe else None


def closed_like(value: ClosedFunction, known: list[Own]) -> int | None:
    """A known function of the same code."""
    things = enumerate(own.thing for own in known)
    return next(
        (k for k, one in things if isinstance(one, ClosedFunction) and one.recipe == value.recipe), None
    )


def is_optimizer(value: Any) -> bool:
    """Whether a value is one of optax: functions inside of functions, which nothing but a training needs."""
    return isinstance(value, optax.GradientTransformation)


def own_name(value: Any) -> str:
    if isinstance(value, ClosedFunction):
        return f"the function {value.name}"
    name = getattr(value, "__qualname__", None)
    if isinstance(value, type):
        return f"of the class {name}"
    return (
        f"the function {name}"
        if isinstance(name, str)
        else f"an object of the class {type(value).__qualname__}"
    )


def differences(ours: Any, theirs: Any, where: Labels) -> Iterator[str]:
    """In words, where what was passed differs from what the file holds."""
    if ours is theirs or is_optimizer(ours):
        return
    if is_array(ours) and is_array(theirs):
        if ours.shape != theirs.shape or ours.dtype != theirs.dtype or not close(ours, theirs):
            kinds = ["" if ours.dtype == theirs.dtype else f"{one.dtype} " for one in (ours, theirs)]
            ours, theirs = (
                f"{kind}{describe(one)}" for kind, one in zip(kinds, (ours, theirs), strict=True)
            )
            yield f"{text(where)} is {ours} in the file, but {theirs} was passed"
        return
    if (
        isinstance(ours, ClosedFunction)
        and isinstance(theirs, ClosedFunction)
        and ours.recipe != theirs.recipe
    ):
        yield f"{text(where)} is the function {ours.name} in the file, but another one, {theirs.name}, was passed"
        return
    parts, others = children(ours), children(theirs)
    if type(ours) is type(theirs) and parts is not None and others is not None:
        if [label for label, _ in parts] == [label for label, _ in others]:
            for (label, part), (_, other) in zip(parts, others, strict=True):
                yield from differences(part, other, (*where, label))
            return
    elif type(ours) is type(theirs) and ours == theirs:
        return
    yield f"{text(where)} is {_short(ours)} in the file, but {_short(theirs)} was passed"


def close(ours: Any, theirs: Any) -> bool:
    ours, theirs = np.asarray(ours), np.asarray(theirs)
    if ours.dtype.kind in "biu":
        return bool((ours == theirs).all())
    ours, theirs = (array.astype(np.result_type(array, np.float32)) for array in (ours, theirs))
    largest = np.abs(ours)[np.isfinite(ours)].max(initial=0)
    return np.allclose(theirs, ours, rtol=0, atol=_TOLERANCE * largest, equal_nan=True)


def _short(value: Any) -> str:
    if callable(value):
        name = getattr(value, "__name__", None)
        return name if isinstance(name, str) else f"a {type(value).__name__}"
    return f"a {type(value).__name__}" if children(value) is not None else repr(value)
