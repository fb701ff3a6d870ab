"""The places where laws are checked, and the messages of laws that are broken."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from scipy.stats import qmc

from .._check import as_positive_integer, cast_floats, check_output

_RANDOM_POINTS = 32


class LawError(AssertionError):
    """A part breaks a law that its users rely on; the message says which, where, and how to reproduce it.

    ```python
    try:
        bohmdiff.testing.check_potential(
            lambda t, x: jnp.abs(x[0]) ** 3, dimension=1
        )
    except bohmdiff.testing.LawError as error:
        print(error)
    ```
    """


class Places(NamedTuple):
    """Times and positions where a law is checked, the simplest ones first, with a unit vector at each."""

    t: Float[Array, " n"]
    x: Float[Array, "n d"]
    along: Float[Array, "n d"]


def places(dimension: int, times: tuple[float, float], box: float) -> Places:
    """The origin, units and halves, then Sobol points in the box, each at the start, the middle or the end."""
    dimension = as_positive_integer(dimension, "dimension", "Pass the number of coordinates.")
    start, end = times
    unit = np.eye(dimension)
    simple = np.concatenate(
        [np.zeros((1, dimension)), unit, -unit, 0.5 * unit, 0.5 * np.ones((1, dimension))]
    )
    sobol = qmc.Sobol(2 * dimension, rng=np.random.default_rng(0)).random(_RANDOM_POINTS)
    random = 2 * sobol[:, :dimension] - 1
    x = box * np.concatenate([simple[np.max(np.abs(simple), axis=1) <= 1], random])
    t = np.array([start, 0.5 * (start + end), end])[np.arange(len(x)) % 3]
    along = np.random.default_rng(1).normal(size=x.shape)
    along /= np.linalg.norm(along, axis=1, keepdims=True)
    return Places(jnp.asarray(t), jnp.asarray(x), jnp.asarray(along))


def fail(law: str, said: str, see: str, **found: Any) -> None:
    """Raises a `LawError` that lists the values found by name, and code to reproduce them."""
    width = max((len(name) for name in found), default=0) + 2
    lines = [f"{law}: {said}."]
    lines += [f"  {name.replace('_', ' ') + ':':{width}} {as_code(value)}" for name, value in found.items()]
    lines += ["To reproduce it:", *(f"  {line}" for line in see.splitlines())]
    raise LawError("\n".join(lines))


def as_code(value: Any) -> str:
    """Numbers and arrays as Python code to paste."""
    if isinstance(value, str):
        return value
    array = np.asarray(value)
    return repr(array.item() if array.ndim == 0 else array.tolist())


def point(where: Places, index: int) -> str:
    """`t, x` of one place as arguments."""
    return f"{as_code(where.t[index])}, jnp.array({as_code(where.x[index])})"


def first(bad: Any) -> int | None:
    """The index of the first place where something is wrong: the simplest one."""
    where = np.flatnonzero(np.asarray(bad).reshape(len(bad), -1).any(axis=1))
    return int(where[0]) if where.size else None


def precision(dtype: Any) -> tuple[float, float]:
    """The step of finite differences of fourth order, and their relative error with a margin."""
    eps = float(jnp.finfo(dtype).eps)
    return eps**0.2, 1e4 * eps**0.8


def along_a_line(
    function: Callable[[Array, Array], Array], where: Places, orders: int
) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Derivatives of `function(t, x)` along lines, of order 1, 2, ... up to `orders`: by automatic
    differentiation, by finite differences of the next lower order, and the difference allowed."""

    def derivatives(t: Array, x: Array, u: Array) -> list[Array]:
        def rung(order: int) -> Callable[[Array], Array]:
            if order == 0:
                return lambda s: function(t, x + s * u)
            below = rung(order - 1)
            return lambda s: jax.jvp(below, (s,), (jnp.ones_like(s),))[1]

        return [rung(order)(jnp.zeros((), x.dtype)) for order in range(orders + 1)]

    every = jax.jit(jax.vmap(derivatives))
    h, relative = precision(where.x.dtype)

    def at(s: float) -> list[np.ndarray]:
        return [np.asarray(rung) for rung in every(where.t, where.x + s * where.along, where.along)]

    here, around = at(0.0), {k: at(k * h) for k in (-4, -2, -1, 1, 2, 4)}
    found = []
    for order in range(1, orders + 1):
        below = {k: rungs[order - 1] for k, rungs in around.items()}
        fine, coarse = (
            (8 * (below[k] - below[-k]) - (below[2 * k] - below[-2 * k])) / (12 * k * h) for k in (1, 2)
        )
        size = np.abs(here[order]) + np.max([np.abs(values) for values in below.values()], axis=0) + 1
        found.append((here[order], fine, relative * size + np.abs(fine - coarse)))
    return found


