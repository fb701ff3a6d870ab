"""Objects taken apart into a recipe and values, and built again."""

import builtins
import collections
import enum
import functools
import hashlib
import inspect
import itertools
import types
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, DTypeLike

from ._code import is_library, is_of_library, reads_of

_PLAIN = (type(None), type(Ellipsis), bool, int, str, bytes, range, np.bool_, np.integer, np.dtype)
_WRAPPERS = (type(jax.jit(lambda: None)), type(functools.lru_cache(lambda: None)))
_CONTAINERS = (tuple, list, dict, set, frozenset, types.SimpleNamespace)
_NAMED_TUPLE = collections.namedtuple("_NAMED_TUPLE", "_0", rename=True)
_DESCRIPTORS = (types.MemberDescriptorType, types.GetSetDescriptorType, type(vars(_NAMED_TUPLE)["_0"]))
# fmt: off
_MUTATORS = {
    "append", "extend", "insert", "add", "update", "setdefault", "pop", "popitem", "remove", "discard", "clear",
    "sort", "reverse",
}
# Of a class: what no method reads.
_BOOKKEEPING = {
    "__dict__", "__weakref__", "__doc__", "__module__", "__qualname__", "__annotations__", "__orig_bases__",
    "__dataclass_fields__", "__dataclass_params__", "__match_args__", "__parameters__", "__slots__",
    "__abstractmethods__", "_abc_impl", "__firstlineno__", "__static_attributes__", "__classcell__",
    "__annotate__", "__annotate_func__", "__annotations_cache__",
}
# Look at types, but not at those of numbers.
_OF_TEXT = {"__repr__", "__str__", "__format__", "__eq__"}
# fmt: on
# Between these, products and powers of a few numbers neither overflow nor vanish in single precision.
_SMALLEST, _LARGEST = 1e-6, 1e6
TOO_LARGE = "its numbers are too large or too small for single precision"
_MOST_OBJECTS, _DEEPEST = 10_000, 64

_numbers = itertools.count()

Recipe = tuple
_ITSELF: frozenset[tuple[str, ...]] = frozenset({()})


class _Held:
    def __init__(self, value: Any):
        self.value = value

    def __deepcopy__(self, memo: dict) -> "_Held":
        return self


class Same(_Held):
    """An object that is equal to nothing but itself."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Same) and self.value is other.value

    def __hash__(self) -> int:
        return id(self.value)


class Code(_Held):
    """Code; after a cell of a notebook has run again, it is another object of equal content."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Code) and (self.value is other.value or self.value == other.value)

    def __hash__(self) -> int:
        return hash((self.value.co_name, self.value.co_firstlineno))


class Constant(_Held):
    """A number or an array, compared by all its bits."""

    def __init__(self, value: Any):
        host = np.asarray(value)
        if isinstance(value, np.ndarray):
            host = value = value.copy()
            value.flags.writeable = False
        super().__init__(value)
        self.key = (type(value), host.dtype.str, host.shape, hashlib.sha256(host.tobytes()).digest())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Constant) and self.key == other.key

    def __hash__(self) -> int:
        return hash(self.key)


