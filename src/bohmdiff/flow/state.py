"""The state of the Bohmian flow at one particle, and the two halves that a symplectic solver moves."""

from typing import NamedTuple

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from .._types import Matrix, Scalar, Vector
from ..problem import Problem


class FlowState(eqx.Module):
    r"""One particle of the flow and how its neighbourhood deforms.

    ```python
    state = bd.FlowState(
        x,
        velocity=jnp.zeros(2),
        deformation=jnp.eye(2),
        deformation_rate=jnp.zeros((2, 2)),
    )
    log_density = (
        initial.log_density(x) - jnp.linalg.slogdet(state.deformation)[1]
    )
    ```

    **Arguments:**

    - `position`: $x(t)$, shape `(d,)`.
    - `velocity`: $v(t) = \dot x$, shape `(d,)`.
    - `deformation`: $F = \partial x(t) / \partial x(t_0)$, shape `(d, d)`.
    - `deformation_rate`: $G = \dot F$, shape `(d, d)`.

    **Units:** length, length / time, none, and 1 / time.

    **Raises:** nothing; `propagate` checks its input.
    """

    position: Vector
    velocity: Vector
    deformation: Matrix
    deformation_rate: Matrix

    @staticmethod
    def initial(problem: Problem, x0: Vector) -> "FlowState":
        """The state at `t0` of the particle that starts at `x0`: $v_0 = \\nabla S_0/m$, $F = 1$,
        $G = \\nabla v_0$."""
        mass = problem.hamiltonian.mass
        return FlowState(
            x0,
            problem.initial.velocity(x0, mass),
            jnp.eye(x0.shape[0], dtype=x0.dtype),
            problem.initial.velocity_gradient(x0, mass),
        )

    def velocity_gradient(self) -> Matrix:
        r"""$\nabla v = G F^{-1}$; times the masses it is symmetric as long as the flow is irrotational."""
        return jnp.linalg.solve(self.deformation.T, self.deformation_rate.T).T


class HalfState(NamedTuple):
    """One half of the state of a particle: the part that a drift moves, or the part that a kick moves.

    ```python
    position, velocity = bd.flow.initial_halves(problem, x0)
    position.motion, position.tangent
    ```

    `motion` is a position or a velocity, `action` the part of the phase that accumulates with it
    (kinetic energy while drifting, minus V + Q while kicked), `tangent` is F or G, and `second` their
    derivatives with respect to x0 along some directions, shape `(d, d, n)`. The last two are `None`
    if they are not carried.
    """

    motion: Vector
    action: Scalar
    tangent: Matrix | None
    second: Float[Array, "d d n"] | None
