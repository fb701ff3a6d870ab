"""Classes and functions by their names: those of a few packages, and no others.

A file must not make its reader import or run anything. So a name counts only if the object is defined in one of
these packages, in the module that the name says.
"""

import importlib
import inspect
import sys
from typing import Any

_PACKAGES = ("bohmdiff", "diffrax", "equinox", "interpax", "lineax", "optax")
# One by one, since others of JAX read and write files or call back to the host.
_OF_JAX = ("jax.numpy", "jax.numpy.linalg", "jax.nn", "jax.lax", "jax.scipy.special", "jax.scipy.linalg")
_FILES = ("load", "save", "savez", "fromfile", "from_dlpack")


def name_of(thing: Any) -> str | None:
    """The name by which `thing_named` finds a class or a function, or `None` if it finds none."""
    if not callable(thing):
        return None
    module, name = getattr(thing, "__module__", None), getattr(thing, "__name__", None)
    if not (isinstance(module, str) and isinstance(name, str)):
        return None
    package = module.partition(".")[0]
    if package == "jax":
        # Under a public name, as the others change from version to version.
        names = [f"{public}:{name}" for public in _OF_JAX]
    elif package in _PACKAGES:
        # A lambda may be a variable of its module.
        variables = [one for one, value in vars(sys.modules.get(module, object)).items() if value is thing]
        names = [f"{module}:{one}" for one in (getattr(thing, "__qualname__", name), *variables)]
    else:
        names = []
    return next((full for full in names if thing_named(full) is thing), None)


def thing_named(full: str) -> Any:
    """The class or function with a name such as `bohmdiff.score.score:ScoreSum`, or `None` if there is none."""
    module, _, name = full.partition(":")
    package = module.partition(".")[0]
    if package == "jax":
        thing = _found(module, name) if module in _OF_JAX and name not in _FILES else None
        return thing if callable(thing) else None
    if package not in _PACKAGES or not all(part.isidentifier() for part in f"{module}.{name}".split(".")):
        return None
    if package == "bohmdiff" and not any(part.startswith("__") for part in module.split(".")):
        try:
            importlib.import_module(module)
        except ImportError:
            return None
    first, *rest = name.split(".")
    thing = _found(module, first)
    for part in rest:
        # Through classes only, not to what a module has imported.
        thing = getattr(thing, part, None) if inspect.isclass(thing) else None
    return thing if callable(thing) and getattr(thing, "__module__", None) == module else None


def _found(module: str, name: str) -> Any:
    return vars(sys.modules[module]).get(name) if module in sys.modules else None