class Inventory:
    """Takes objects apart into a recipe and values.

    Within `frozen` objects nothing becomes a value: these are never built, and the recipe only says what is in
    them.
    """

    def __init__(self):
        self.values: list[Array] = []
        self.opaque = ""
        self.inspects = False
        self.frozen = 0
        self.depth = 0
        self.numbered: dict[tuple[int, bool], int] = {}
        # Identities are good as long as the objects live.
        self.alive: list[Any] = []
        self.open: set[int] = set()
        self.budget = _MOST_OBJECTS

    def take(self, value: Any, uses: frozenset[tuple[str, ...]] = _ITSELF, writes: bool = False) -> Recipe:
        """The recipe of `value`.

        `uses` are the attributes that code asks it for, an empty tuple where it is used itself; `writes` tells
        that code assigns to items of something.
        """
        self.budget -= 1
        if self.budget < 0 or self.depth == _DEEPEST:
            return self.unknown(value, "it reaches too many objects")
        self.depth += 1
        recipe = self.any(value, uses, writes)
        self.depth -= 1
        return recipe

    def any(self, value: Any, uses: frozenset[tuple[str, ...]], writes: bool) -> Recipe:
        if isinstance(value, Tracer):
            return self.array(value) if not self.frozen else ("same", Same(value))
        if isinstance(value, enum.Enum | enum.EnumMeta):
            return ("same", Same(value))
        if isinstance(value, _PLAIN):
            # A subclass may hold more.
            plain = type(value) in _PLAIN or isinstance(value, np.generic | np.dtype)
            return ("value", type(value), value) if plain else self.unknown(value)
        if isinstance(value, np.inexact) or type(value) in (float, complex):
            return self.number(value)
        if isinstance(value, jax.Array) or type(value) is np.ndarray:
            return self.array(value)
        if type(value) in (list, dict, set, bytearray):
            if any(len(chain) == 1 and chain[0] in _MUTATORS for chain in uses):
                return ("same", Same(value))  # a record that the function itself keeps
            if writes:
                return self.state(value, self.container)
        if type(value) in _CONTAINERS or _is_named_tuple(value):
            return self.container(value)
        if isinstance(value, types.FunctionType):
            return self.function(value)
        if isinstance(value, types.MethodType):
            return ("method", self.take(value.__func__), self.take(value.__self__))
        if isinstance(value, functools.partial):
            return ("partial", *map(self.take, (value.func, value.args, value.keywords)))
        if isinstance(value, eqx.Module):
            return self.module(value)
        if is_of_library(value):
            return ("same", Same(value))
        if isinstance(value, _WRAPPERS):
            # A program of its own, or stored results, would keep the values of the first call.
            return self.take(_inner(value))
        if isinstance(value, types.ModuleType):
            return self.state(value, lambda module: self.attributes(module, uses))
        return self.state(value, self.class_ if isinstance(value, type) else self.instance)

    def unknown(self, value: Any, reason: str = "") -> Recipe:
        self.opaque = self.opaque or reason or f"it uses {_kind(value)}"
        return ("opaque", Same(value), next(_numbers))

    def state(self, value: Any, contents: Callable[[Any], Recipe]) -> Recipe:
        """An object that stays as it is, with its contents for comparison."""
        # What is asked for differs from place to place in modules; all else is told once.
        if not isinstance(value, types.ModuleType):
            if (id(value), True) in self.numbered:
                return ("same", Same(value))
            self.numbered[id(value), True] = len(self.numbered)
            self.alive.append(value)
        self.opaque = self.opaque or f"it uses {_kind(value)}"
        self.frozen += 1
        recipe = ("opaque", Same(value), contents(value))
        self.frozen -= 1
        return recipe

    def number(self, value: Any) -> Recipe:
        plain = complex(value) if isinstance(value, complex | np.complexfloating) else float(value)
        if self.frozen:
            return ("constant", Constant(plain))
        if not fits(plain, jnp.result_type(float)):
            self.opaque = self.opaque or TOO_LARGE
            return ("constant", Constant(plain))
        with jax.ensure_compile_time_eval():  # under `jax.jit` too it has a value
            self.values.append(jnp.asarray(plain))
        return ("number", len(self.values) - 1)

    def array(self, value: Any) -> Recipe:
        kind = value.dtype
        if isinstance(value, np.ndarray):
            if kind.hasobject:
                return self.unknown(value)
            known = kind.name in ("float16", "float32", "float64", "complex64", "complex128")
            if self.frozen or not known or not fits(value, jnp.result_type(float)):
                return ("constant", Constant(value))
            with jax.ensure_compile_time_eval():
                self.values.append(jnp.array(value))
            return ("table", len(self.values) - 1)
        if is_known(value) and (self.frozen or not jnp.issubdtype(kind, jnp.inexact)):
            return ("constant", Constant(value))
        if self.frozen:
            return ("same", Same(value))
        self.values.append(value)
        return ("array", len(self.values) - 1)

    def container(self, value: Any) -> Recipe:
        if id(value) in self.open:
            return self.unknown(value)
        self.open.add(id(value))
        try:
            if isinstance(value, set | frozenset):
                return ("set", type(value), frozenset(map(self.key, value)))
            if isinstance(value, dict):
                return ("dict", tuple((self.key(name), self.take(one)) for name, one in value.items()))
            if isinstance(value, types.SimpleNamespace):
                return ("namespace", self.take(vars(value)))
            if type(value) in (tuple, list):
                return ("sequence", type(value), tuple(map(self.take, value)))
            return ("named", self.take(type(value)), tuple(map(self.take, value)))
        finally:
            self.open.remove(id(value))

    def key(self, value: Any) -> Recipe:
        self.frozen += 1
        recipe = self.take(value)
        self.frozen -= 1
        return recipe

    def module(self, value: eqx.Module) -> Recipe:
        leaves, structure = jax.tree.flatten(value)
        try:
            hash(structure)
        except TypeError:
            return self.unknown(value)
        return ("tree", structure, tuple(map(self.take, leaves)))

    def function(self, value: types.FunctionType) -> Recipe:
        library = is_library(str(value.__globals__.get("__name__")))
        if library and is_of_library(value):
            return ("same", Same(value))
        key = (id(value), self.frozen > 0)
        if key in self.numbered:
            return ("again", self.numbered[key])
        number = self.numbered[key] = len(self.numbered)
        self.alive.append(value)
        code = value.__code__
        reads = reads_of(code)
        if not library:
            of_python = reads.globals - value.__globals__.keys()
            if reads.dynamic or not of_python <= vars(builtins).keys():
                reason = f"{name_of_function(value)} reaches names that its code does not show"
                return self.unknown(value, reason)
            self.inspects |= reads.inspects
        cells = []
        for name, cell in zip(code.co_freevars, value.__closure__ or (), strict=True):
            if name in reads.assigned:
                cells.append(("same", Same(cell)))  # state that the function itself keeps
                continue
            try:
                contents = cell.cell_contents
            except ValueError:  # not assigned yet
                cells.append(("same", Same(cell)))
                continue
            cells.append(("cell", self.take(contents, reads.uses.get(name, _ITSELF), reads.writes)))
        if library:
            names = ("same", Same(value.__globals__))
        else:
            names = tuple(
                (name, self.take(value.__globals__[name], reads.uses[name], reads.writes))
                for name in ("__name__", *sorted(reads.globals))
                if name in value.__globals__
            )
        attributes = {name: one for name, one in vars(value).items() if name != "__wrapped__"}
        extras = map(self.take, (value.__defaults__, value.__kwdefaults__, attributes))
        return ("function", number, Code(code), value.__name__, tuple(cells), names, *extras)

    def attributes(self, module: types.ModuleType, uses: frozenset[tuple[str, ...]]) -> Recipe:
        """Of a module of the user: what the code asks it for."""
        parts = []
        for chain in sorted(uses):
            if not chain or chain[0] not in vars(module):
                return self.unknown(module)
            parts.append((chain[0], self.take(vars(module)[chain[0]], frozenset({chain[1:]}))))
        return tuple(parts)

    def class_(self, value: type) -> Recipe:
        if not is_of_library(type(value)):
            return self.unknown(value)
        parts, skipped = [], set(_BOOKKEEPING)
        if issubclass(value, tuple):
            skipped |= vars(_NAMED_TUPLE).keys()
        for base in value.__mro__:
            if is_of_library(base):
                parts.append(("same", Same(base)))
                continue
            for name, one in sorted(vars(base).items()):
                if name not in skipped and not isinstance(one, _DESCRIPTORS):
                    inspects = self.inspects
                    parts.append((name, self.attribute(one)))
                    if name in _OF_TEXT:
                        self.inspects = inspects
        return tuple(parts)

    def attribute(self, value: Any) -> Recipe:
        if isinstance(value, property):
            return ("property", *map(self.take, (value.fget, value.fset, value.fdel)))
        if isinstance(value, staticmethod | classmethod):
            return ("wrapped", type(value), self.take(value.__func__))
        return self.take(value)

    def instance(self, value: Any) -> Recipe:
        cls = type(value)
        copied = (cls.__reduce__, cls.__reduce_ex__, cls.__getstate__)
        if copied != (object.__reduce__, object.__reduce_ex__, object.__getstate__):
            return self.unknown(value)
        try:
            _, _, fields, items, pairs = object.__reduce_ex__(value, 2)
        except Exception:  # it has state that Python can't see
            return self.unknown(value)
        if items is not None or pairs is not None:
            return self.unknown(value)
        return ("instance", self.take(cls), self.take(fields))


