"""What makes a run this one and no other: settings in words, and functions by their values, not their names."""

import base64
import hashlib
import math
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, PyTree

from .._closure import off, uniform_places, values_at
from .._text import text_of
from .._types import Scalar, Time, Vector
from ..network import activations
from ..problem import Problem
from ..wavepacket import AbstractInitialState, default_design
from ._update import as_types_of

# How many places in each group, and within how many widths of the initial state they lie.
_PLACES, _WIDTHS = 64, (3.0, 10.0, 30.0)
# What an optimizer is tried with: counts of updates, and sizes of gradients with the loss. One that waits for a
# smaller loss waits for ever if it is infinite.
_COUNTS = np.unique(np.concatenate([np.arange(100), np.geomspace(100, 1e5, 140).round()])).astype(int)
_FEW_COUNTS = np.array([0, 10, 100, 1000])
_SIZES_AND_LOSSES = ((1e-6, 1.0), (1.0, 1.0), (1e3, np.inf))
_LONGEST_TEXT = 2000

Places = list[tuple[np.ndarray, np.ndarray]]


class Values(NamedTuple):
    """The values of something in groups, each compared for itself, and what a message calls it."""

    called: str
    groups: list[np.ndarray]

    def same_as(self, saved: "Values") -> bool:
        if not self.groups and not saved.groups:
            return self.called == saved.called
        return len(self.groups) == len(saved.groups) and all(
            one.shape == other.shape and one.dtype == other.dtype and not off(one, other).any()
            for one, other in zip(self.groups, saved.groups, strict=True)
        )

    def as_json(self) -> dict[str, Any]:
        groups = [
            {"dtype": one.dtype.name, "shape": one.shape, "data": base64.b64encode(one.tobytes()).decode()}
            for one in self.groups
        ]
        return {"called": self.called, "groups": groups}

    @staticmethod
    def from_json(stored: Any) -> "Values":
        groups = [
            np.frombuffer(base64.b64decode(one["data"]), one["dtype"]).reshape(one["shape"])
            for one in stored["groups"]
        ]
        return Values(stored["called"], groups)


def in_words(value: Any) -> str:
    """A setting with all its numbers, or a part of that and letters that stand for all of it."""
    text = text_of(value, sys.maxsize)
    if len(text) <= _LONGEST_TEXT:
        return text
    return f"{text[:100]}… {hashlib.sha256(text.encode()).hexdigest()[:16]}"


def places_of(problem: Problem) -> Places:
    """Times in the span of a problem, and places around its initial state."""
    d = problem.dimension
    x, weights = map(
        np.asarray, problem.initial.particles(default_design(d, per_axis=3), jax.random.key(0))
    )
    mean = weights @ x
    std = np.sqrt(weights @ (x - mean) ** 2)
    uniform = uniform_places(_PLACES, d + 1)
    t = float(problem.t0) + float(problem.t1 - problem.t0) * uniform[:, 0]
    groups = [(t, mean + width * std * (2 * uniform[:, 1:] - 1)) for width in _WIDTHS]
    return [(t.astype(problem.dtype), x.astype(problem.dtype)) for t, x in groups]


def values_of(called: str, function: Callable[..., Any], places: Places) -> Values:
    """The values of a function of a time and a place; it is compared by what it is called if it is not one."""
    groups = [one for one in (values_at(function, t, x) for t, x in places) if one is not None]
    # A complex number is two real ones.
    return Values(
        called, [np.stack([np.real(one), np.imag(one)]) if np.iscomplexobj(one) else one for one in groups]
    )


def values_of_problem(problem: Problem, called: str, places: Places) -> dict[str, Values]:
    """The initial state and the potential."""
    initial = values_of(type(problem.initial).__name__, _Initial(problem.initial), places)
    # The places move with the state, so they belong to it.
    initial.groups.append(places[0][1][:4])
    return {
        "initial state": initial,
        "potential": values_of(called, problem.hamiltonian.potential, places),
    }


class _Initial(eqx.Module):
    state: AbstractInitialState

    def __call__(self, t: Time, x: Vector) -> Vector:
        return jnp.stack([self.state.log_density(x), self.state.phase(x)])


def values_of_activations(tree: PyTree) -> Values:
    """The activations of all networks that have one."""
    functions = activations(tree)
    called = ", ".join(dict.fromkeys(text_of(one, 0) for one in functions))
    z = np.linspace(-6, 6, _PLACES)
    return Values(called, [np.asarray(one(jnp.asarray(z))) for one in functions])


def values_of_optimizer(optimizer: optax.GradientTransformation, parameters: PyTree) -> Values:
    """Two updates after each of many counts of updates, by the same gradients of few numbers."""
    # One that needs the true shapes gets them.
    for most, counts in ((2, _COUNTS), (sys.maxsize, _FEW_COUNTS)):
        shapes = jax.tree.map(lambda leaf, most=most: leaf[(slice(most),) * leaf.ndim], parameters)
        start, first, second, weights = (_filled(shapes, number) for number in range(1, 5))
        gradients = jax.tree.map(lambda *leaves: jnp.stack(leaves), first, second)
        try:
            groups = [
                _updates(optimizer, start, gradients, weights, jnp.asarray(counts), *map(jnp.asarray, one))
                for one in _SIZES_AND_LOSSES
            ]
        except Exception:
            continue
        return Values("", [np.asarray(one) for one in groups])
    return Values("", [])


@eqx.filter_jit
def _updates(
    optimizer: optax.GradientTransformation,
    start: PyTree,
    gradients: PyTree,
    weights: PyTree,
    counts: Array,
    size: Scalar,
    loss: Scalar,
) -> Array:
    update = optax.with_extra_args_support(optimizer).update

    # Optax's line search refuses what `value_fn` does not take.
    def value_fn(parameters: PyTree, residual_rows: Any = None) -> Scalar:
        return 0.5 * optax.tree.norm(parameters, squared=True)

    def step(moving: tuple[PyTree, PyTree], gradient: PyTree) -> tuple[tuple[PyTree, PyTree], Scalar]:
        parameters, state = moving
        gradient = jax.tree.map(lambda leaf: size.astype(leaf.dtype) * leaf, gradient)
        changes, new = update(
            gradient,
            state,
            parameters,
            value=loss,
            grad=gradient,
            value_fn=value_fn,
            residual_rows=lambda number: jax.tree.map(
                lambda leaf: jnp.stack([leaf * math.cos(k) for k in range(2 * number)]), gradient
            ),
        )
        moved = optax.apply_updates(parameters, changes)
        return as_types_of((moved, new), moving), jnp.asarray(optax.tree.vdot(changes, weights))

    def after(count: Array) -> Array:
        # Whatever an optimizer counts, such as the steps of a schedule.
        state = jax.tree.map(lambda leaf: count if _is_count(leaf) else leaf, optimizer.init(start))
        state = as_types_of(state, optimizer.init(start))
        return jax.lax.scan(step, (start, state), gradients)[1]

    return jax.lax.map(after, counts)


def _is_count(leaf: Any) -> bool:
    return eqx.is_array(leaf) and leaf.ndim == 0 and jnp.issubdtype(leaf.dtype, jnp.integer)


def _filled(tree: PyTree, number: int) -> PyTree:
    """The same numbers every time, in a tree of these shapes."""
    leaves, structure = jax.tree.flatten(tree)
    filled = [
        jnp.asarray(np.cos(number * (k + 1.0 + np.arange(leaf.size))).reshape(leaf.shape), leaf.dtype)
        for k, leaf in enumerate(leaves)
    ]
    return jax.tree.unflatten(structure, filled)
