"""The flow as a separable system: Diffrax terms for drift and kick, with tangents in the state."""

import diffrax
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .._types import Matrix, Points, Scalar, Time, Vector
from ..problem import Problem
from ..score import Score, as_score
from .quantum import effective_force
from .state import FlowState, HalfState

# Tangents with respect to x0 are part of the state, not derivatives taken through the solver. A
# reverse pass through a checkpointed loop cannot be differentiated again, and such a loop has no
# forward mode. Drifts and kicks commute with this lift, so the tangents are those of the discrete
# flow, and only one reverse pass, that for the parameters, goes through the loop.


def bohmian_terms(
    problem: Problem, score: Score, directions: Float[Array, "*M n d"] | None = None
) -> tuple[diffrax.ODETerm, diffrax.ODETerm]:
    """Drift and kick of an ensemble, for any solver of `bohmdiff.solver` (or any Diffrax solver
    that takes two terms).

    ```python
    drift, kick = bd.flow.bohmian_terms(problem, score)
    state = bd.flow.initial_halves(problem, x0)
    diffrax.diffeqsolve(
        (drift, kick),
        bd.BlanesMoan4(),
        0.0,
        1.0,
        None,
        state,
        stepsize_controller=diffrax.StepTo(ts=jnp.linspace(0.0, 1.0, 17)),
        max_steps=16,
    )
    ```

    The state comes from [`initial_halves`][bohmdiff.flow.initial_halves]; tangents are carried if it
    contains them.

    **Arguments:**

    - `problem`: for the Hamiltonian.
    - `score`: a score, a function `s(t, x) -> (d,)` or a solution.
    - `directions`: the directions along which to carry second tangents, if any: shape `(n, d)`, or
        `(M, n, d)` with separate directions for each particle.

    **Units:** those of the problem.

    **Raises:** nothing; check particles and score with [`propagate`][bohmdiff.propagate] first.
    """
    score, along_axis = as_score(score), _along_axis(directions)

    def drift(velocity: HalfState) -> HalfState:
        kinetic = problem.hamiltonian.kinetic_energy(velocity.motion)
        return velocity._replace(action=kinetic)

    def forces(t: Time, x: Vector, order: int) -> tuple[Scalar, list[Array]]:
        """V + Q, the acceleration, and its derivatives."""
        potential, *rungs = effective_force(problem.hamiltonian, score, t, x, order)
        masses = problem.hamiltonian.masses(x.shape[0])
        return potential, [rung / masses.reshape(-1, *[1] * (rung.ndim - 1)) for rung in rungs]

    def first_order(t: Time, x: Vector, tangent: Matrix) -> tuple[Vector, Scalar, Matrix]:
        potential, (acceleration, slope) = forces(t, x, 1)
        return acceleration, -potential, slope @ tangent

    def kick(t: Time, position: HalfState, directions: Float[Array, "n d"] | None) -> HalfState:
        x, tangent, second = position.motion, position.tangent, position.second
        if tangent is None:
            potential, (acceleration,) = forces(t, x, 0)
            return HalfState(acceleration, -potential, None, None)
        if second is None:
            acceleration, action_rate, rate = first_order(t, x, tangent)
            return HalfState(acceleration, action_rate, rate, None)
        assert directions is not None
        if directions.shape[0] < x.shape[0]:
            return along_directions(t, position, directions)
        potential, (acceleration, slope, curvature) = forces(t, x, 2)
        changes = jnp.einsum("ikl,lm,nm->ikn", curvature, tangent, directions)
        second_rate = jnp.einsum("ikn,kj->ijn", changes, tangent) + jnp.einsum("ik,kjn->ijn", slope, second)
        return HalfState(acceleration, -potential, slope @ tangent, second_rate)

    def along_directions(t: Time, position: HalfState, directions: Float[Array, "n d"]) -> HalfState:
        """The same for fewer directions than coordinates, without the full second derivative of the force."""
        x, tangent, second = position.motion, position.tangent, position.second
        assert tangent is not None
        assert second is not None

        def along(direction: Vector, change: Matrix):
            here, changes = jax.jvp(
                lambda y, f: first_order(t, y, f), (x, tangent), (tangent @ direction, change)
            )
            return here, changes[2]

        (acceleration, action_rate, rate), second_rate = jax.vmap(
            along, in_axes=(0, 2), out_axes=(None, 2)
        )(directions, second)
        return HalfState(acceleration, action_rate, rate, second_rate)

    return (
        diffrax.ODETerm(lambda t, velocity, args: jax.vmap(drift)(velocity)),
        diffrax.ODETerm(
            lambda t, position, args: jax.vmap(kick, in_axes=(None, 0, along_axis))(t, position, directions)
        ),
    )


