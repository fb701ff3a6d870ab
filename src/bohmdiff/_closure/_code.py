"""What the code of a function shows: which names it reads, and which objects belong to libraries."""

import dis
import functools
import itertools
import sys
import types
from typing import Any, NamedTuple

import numpy as np

# fmt: off
# What belongs to these doesn't change, so it is compared by identity.
_LIBRARIES = {
    "jax", "jaxlib", "numpy", "scipy", "equinox", "diffrax", "optax", "lineax", "optimistix", "jaxtyping",
    "interpax", "bohmdiff", "builtins", "math", "cmath", "operator", "_operator", "functools", "itertools",
    "collections", "typing", "types", "abc", "dataclasses", "enum", "numbers", "fractions", "warnings",
    "logging", "os", "sys", "time",
}
# Reach names that the code does not show.
_DYNAMIC = {"globals", "locals", "vars", "eval", "exec", "compile", "__import__"}
# Tell a traced number from one of Python without an error, so that another branch would be taken in silence.
_INSPECTING = {
    "isinstance", "issubclass", "type", "hasattr", "getattr", "callable", "str", "repr", "isscalar", "__class__",
}
# fmt: on
# An error that is caught would hide that a number is traced.
_INSPECTING_CODE = {"PUSH_EXC_INFO", "MATCH_CLASS"}


class Reads(NamedTuple):
    """What code does with names that are not its own.

    - `globals`: global names, and those of Python, that it loads.
    - `uses`: for each name that it loads, the attributes that it asks it for: `a.b.c` is `("b", "c")`.
    - `assigned`: variables of an enclosing function that it assigns to.
    - `writes`: whether it assigns to items of something.
    - `inspects`: whether numbers of Python and traced ones could take different ways without an error.
    - `dynamic`: whether it may reach other names.
    """

    globals: frozenset[str]
    uses: dict[str, frozenset[tuple[str, ...]]]
    assigned: frozenset[str]
    writes: bool
    inspects: bool
    dynamic: bool


@functools.lru_cache(4096)
def reads_of(code: types.CodeType) -> Reads:
    names, assigned = set(), set()
    uses: dict[str, set[tuple[str, ...]]] = {"__name__": {()}}
    writes = inspects = dynamic = False
    for part in _codes(code):
        instructions = [one for one in dis.get_instructions(part) if one.opname != "EXTENDED_ARG"]
        local = {one.argval for one in instructions if one.opname == "STORE_NAME"}
        for at, one in enumerate(instructions):
            match one.opname:
                case "LOAD_GLOBAL" | "LOAD_NAME" | "LOAD_FROM_DICT_OR_GLOBALS":
                    if one.opname == "LOAD_GLOBAL" or one.argval not in local:
                        names.add(one.argval)
                        uses.setdefault(one.argval, set()).add(_chain(instructions[at + 1 :]))
                case "LOAD_DEREF" | "LOAD_CLASSDEREF" | "LOAD_FROM_DICT_OR_DEREF":
                    uses.setdefault(one.argval, set()).add(_chain(instructions[at + 1 :]))
                case "STORE_DEREF" | "DELETE_DEREF":
                    assigned.add(one.argval)
                case "STORE_SUBSCR" | "DELETE_SUBSCR" | "STORE_SLICE":
                    writes = True
                case "STORE_GLOBAL" | "DELETE_GLOBAL":
                    dynamic = True
                case "IMPORT_NAME":
                    dynamic |= not is_library(one.argval)
            inspects |= one.opname in _INSPECTING_CODE
        inspects |= not _INSPECTING.isdisjoint(part.co_names)
    frozen = {name: frozenset(chains) for name, chains in uses.items()}
    dynamic |= not _DYNAMIC.isdisjoint(names)
    return Reads(frozenset(names), frozen, frozenset(assigned), writes, inspects, dynamic)


def _codes(code: types.CodeType) -> list[types.CodeType]:
    """Code, and that of the functions in it."""
    inner = [_codes(one) for one in code.co_consts if isinstance(one, types.CodeType)]
    return [code, *itertools.chain.from_iterable(inner)]


def _chain(instructions: list[dis.Instruction]) -> tuple[str, ...]:
    attributes = itertools.takewhile(lambda one: one.opname in ("LOAD_ATTR", "LOAD_METHOD"), instructions)
    return tuple(one.argval for one in attributes)


def is_of_library(value: Any) -> bool:
    """Whether `value` is a module of a library, or what a name in one stands for."""
    if isinstance(value, types.ModuleType):
        return is_library(value.__name__)
    if isinstance(value, np.ufunc):
        return getattr(np, value.__name__, None) is value
    module = getattr(value, "__module__", None)
    if not isinstance(module, str) or not is_library(module):
        return False
    name = getattr(value, "__qualname__", None) or getattr(value, "__name__", None)
    if not isinstance(name, str):
        return False
    found = sys.modules.get(module)
    for part in name.split("."):
        found = getattr(found, part, None)
    return found is value


def is_library(module: str) -> bool:
    """Whether this is the name of a library, or of a module in one."""
    return module.split(".")[0] in _LIBRARIES