class Builder:
    """Makes the object that a recipe and values stand for. Numbers get the precision of the arguments of the call
    where they are traced, so that they do not change that of the result; otherwise they are those of Python."""

    def __init__(self, values: tuple[Array, ...], dtype: DTypeLike):
        self.values = values
        self.dtype = dtype
        self.made: dict[int, types.FunctionType] = {}

    def build(self, recipe: Recipe) -> Any:
        match recipe:
            case ("value", _, value):
                return value
            case ("number" | "table" | "array" as kind, index):
                return self.value(kind, self.values[index])
            case ("same", held) | ("constant", held) | ("opaque", held, _):
                return held.value
            case ("sequence", kind, parts):
                return kind(map(self.build, parts))
            case ("named", kind, parts):
                return self.build(kind)._make(map(self.build, parts))
            case ("dict", pairs):
                return {self.build(name): self.build(one) for name, one in pairs}
            case ("set", kind, parts):
                return kind(map(self.build, parts))
            case ("namespace", parts):
                return types.SimpleNamespace(**self.build(parts))
            case ("tree", structure, leaves):
                return jax.tree.unflatten(structure, list(map(self.build, leaves)))
            case ("method", function, owner):
                return types.MethodType(self.build(function), self.build(owner))
            case ("partial", function, arguments, keywords):
                return functools.partial(
                    self.build(function), *self.build(arguments), **self.build(keywords)
                )
            case ("again", number):
                return self.made[number]
            case ("function", *parts):
                return self.function(*parts)
        raise AssertionError(recipe[0])

    def value(self, kind: str, value: Any) -> Any:
        if is_known(value):
            return original(kind, value)
        if kind != "number":
            return value
        complex_ = jnp.issubdtype(value.dtype, jnp.complexfloating)
        return value.astype(jnp.result_type(self.dtype, jnp.complex64) if complex_ else self.dtype)

    def function(
        self, number, code, name, cells, names, defaults, keywords, attributes
    ) -> types.FunctionType:
        closure = tuple(held.value if kind == "same" else types.CellType() for kind, held in cells)
        namespace = names[1].value if names[:1] == ("same",) else {"__builtins__": builtins}
        function = types.FunctionType(code.value, namespace, name, None, closure)
        # Before its parts, since they may call it.
        self.made[number] = function
        for cell, (kind, part) in zip(closure, cells, strict=True):
            if kind == "cell":
                cell.cell_contents = self.build(part)
        if names[:1] != ("same",):
            namespace.update((one, self.build(part)) for one, part in names)
        function.__defaults__ = self.build(defaults)
        function.__kwdefaults__ = self.build(keywords)
        vars(function).update(self.build(attributes))
        return function


