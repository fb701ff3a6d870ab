"""The solution of a method that moves particles under a fitted score."""

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Complex

from ..._types import Paths, Points, Scalar, Times, Vector
from ...flow import HalfState, hermite_force, integrate
from ...problem import Problem
from ...score import HermiteScore
from ...solution import AbstractFitted, AbstractParticleSolution, Diagnostics, Particles
from ...stochastic import HermiteVelocity


class EnsembleSolution(AbstractParticleSolution, AbstractFitted):
    """The solution by [`SequentialScoreMatching`][bohmdiff.SequentialScoreMatching]: its particles, and score and
    velocity as functions of time and place.

    ```python
    solution = bd.solve(problem, bd.SequentialScoreMatching(degree=4))
    solution.condition_number[-1], solution.particles.position[:, -1]
    ```

    - `particles`: the weighted [`Particles`][bohmdiff.Particles]. Their density is that of the fitted score.
    - `fitted`: the score, a [`HermiteScore`][bohmdiff.HermiteScore].
    - `current`: the velocity, a [`HermiteVelocity`][bohmdiff.HermiteVelocity]: the gradient of the polynomial
        phase that fits the particles' momenta best.
    - `condition_number`: a lower bound of the condition number of the fit at the saved times, shape `(K,)`.
    - `farthest`: the distance of the outermost particle from the centre, in standard deviations of the
        ensemble, shape `(K,)`.
    - `error_estimate`: the estimated error of the moments, in standard deviations, from
        [`AutomaticDegree`][bohmdiff.AutomaticDegree]; otherwise `None`.
    """

    problem: Problem
    method: eqx.Module
    ts: Times
    particles: Particles
    fitted: HermiteScore
    current: HermiteVelocity
    condition_number: Times
    farthest: Times
    diagnostics: Diagnostics
    solver: diffrax.AbstractSolver = eqx.field(static=True)
    steps: int = eqx.field(static=True)
    _energy: Times
    error_estimate: Scalar | None = None

    def energy(self) -> Times:
        return self._energy

    def move(self, x0: Points) -> Paths:
        return _paths(self, x0)

    def score_at(self, t: Scalar, x: Vector) -> Vector:
        return self.fitted(t, x)

    def velocity_at(self, t: Scalar, x: Vector) -> Vector:
        return self.current(t, x)

    def log_density_at(self, t: Scalar, x: Vector) -> Scalar:
        return self.fitted.log_density(t, x)

    def wave_function_at(self, t: Scalar, x: Vector) -> Complex[Array, ""]:
        raise self.unavailable(
            "wave_function",
            "It has the density (log_density), and density and phase on its particles (particles.log_density, "
            "particles.phase). For ψ anywhere use SplitOperator (d ≤ 4), or GaussianDynamics for quadratic "
            "potentials.",
        )


def sequential_terms(problem: Problem, expansion_at) -> tuple[diffrax.ODETerm, diffrax.ODETerm]:
    """Drift and kick of an ensemble under a Hermite expansion, `expansion_at(t, x)`, with the action."""
    hamiltonian = problem.hamiltonian

    def drift(t, velocity: HalfState, args) -> HalfState:
        return velocity._replace(action=jax.vmap(hamiltonian.kinetic_energy)(velocity.motion))

    def kick(t, position: HalfState, args) -> HalfState:
        potential, acceleration = hermite_force(
            hamiltonian, expansion_at(t, position.motion), t, position.motion
        )
        return HalfState(acceleration, -potential, None, None)

    return diffrax.ODETerm(drift), diffrax.ODETerm(kick)


def initial_ensemble(problem: Problem, x0: Points) -> tuple[HalfState, HalfState]:
    """Positions and velocities at `t0`, with the initial phase."""
    initial, mass = problem.initial, problem.hamiltonian.mass
    phase = jax.vmap(initial.phase)(x0)
    velocity = jax.vmap(lambda x: initial.velocity(x, mass))(x0)
    return HalfState(x0, phase, None, None), HalfState(velocity, jnp.zeros_like(phase), None, None)


@eqx.filter_jit
def _paths(solution: EnsembleSolution, x0: Points) -> Paths:
    paths = integrate(
        solution.problem,
        sequential_terms(solution.problem, lambda t, x: solution.fitted.at(t)),
        initial_ensemble(solution.problem, x0),
        diffrax.SaveAt(ts=solution.ts, fn=lambda t, y, args: y[0].motion),
        solution.solver,
        solution.steps,
    ).ys
    assert paths is not None
    return jnp.moveaxis(paths, 0, 1)
