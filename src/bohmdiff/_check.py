"""Checks of user input: one error that states the given value, the allowed values and the remedy."""

import re
import sys
import warnings
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, ArrayLike, Bool, PyTree

# Packages whose frames lie between the user's line and ours.
_WRAPPERS = ("bohmdiff", "equinox", "jax", "jaxtyping", "beartype")
# What Python or NumPy would convert to numbers: digits, codes of characters, 0 and 1.
_NO_NUMBERS = (str, bytes, bytearray, memoryview, bool, np.bool_)
# How torch and others refuse a value that JAX traces.
_REFUSAL = re.compile(r"not '?\w*Tracer")
# The largest number of particles, steps or nodes: more would not fit in memory.
_LARGEST_INTEGER = 2**31 - 1


def is_concrete(tree: PyTree) -> bool:
    """Whether every array of `tree` has a concrete value, so that none is traced by jit, grad or vmap."""
    return not any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves(tree))


def require(
    tree: PyTree,
    condition: Bool[ArrayLike, ""],
    message: str,
    error: type[Exception] = ValueError,
) -> PyTree:
    """Returns `tree` if `condition` holds.

    A concrete condition that does not hold raises immediately. If the condition is traced by a JAX transformation
    and does not hold, every real or complex number in the returned tree is NaN.
    """
    if is_concrete(condition):
        if not bool(condition):
            raise error(message)
        return tree

    def poisoned(leaf: Any) -> Any:
        return jnp.where(condition, leaf, jnp.nan) if eqx.is_inexact_array(leaf) else leaf

    return jax.tree.map(poisoned, tree)


def warn(message: str) -> None:
    """Warns at the user's line that led here, regardless of the number of internal calls in between."""
    frame, level = sys._getframe(1), 2
    while frame.f_back is not None and frame.f_globals.get("__name__", "").split(".")[0] in _WRAPPERS:
        frame, level = frame.f_back, level + 1
    warnings.warn(message, stacklevel=level)


def as_real_array(value: Any, name: str) -> Array:
    """`value` as a real array with finite entries, in single or double precision; integers become floats."""
    try:
        if isinstance(value, _NO_NUMBERS):
            raise TypeError(f"its type is {type(value).__name__}")
        # Arrays of NumPy stay as they are at first, since JAX refuses some dtypes without naming them.
        given = value if isinstance(value, np.ndarray | np.generic) else jnp.asarray(value)
        real = jnp.issubdtype(given.dtype, jnp.floating)
        if not real and not is_integer(given.dtype):
            raise TypeError(f"its dtype is {given.dtype}")
        precise = not real or given.dtype.itemsize in (4, 8)
        array = jnp.asarray(given if precise else 0.0)
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError(
            f"{name} must be a real number or an array of real numbers, but {value!r} was given ({error})."
        ) from None
    if not precise:
        raise ValueError(
            f"{name} must be in single or double precision, but its dtype is {given.dtype}. Convert it to "
            "float32 or float64."
        )
    array = array if real else array.astype(float)
    return require(
        array,
        jnp.all(jnp.isfinite(array)),
        f"{name} must be finite, but {describe(value)} was given.{range_hint(array)}",
    )


def is_integer(dtype: Any) -> bool:
    """Whether this is a dtype of integers. For NumPy, spans of time are integers too."""
    return jnp.issubdtype(dtype, jnp.integer) and not np.issubdtype(dtype, np.timedelta64)


def is_whole_number(value: Any) -> bool:
    """Whether this is an integer of Python or NumPy, and not a truth value."""
    return isinstance(value, int | np.integer) and not isinstance(value, bool | np.timedelta64)


OTHER_UNITS = (
    "Use units that suit the problem, such as atomic units (bd.units), or double precision: "
    "jax.config.update('jax_enable_x64', True), and an initial state whose mean is not in float32."
)


def range_hint(array: Array) -> str:
    """What to do about zeros and infinities below double precision: they may be numbers out of its range."""
    limits = jnp.finfo(array.dtype)
    if limits.bits >= 64 or not is_concrete(array):
        return ""
    size, least, most = np.abs(np.asarray(array, float)), float(limits.tiny), float(limits.max)
    if np.all((size >= least) & (size <= most)):
        return ""
    return f" {array.dtype} holds no numbers below {least:.1e} or above {most:.1e}. {OTHER_UNITS}"


def on_host(value: Any, name: str) -> np.ndarray:
    """`value` as a NumPy array of any dtype, but those of time."""
    try:
        if isinstance(value, np.ma.MaskedArray):
            raise TypeError("it has masked entries; fill them first")
        array = np.asarray(value)
        if array.dtype.kind in "mM":
            raise TypeError(f"its dtype is {array.dtype}")
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError(
            f"{name} must be a number or an array, but {value!r} was given ({error})."
        ) from None
    return array


def as_positive_integer(value: Any, name: str, what_to_do: str) -> int:
    """`value` as a positive `int`."""
    if not is_whole_number(value) or value < 1:
        raise ValueError(f"{name} must be an integer of at least 1, but {value!r} was given. {what_to_do}")
    if value > _LARGEST_INTEGER:
        raise ValueError(f"{name} must be at most {_LARGEST_INTEGER}, but {value!r} was given.")
    return int(value)


