"""A wave function with parameters."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Complex, Float

from .._check import as_flag, as_key, cast_floats
from .._precision import in_full_precision
from .._types import Key, Time, Vector
from ..problem import Problem, as_problem
from ._frame import SpreadingFrame
from ._layers import Layers
from .frozen import AbstractFrozen

Pair = Float[Array, " 2"]


class _Start(AbstractFrozen):
    """ln|ψ| and S/ħ of the initial state, or of a Gaussian at rest, in the spreading frame."""

    problem: Problem
    frame: SpreadingFrame
    exact: bool = eqx.field(static=True)

    def __call__(self, t: Time, x: Vector) -> Pair:
        initial, frame = self.problem.initial, self.frame
        z, std = frame.inside(t, x), frame.std_at(t)
        if not self.exact:
            logarithm = -0.5 * jnp.sum(z**2 + jnp.log(2 * jnp.pi * std**2))
            return jnp.stack([0.5 * logarithm, jnp.zeros_like(logarithm)])
        narrow = initial.log_density(frame.mean + frame.std * z)
        logarithm = narrow - jnp.sum(jnp.log(std / frame.std))
        return jnp.stack([0.5 * logarithm, initial.phase(x) / self.problem.hamiltonian.hbar])


class _Frozen(AbstractFrozen):
    """The change of ln|ψ| and of S/ħ over a width, at the initial velocities of the problem."""

    changes: Pair


class NeuralWaveFunction(eqx.Module):
    r"""A wave function given by a network for its logarithm, or for a factor that may have nodes.

    The network uses the coordinates $z$ of a frame that moves with the initial packet and widens like a free
    packet, and a clock $\tau$ that runs from 0 to 1, logarithmically once the packet spreads:
    $\ln\psi = \ln\psi_0 + \tau\,(c(\tau) + a(\tau)\cdot z + \tfrac12 z\cdot B(\tau) z + N(\tau, z))$ with complex
    $a$, $B$, $c$ and $N$. If `logarithmic` is false, $N$ is left out there and $\psi$ has the factor
    $1 + \tau N(\tau, z)$ instead. Far out, $\psi$ decays with the width of the frame.

    ```python
    psi = bd.NeuralWaveFunction(problem, width=16, key=key)
    psi(0.5, x)
    ```

    **Arguments:**

    - `problem`: for units, initial state and span of time.
    - `logarithmic`: whether the network is a part of $\ln\psi$, so that ψ has no nodes, or a factor of ψ.
    - `exact_start`: whether $\psi(t_0) = \psi_0$ by construction. Otherwise the network has to learn it: without
        the factors $\tau$, and with a Gaussian at rest instead of $\psi_0$.
    - `width`, `depth`: of the hidden layers.
    - `key`: for the initial weights.

    **Units:** length to the power $-d/2$. One point of shape `(d,)` gives a complex number.

    **Raises:** `ValueError` for invalid options.
    """

    start: _Start
    layers: Layers
    scale: _Frozen
    logarithmic: bool = eqx.field(static=True)

    @in_full_precision
    def __init__(
        self,
        problem: Problem,
        *,
        logarithmic: bool = True,
        exact_start: bool = True,
        width: int = 32,
        depth: int = 2,
        key: Key,
    ):
        problem = as_problem(problem)
        problem = cast_floats(problem, problem.dtype)
        d, hamiltonian = problem.dimension, problem.hamiltonian
        frame = SpreadingFrame.of(problem)
        self.start = _Start(problem, frame, as_flag(exact_start, "exact_start"))
        self.logarithmic = as_flag(logarithmic, "logarithmic")
        speeds = jnp.stack([frame.osmotic_speed, frame.current_speed])
        self.scale = _Frozen(jnp.max(hamiltonian.masses(d) * frame.std * speeds, axis=1) / hamiltonian.hbar)
        self.layers = Layers.new(d, 2 * (1 + d + d * d), 2, width, depth, problem.dtype, as_key(key))

    def __call__(self, t: Time, x: Vector) -> Complex[Array, ""]:
        frame, d = self.start.frame, x.shape[0]
        clock, z = frame.clock(t), frame.inside(t, x)
        coefficients = self.layers.coefficients(clock).reshape(2, -1)
        level, slope, curvature = jnp.split(coefficients, [1, 1 + d], axis=1)
        polynomial = level[:, 0] + slope @ z + 0.5 * curvature.reshape(2, d, d) @ z @ z
        network = self.layers(clock, z)
        wider = jnp.max(frame.std_at(t) / frame.std)
        changes = self.scale.changes * jnp.stack([jnp.ones_like(wider), wider])
        rises = clock if self.start.exact else jnp.ones_like(clock)
        if self.logarithmic:
            polynomial, network = polynomial + network, jnp.zeros_like(network)
        amplitude, phase = self.start(t, x) + rises * changes * polynomial
        factor = 1 + rises * jax.lax.complex(network[0], network[1])
        return jnp.exp(jax.lax.complex(amplitude, phase)) * factor
