"""The solution from the flow of a score."""

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import xarray
from jaxtyping import Array, Complex

from ..._precision import in_full_precision
from ..._types import Paths, Points, Scalar, Times, Vector, Weights
from ...flow import Trajectory, check_ensemble, follow
from ...problem import Problem
from ...score import (
    AbstractScore,
    default_window,
    fit_phase,
    has_log_density,
    hermite_polynomials,
    scalar_of,
    smooth_path,
)
from ...solution import AbstractFitted, AbstractParticleSolution, Diagnostics, Particles
from ...solution._export import attributes
from ...stochastic import HermiteVelocity
from ...training import history_dataset

# Limits of the polynomial phase: its degree, and the numbers of polynomials and times.
_LARGEST_DEGREE, _MOST_FUNCTIONS, _KNOTS = 6, 500, 65
# The times by which two runs are compared are among those times.
KNOTS_PER_COMPARISON = 2


class FlowSolution(AbstractParticleSolution, AbstractFitted):
    r"""Particles that moved under a score: what [`GivenScore`][bohmdiff.GivenScore] and
    [`SelfConsistentScoreMatching`][bohmdiff.SelfConsistentScoreMatching] return.

    ```python
    solution = bd.solve(problem, bd.GivenScore(score))
    solution.flow.log_density[:, -1]
    ```

    - `flow`: the [`Trajectory`][bohmdiff.Trajectory] of the particles, with the density, phase and energy
        of each.
    - `particles`: position, weight, density and phase of the same [`Particles`][bohmdiff.Particles].
    - `fitted`: the score as a module; after training, the trained score.
    - `current`: the velocity, a [`HermiteVelocity`][bohmdiff.HermiteVelocity]: the gradient of the polynomial
        phase that fits the particles' momenta best; `None` if there are too few particles for one.
    - `history`: the log of the training, an `xarray.Dataset` over `epoch`, or `None` without training.

    Moments are those of the particles. `log_density` is the score's own, normalised by the particles at
    the saved times and interpolated between them.
    """

    problem: Problem
    method: eqx.Module
    ts: Times
    fitted: AbstractScore
    flow: Trajectory
    particles: Particles
    current: HermiteVelocity | None
    diagnostics: Diagnostics
    solver: diffrax.AbstractSolver = eqx.field(static=True)
    steps: int = eqx.field(static=True)
    _history: dict[str, Array] | None = None

    @property
    def history(self) -> xarray.Dataset | None:
        """The log of the training over `epoch`, with the attributes of `to_xarray`."""
        if self._history is None:
            return None
        return history_dataset(self._history).assign_attrs(attributes(self.problem, self.method))

    @in_full_precision
    def energy(self) -> Times:
        return self.particles.weights @ self.flow.energy

    def move(self, x0: Points) -> Paths:
        problem, score, x0 = check_ensemble(self.problem, self.fitted, x0)
        return follow(problem, score, x0, self.ts, self.solver, self.steps, tangents=False).position

    def score_at(self, t: Scalar, x: Vector) -> Vector:
        return self.fitted(t, x)

    def velocity_at(self, t: Scalar, x: Vector) -> Vector:
        if self.current is None:
            raise self.unavailable(
                "velocity",
                f"{self.particles.weights.size} particles do not determine one: pass more particles.",
            )
        return self.current(t, x)

    def log_density_at(self, t: Scalar, x: Vector) -> Scalar:
        if not has_log_density(self.fitted):
            raise self.unavailable(
                "log_density",
                "Its score is a vector field without a scalar. particles.log_density has ln ρ on the particles. "
                "For ln ρ anywhere, write the score as GradientScore(scalar) or derive it from "
                "AbstractGradientScore.",
            )
        return scalar_of(self.fitted)(t, x) - jnp.interp(t, self.ts, self._offsets())

    def wave_function_at(self, t: Scalar, x: Vector) -> Complex[Array, ""]:
        raise self.unavailable(
            "wave_function",
            "It has the density (log_density), and density and phase on its particles (particles.log_density, "
            "particles.phase). For ψ anywhere use SplitOperator (d ≤ 4), or GaussianDynamics for quadratic "
            "potentials.",
        )

    def _offsets(self) -> Times:
        """The mean difference of the score's scalar and ln ρ over the particles, at the saved times."""
        assert self.flow.log_density is not None
        scalar = scalar_of(self.fitted)
        at_time = jax.vmap(scalar, in_axes=(None, 0))
        own = jax.vmap(at_time, in_axes=(0, 1), out_axes=1)(self.ts, self.flow.position)
        return self.particles.weights @ (own - self.flow.log_density)


def knots(problem: Problem) -> Times:
    """The times at which a velocity field is fitted to the particles, whatever the saved times are."""
    return jnp.linspace(problem.t0, problem.t1, _KNOTS, dtype=problem.dtype)


def velocity_field(problem: Problem, moving: Trajectory, weights: Weights) -> HermiteVelocity | None:
    """The velocity that fits particles at the `knots`; `None` for too few of them."""
    degree = _phase_degree(problem.dimension, weights.size)
    if degree is None:
        return None
    return _fitted_velocity(moving, weights, problem.hamiltonian.masses(problem.dimension), degree)


def _phase_degree(dimension: int, particles: int) -> int | None:
    """The largest degree with few enough polynomials; `None` if even a quadratic phase has too many."""
    most = min(_MOST_FUNCTIONS, particles // 2)
    degrees = range(_LARGEST_DEGREE, 1, -1)
    return next((n for n in degrees if hermite_polynomials(dimension, n).size <= most), None)


@eqx.filter_jit
def _fitted_velocity(moving: Trajectory, weights: Weights, mass: Vector, degree: int) -> HermiteVelocity:
    window = default_window(mass.size)

    def fit(at: tuple[Points, Points]):
        x, v = at
        phase = fit_phase(x, v, weights, mass, degree, window)
        error = v - phase.correction_gradient(x) / mass[None]
        return phase, jnp.sqrt(weights @ (error**2 @ mass) / jnp.sum(mass))

    phases, misfit = jax.lax.map(
        fit, jax.tree.map(lambda p: jnp.moveaxis(p, 1, 0), (moving.position, moving.velocity))
    )
    return HermiteVelocity(smooth_path(moving.ts, phases), mass, misfit)