def as_float(value: Any, name: str) -> float:
    """`value` as a Python float."""
    try:
        if isinstance(value, (*_NO_NUMBERS, np.ma.MaskedArray)) or np.iscomplexobj(value):
            raise TypeError
        return float(value)
    except (TypeError, ValueError, OverflowError):
        raise ValueError(f"{name} must be a number, but {value!r} was given.") from None


def as_flag(value: Any, name: str) -> bool:
    """`value` as a `bool`."""
    if isinstance(value, bool | np.bool_) or (isinstance(value, int) and value in (0, 1)):
        return bool(value)
    raise ValueError(f"{name} must be True or False, but {value!r} was given.")


def as_key(key: Any) -> Array:
    """`key` as one typed random key."""
    if eqx.is_array(key):
        if jnp.issubdtype(key.dtype, jax.dtypes.prng_key) and key.shape == ():
            return key
        if key.dtype == jnp.uint32 and key.shape == (2,):
            with jax.ensure_compile_time_eval():
                return jax.random.wrap_key_data(key)
    raise ValueError(f"key must be one random key such as jax.random.key(0), but {key!r} was given.")


def numpy_generator(key: Any) -> np.random.Generator:
    """A NumPy random generator from a concrete key; JAX may be tracing other values."""
    key = as_key(key)
    if not is_concrete(key):
        raise ValueError(
            "key must be concrete because NumPy draws from it, but a traced key was passed. Make it outside of "
            "the function that jit, vmap or grad transforms, and use it within."
        )
    with jax.ensure_compile_time_eval():
        return np.random.default_rng(np.asarray(jax.random.key_data(key)).tolist())


def describe(value: Any) -> str:
    """A short text for an error message: the value itself if it is small, else its shape."""
    if not is_concrete(value):
        return "a traced value"
    if isinstance(value, jax.Array) and not value.is_fully_addressable and not value.is_fully_replicated:
        return f"an array of shape {value.shape}, in several processes"
    array = np.asarray(value)
    if array.size <= 16:
        return np.array2string(array, precision=6, separator=", ").replace("\n", "")
    return f"an array of shape {array.shape}"


def cast_floats(tree: PyTree, dtype: Any) -> PyTree:
    """Casts every real floating-point array of `tree` to `dtype`, and every complex array to the complex type of
    the same precision, so that the whole tree has one precision."""

    def cast(leaf: Any) -> Any:
        if not eqx.is_inexact_array(leaf):
            return leaf
        return leaf.astype(np.result_type(dtype, np.complex64) if jnp.iscomplexobj(leaf) else dtype)

    return jax.tree.map(cast, tree)


def reason(error: BaseException, table: str | None = None) -> str:
    """Why a user's function could not be traced; `table` makes such a function from numbers."""
    causes = [error]
    while (cause := causes[-1].__cause__ or causes[-1].__context__) is not None:
        causes.append(cause)
    if not any(isinstance(one, jax.errors.JAXTypeError) or _REFUSAL.search(str(one)) for one in causes):
        return f"{type(error).__name__}: {str(error).rstrip('.')}."
    otherwise = f", or tabulate it with {table}" if table else ""
    return (
        "it needs the values of its arguments, which JAX does not know while it traces the function. Functions "
        "of math, NumPy, SciPy and torch need them, and so do float(...) and `if`. Write it with jax.numpy, "
        f"jax.scipy and jnp.where{otherwise} ({type(error).__name__})."
    )


def check_output(
    function: Callable[..., Any],
    arguments: tuple,
    shape: tuple[int, ...],
    name: str,
    *,
    complex_valued: bool = False,
) -> None:
    """Raises unless `function(*arguments)` is one real array (complex with `complex_valued=True`) of the given
    shape. The arguments are a time and a position, or only a position."""
    call, what = (f"{name}(t, x)", "a scalar t and x") if len(arguments) == 2 else (f"{name}(x)", "x")
    position = arguments[-1].shape
    kind_name, kind = ("complex", jnp.complexfloating) if complex_valued else ("real", jnp.floating)

    def fits(out: Any) -> bool:
        return (
            getattr(out, "shape", None) == shape
            and hasattr(out, "dtype")
            and jnp.issubdtype(out.dtype, kind)
        )

    def hint() -> str:
        """About the order of the arguments, if the other one fits."""
        try:
            swapped = len(arguments) == 2 and fits(eqx.filter_eval_shape(function, *arguments[::-1]))
        except Exception:
            swapped = False
        return (
            " If it was written with x first, swap its arguments: the time comes first." if swapped else ""
        )

    try:
        out: Any = eqx.filter_eval_shape(function, *arguments)
    except Exception as error:
        raise ValueError(
            f"{name} could not be evaluated as {call} with {what} of shape {position}: "
            + reason(error, "bd.TabulatedPotential" if name == "potential" else None)
            + hint()
        ) from error
    if not fits(out):
        number = f" Return jnp.asarray({out})." if type(out) in (int, float) else ""
        is_array = hasattr(out, "shape") and hasattr(out, "dtype")
        given = f"shape {out.shape} and dtype {out.dtype}" if is_array else type(out).__name__
        raise ValueError(
            f"{call} must return a {kind_name} array of shape {shape} for one particle x of shape {position}, "
            f"but it returned {given}.{hint() or number} Write it for one particle: the ensemble is added by "
            "jax.vmap."
        )