def is_value(recipe: Recipe) -> bool:
    """Whether a recipe is a place in the values: its kind and an index."""
    return len(recipe) == 2 and recipe[0] in ("number", "table", "array") and type(recipe[1]) is int


def precision(arguments: tuple) -> DTypeLike:
    """The real type of the arrays among the arguments."""
    arrays = [one for one in jax.tree.leaves(arguments) if eqx.is_inexact_array(one)]
    return jnp.finfo(jnp.result_type(*arrays)).dtype if arrays else jnp.result_type(float)


def fits(value: Any, dtype: DTypeLike) -> bool:
    """Whether arithmetic with numbers of this size is safe in the precision `dtype`."""
    bits = jnp.finfo(dtype).bits
    if not is_known(value) or bits >= 64:
        return True
    if bits < 32:
        return False
    size = np.abs(np.asarray(value))
    return bool(np.all((size == 0) | ((size >= _SMALLEST) & (size <= _LARGEST))))


def is_known(value: Any) -> bool:
    """Whether the entries of an array can be read now."""
    if isinstance(value, Tracer):
        return False
    if isinstance(value, jax.Array):
        return value.is_fully_addressable and not jnp.issubdtype(value.dtype, jax.dtypes.prng_key)
    return isinstance(value, np.ndarray | float | complex)


def original(kind: str, value: Any) -> Any:
    """What a value was before it became an array of JAX: arithmetic with it isn't traced."""
    if kind == "array":
        return value
    host = np.asarray(value)
    return host.item() if kind == "number" and host.ndim == 0 else host


def _is_named_tuple(value: Any) -> bool:
    return isinstance(value, tuple) and isinstance(getattr(type(value), "_fields", None), tuple)


def name_of_function(function: Any) -> str:
    if isinstance(function, functools.partial):
        return name_of_function(function.func)
    if isinstance(function, _WRAPPERS):
        return name_of_function(_inner(function))
    named = isinstance(function, types.FunctionType | types.MethodType | types.BuiltinFunctionType | type)
    return function.__qualname__ if named else type(function).__name__


def _inner(function: Any) -> Any:
    """The function that `jax.jit` or `functools.cache` was applied to."""
    return inspect.unwrap(function, stop=lambda one: not isinstance(one, _WRAPPERS))


def _kind(value: Any) -> str:
    if isinstance(value, types.ModuleType):
        return f"the module {value.__name__}"
    if isinstance(value, type):
        return f"the class {value.__name__}"
    return f"an object of type {type(value).__name__}"
