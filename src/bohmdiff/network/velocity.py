"""Velocity fields with parameters."""

from collections.abc import Callable
from typing import Literal

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array

from .._check import as_flag, as_key, cast_floats
from .._precision import in_full_precision
from .._types import Key, Time, Vector
from ..problem import Problem, as_problem
from ._frame import SpreadingFrame
from ._layers import Layers
from .frozen import AbstractFrozen


class _Start(AbstractFrozen):
    """The velocity of the initial state, in the spreading frame; at `t0` it is exact."""

    problem: Problem
    frame: SpreadingFrame
    kind: Literal["osmotic", "current"] = eqx.field(static=True)

    def __call__(self, t: Time, x: Vector) -> Vector:
        hamiltonian, initial, frame = self.problem.hamiltonian, self.problem.initial, self.frame
        if self.kind == "current":
            return initial.velocity(x, hamiltonian.mass)
        narrow = frame.mean + frame.std * frame.inside(t, x)
        score = initial.score(narrow) * frame.std / frame.std_at(t)
        return 0.5 * hamiltonian.hbar / hamiltonian.mass * score


class NeuralVelocity(eqx.Module):
    r"""An osmotic or current velocity field given by a network.

    The network uses the coordinates $z$ of a frame that moves with the initial packet and widens like a free
    packet, and a clock $\tau$ that runs from 0 to 1, logarithmically once the packet spreads:
    $w = w_0 + \tau\,(a(\tau) + B(\tau) z + \nabla_z N(\tau, z))$ in units of the initial velocities of the
    problem.

    ```python
    u, v = bd.velocity_networks(problem, key=key)
    u(0.5, x), v(0.5, x)
    ```

    **Arguments:**

    - `problem`: for units, initial state and span of time.
    - `kind`: `"osmotic"` or `"current"`.
    - `gradient`: whether the field is the gradient of a scalar network, divided by the masses, and $B$ symmetric;
        otherwise the output of the network is the vector itself.
    - `exact_start`: whether the velocity at `t0` is that of the initial state by construction. Otherwise the
        network has to learn it, without $w_0$ and the factor $\tau$.
    - `width`, `depth`: of the hidden layers.
    - `key`: for the initial weights.

    **Units:** length / time. One point of shape `(d,)` gives a velocity of shape `(d,)`.

    **Raises:** `ValueError` for invalid options.
    """

    start: _Start | None
    frame: SpreadingFrame
    layers: Layers
    action: "_Frozen"
    gradient: bool = eqx.field(static=True)

    @in_full_precision
    def __init__(
        self,
        problem: Problem,
        kind: Literal["osmotic", "current"],
        *,
        gradient: bool = True,
        exact_start: bool = True,
        width: int = 32,
        depth: int = 2,
        key: Key,
    ):
        problem = as_problem(problem)
        problem = cast_floats(problem, problem.dtype)
        if not isinstance(kind, str) or kind not in ("osmotic", "current"):
            raise ValueError(f"kind must be 'osmotic' or 'current', but {kind!r} was given.")
        d, mass = problem.dimension, problem.hamiltonian.masses(problem.dimension)
        self.frame = SpreadingFrame.of(problem)
        self.gradient = as_flag(gradient, "gradient")
        self.start = None
        if as_flag(exact_start, "exact_start"):
            self.start = _Start(problem, self.frame, kind)
        speed = self.frame.osmotic_speed if kind == "osmotic" else self.frame.current_speed
        self.action = _Frozen(jnp.max(mass * self.frame.std * speed) / mass, kind == "current")
        outputs = 1 if self.gradient else d
        self.layers = Layers.new(d, d + d * d, outputs, width, depth, problem.dtype, as_key(key))

    def __call__(self, t: Time, x: Vector) -> Vector:
        frame, d = self.frame, x.shape[0]
        clock, z = frame.clock(t), frame.inside(t, x)
        coefficients = self.layers.coefficients(clock)
        offset, slope = coefficients[:d], coefficients[d:].reshape(d, d)
        if self.gradient:
            own = offset + 0.5 * (slope + slope.T) @ z + jax.grad(lambda y: self.layers(clock, y)[0])(z)
        else:
            own = offset + slope @ z + self.layers(clock, z)
        own = own * self.action.per_mass / frame.std_at(t)
        if self.action.grows:
            own = own * jnp.max(frame.std_at(t) / frame.std)
        return own if self.start is None else self.start(t, x) + clock * own


class _Frozen(AbstractFrozen):
    """The unit of the phase divided by the masses, and whether it grows with the frame."""

    per_mass: Vector
    grows: bool = eqx.field(static=True)


def velocity_networks(
    problem: Problem,
    *,
    gradient: bool = True,
    exact_start: bool = True,
    width: int = 32,
    depth: int = 2,
    key: Key,
) -> tuple[Callable[..., Array], Callable[..., Array]]:
    """Networks for an osmotic and a current velocity, to be trained by
    [`DeepStochasticMechanics`][bohmdiff.DeepStochasticMechanics].

    ```python
    u, v = bd.velocity_networks(problem, width=16, key=key)
    method = bd.DeepStochasticMechanics(u, v, training=bd.Training(epochs=100))
    ```

    **Arguments:**

    - `problem`, `gradient`, `exact_start`, `width`, `depth`: as for [`NeuralVelocity`][bohmdiff.NeuralVelocity].
    - `key`: for the initial weights of both.

    **Units:** length / time.

    **Returns:** two networks, each with a result of shape `(d,)` for one point.

    **Raises:** `ValueError` for invalid options.
    """
    keys = jax.random.split(as_key(key))
    osmotic, current = (
        NeuralVelocity(
            problem, kind, gradient=gradient, exact_start=exact_start, width=width, depth=depth, key=k
        )
        for kind, k in zip(("osmotic", "current"), keys, strict=True)
    )
    return osmotic, current