def initial_halves(
    problem: Problem,
    x0: Points,
    *,
    tangents: bool = True,
    directions: Float[Array, "*M n d"] | None = None,
) -> tuple[HalfState, HalfState]:
    """The state at `t0` that [`bohmian_terms`][bohmdiff.flow.bohmian_terms] integrates.

    ```python
    position, velocity = bd.flow.initial_halves(
        problem, x0, directions=jnp.eye(2)
    )
    position.second  # (M, d, d, d), zero at the start
    ```

    **Arguments:**

    - `problem`, `x0`: the initial state, and positions of shape `(M, d)`.
    - `tangents`: whether to carry F and G.
    - `directions`: directions along which to carry also the derivatives of F and G with respect to x0:
        shape `(n, d)`, or `(M, n, d)` with separate directions for each particle. The identity gives all
        derivatives, a single row the derivative along one direction.

    **Units:** those of the problem.

    **Raises:** nothing of its own.
    """

    def one(x: Vector, directions: Float[Array, "n d"] | None) -> tuple[HalfState, HalfState]:
        state = FlowState.initial(problem, x)
        phase = problem.initial.phase(x)
        nothing = jnp.zeros_like(phase)
        if not tangents:
            return HalfState(x, phase, None, None), HalfState(state.velocity, nothing, None, None)
        second = second_rate = None
        if directions is not None:

            def rate_along(direction: Vector):
                def gradient(y: Vector):
                    return problem.initial.velocity_gradient(y, problem.hamiltonian.mass)

                return jax.jvp(gradient, (x,), (direction,))[1]

            second_rate = jax.vmap(rate_along, out_axes=2)(directions)
            second = jnp.zeros_like(second_rate)
        return (
            HalfState(x, phase, state.deformation, second),
            HalfState(state.velocity, nothing, state.deformation_rate, second_rate),
        )

    return jax.vmap(one, in_axes=(0, _along_axis(directions)))(x0, directions)


def _along_axis(directions: Float[Array, "*M n d"] | None) -> int | None:
    return 0 if directions is not None and directions.ndim == 3 else None


def pushed_score(
    problem: Problem,
    x0: Vector,
    deformation: Float[Array, "d d"],
    second: Float[Array, "d d d"],
) -> Vector:
    r"""The score of the density that the flow itself produces, at one particle.

    ```python
    bd.flow.pushed_score(
        problem, x, deformation=jnp.eye(2), second=jnp.zeros((2, 2, 2))
    )
    ```

    $s_\rho(x(t), t) = F^{-\top}[s_0(x_0) - \nabla_{x_0}\ln|\det F|]$, with
    $\partial_k \ln|\det F| = \mathrm{tr}(F^{-1}\partial_k F)$.

    **Arguments:**

    - `problem`: for the initial density.
    - `x0`: the starting point of the particle, shape `(d,)`.
    - `deformation`: F, shape `(d, d)`.
    - `second`: $\partial F_{ij} / \partial x_{0,k}$, shape `(d, d, d)`.

    **Returns:** shape `(d,)`, in units of 1 / length.

    **Raises:** nothing; the result is infinite where $\det F = 0$.
    """
    inverse = jnp.linalg.inv(deformation)
    slope = jnp.einsum("ij,jik->k", inverse, second)
    return inverse.T @ (problem.initial.score(x0) - slope)