def check_call(
    law: str, name: str, function: Callable[..., Any], where: Places, shape: tuple[int, ...]
) -> None:
    """Checks that one particle gives finite numbers of the right shape and precision, in all transformations."""
    dimension = where.x.shape[1]
    try:
        check_output(function, (where.t[0], where.x[0]), shape, name)
    except ValueError as error:
        raise LawError(f"{law}: {error}") from error
    values = np.asarray(jax.jit(jax.vmap(lambda t, x: function(t, x)))(where.t, where.x))
    index = first(~np.isfinite(values))
    if index is not None:
        fail(law, f"the {name} is not finite", f"{name}({point(where, index)})", value=values[index])
    direct = [np.asarray(function(t.item(), x)) for t, x in zip(where.t, where.x, strict=True)]
    agree(
        law,
        f"under jax.jit and jax.vmap with a traced time, the {name} differs from a direct call",
        lambda index: f"jax.jit({name})({point(where, index)}), {name}({point(where, index)})",
        where,
        transformed=values,
        direct=np.stack(direct),
    )
    single = cast_floats(function, jnp.float32)
    zeros = jnp.zeros((), jnp.float32), jnp.zeros(dimension, jnp.float32)
    dtype = eqx.filter_eval_shape(single, *zeros).dtype
    if dtype != jnp.float32:
        fail(
            law,
            "the result is not in single precision, although its input is: write constants inside as Python "
            "numbers instead of double-precision arrays",
            f"{name}(jnp.float32(0), jnp.zeros({dimension}, jnp.float32)).dtype",
            dtype=str(dtype),
        )


def check_ladder(
    law: str,
    name: str,
    function: Callable[[Array, Array], Array],
    where: Places,
    orders: Sequence[str],
) -> None:
    """Checks that derivatives along lines, one for each of `orders`, are finite and agree with one another."""
    for order, (ours, differences, allowed) in enumerate(along_a_line(function, where, len(orders)), 1):
        index = first(~np.isfinite(ours))
        if index is not None:
            fail(
                law,
                f"{orders[order - 1]} is not finite, although the {name} is",
                _line(name, where, index, order),
                derivative=ours[index],
            )
        index = first(~(np.abs(ours - differences) <= allowed))
        if index is not None:
            fail(
                law,
                f"{orders[order - 1]} is not that of the {name}: automatic differentiation and finite "
                "differences disagree, so it is not smooth there, or its derivative rule is wrong",
                _line(name, where, index, order),
                automatic=ours[index],
                finite_differences=differences[index],
                allowed_difference=allowed[index],
            )


def _line(name: str, where: Places, index: int, order: int) -> str:
    lines = [
        f"t, x = {point(where, index)}",
        f"u = jnp.array({as_code(where.along[index])})",
        f"f = lambda s: {name}(t, x + s * u)",
    ]
    lines += ["f = jax.grad(f)" if name == "potential" else "f = jax.jacfwd(f)"] * order
    return "\n".join([*lines, "f(0.0)"])


def agree(law: str, said: str, see: Callable[[int], str], where: Places, **both: Any) -> None:
    """Checks that two named trees of arrays, with the places first, are the same to rounding."""
    (one_name, one), (other_name, other) = both.items()
    rounding = 1e3 * float(jnp.finfo(where.x.dtype).eps)
    for ours, theirs in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        a, b = np.asarray(ours), np.asarray(theirs)
        index = first(~(np.abs(a - b) <= rounding * (1 + np.max(np.abs(b), initial=0.0))))
        if index is not None:
            fail(law, said, see(index), **{one_name: a[index], other_name: b[index]})
