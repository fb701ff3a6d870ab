"""Current and osmotic velocity of a wave function, the input of a process."""

from collections.abc import Callable
from typing import Any

import diffrax
import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array

from .._closure import as_module
from .._types import Time, Times, Vector
from ..problem import Problem, as_problem
from ..score import AbstractScore, as_score


class Velocities(eqx.Module):
    r"""Density and phase of $\psi = \sqrt\rho\, e^{iS/\hbar}$ as velocities, the input of a process.

    ```python
    velocities = bd.Velocities(problem, solution.score, solution.velocity)
    velocities.velocity(0.5, x), velocities.osmotic(0.5, x)
    ```

    **Arguments:**

    - `problem`: for $\hbar$, the masses, the initial state and the span of time.
    - `score`: $\nabla\ln\rho$: a score, a function `s(t, x) -> (d,)` for one particle, or a solution.
    - `velocity`: the current velocity $v_i = \partial_i S / m_i$, any `v(t, x)` of shape `(d,)`.

    **Units:** those of the problem: velocities in length / time, the score in 1 / length.

    **Raises:** `ValueError` for an argument that is not a problem, or cannot be called.
    """

    problem: Problem
    score: AbstractScore = eqx.field(converter=as_score)
    velocity: Callable[..., Array] = eqx.field(converter=lambda field: _as_module(field))

    def __check_init__(self):
        as_problem(self.problem)

    def osmotic(self, t: Time, x: Vector) -> Vector:
        r"""$u_i = \frac{\hbar}{2 m_i}\,\partial_i\ln\rho$ at one point, shape `(d,)`."""
        hamiltonian = self.problem.hamiltonian
        return 0.5 * hamiltonian.hbar / hamiltonian.mass * self.score(t, x)


def _as_module(velocity: Any) -> Callable[..., Array]:
    if not callable(velocity):
        raise ValueError(f"velocity must be a callable velocity(t, x) -> (d,), but {velocity!r} was given.")
    return as_module(velocity)


class HermiteVelocity(eqx.Module):
    r"""$v = m^{-1}\nabla S$ with the phase $S$ as a polynomial in a frame that moves with the ensemble, whose
    coefficients are cubic functions of time.

    ```python
    velocity = (
        solution.current
    )  # of a solution by SequentialScoreMatching or GivenScore
    velocity(0.5, x), velocity.misfit.max()
    ```

    **Arguments:**

    - `path`: a Diffrax interpolation whose value at `t` is a [`HermiteExpansion`][bohmdiff.HermiteExpansion] of
        the phase.
    - `mass`: of each coordinate, shape `(d,)`.
    - `misfit`: the difference between the velocities of the particles and the field, root-mean-square with the
        masses as weights, at every step, shape `(steps + 1,)`.

    **Units:** length / time.

    **Raises:** nothing; it is made by the methods that move particles.
    """

    path: diffrax.CubicInterpolation
    mass: Vector
    misfit: Times

    def __call__(self, t: Time, x: Vector) -> Vector:
        expansion = self.path.evaluate(jnp.asarray(t, x.dtype))
        return expansion.correction_gradient(x[None])[0] / self.mass
