"""A given score: trained, written by hand or taken from another solution."""

from dataclasses import replace
from typing import Any

import diffrax
import equinox as eqx
import jax.numpy as jnp

from ..._types import Key, Times, Weights
from ...flow import Trajectory, at_times, check_ensemble, check_solver, follow, merged
from ...hamiltonian import warn_of_kinks
from ...problem import Problem
from ...score import AbstractScore, as_score
from ...solution import Diagnostics, Particles
from ...solver import BlanesMoan4
from ...wavepacket import AbstractDesign, as_design, default_design
from .._steps import DEFAULT_TOLERANCE, Moments, as_steps, as_tolerance, run_with_steps
from ..method import AbstractMethod
from ._judge import score_figures
from .solution import KNOTS_PER_COMPARISON, FlowSolution, knots, velocity_field

_NODES = {1: 64, 2: 24, 3: 14, 4: 10}
_FIRST_STEPS = 64


def default_particles(dimension: int) -> AbstractDesign:
    """The default design of the particles that move under a score."""
    return default_design(dimension, _NODES.get(dimension, 6))


class GivenScore(AbstractMethod):
    """Moves particles under a given score and returns the result as the solution.

    It is the exact solution if and only if the Fisher divergence of the score is zero; see
    [`fisher_divergence`][bohmdiff.fisher_divergence].

    ```python
    solution = bd.solve(problem, bd.GivenScore(score))
    solution.mean(), solution.std(), solution.energy()
    ```

    **Arguments:**

    - `score`: a score, a function `s(t, x) -> (d,)` or a solution.
    - `particles`: a design of initial points, or a number of scrambled Sobol points, which need a `key`. If
        not given: a pruned Gauss–Hermite grid with 64, 24, 14, 10 and 6 nodes per axis in one to four and
        more dimensions, if that is at most 20,000 points, otherwise 16,384 Sobol points.
    - `steps`: the number of equal steps from `t0` to `t1`. If not given, the first of 64, 128, ... whose moments
        would change by no more than the tolerance with half as many.
    - `solver`: any of the symplectic solvers.
    - `tolerance`: the largest error of any mean or standard deviation due to the steps, in units of the latter.

    **Units:** those of the problem. Moments have the shape `(K, d)`.

    **Returns** from [`solve`][bohmdiff.solve]: a [`FlowSolution`][bohmdiff.FlowSolution].

    **Raises:** `ValueError` for bad options; [`ParticlesLostError`][bohmdiff.ParticlesLostError] if particles
    become infinite or NaN. Warns of a score that cannot be right: one that is not that of the initial state at
    `t0`, nor later that of the density into which its own flow moves the initial one, does not fit the width of
    the particles or any density that can be normalised, is not a gradient, or leads to an energy below the
    potential. Also warns of particles in the far tails, where a fitted or trained score is inaccurate, that have
    run away and decide a variance.
    """

    score: AbstractScore = eqx.field(converter=as_score)
    particles: int | AbstractDesign | None = eqx.field(default=None, static=True)
    steps: int | None = eqx.field(default=None, static=True, converter=as_steps)
    solver: diffrax.AbstractSolver = eqx.field(default=BlanesMoan4(), static=True)
    tolerance: float = eqx.field(default=DEFAULT_TOLERANCE, static=True, converter=as_tolerance)

    def __check_init__(self):
        check_solver(self.solver)
        if self.particles is not None:
            as_design(self.particles, "particles")

    def run(self, problem: Problem, ts: Times, *, key: Key | None, progress: bool) -> FlowSolution:
        if self.particles is None:
            design = default_particles(problem.dimension)
        else:
            design = as_design(self.particles, "particles")
        x0, weights = problem.initial.particles(design, key)
        weights = jnp.asarray(weights, x0.dtype)
        mean = weights @ x0
        width = jnp.sqrt(weights @ (x0 - mean[None]) ** 2)
        warn_of_kinks(problem.hamiltonian, problem.t0, mean, width, order=2)
        checked, score, x0 = check_ensemble(problem, self.score, x0)
        everywhere, (saved, moving) = merged(ts, knots(problem))

        def run(steps: int) -> tuple[Trajectory, Moments]:
            flow = follow(checked, score, x0, everywhere, self.solver, steps, tangents=True)
            return flow, _moments(flow, weights, moving[::KNOTS_PER_COMPARISON])

        everything, steps, figures = run_with_steps(
            self, run, first=_FIRST_STEPS, order=self.solver.order(None) or 1
        )
        flow, along = at_times(everything, saved), at_times(everything, moving)
        return FlowSolution(
            problem=problem,
            method=replace(self, steps=steps),
            ts=ts,
            fitted=self.score,
            flow=flow,
            particles=Particles(flow.position, weights, flow.log_density, flow.phase),
            current=velocity_field(problem, along, weights),
            diagnostics=Diagnostics(
                figures | score_figures(problem, self.score, x0, weights, along), ts, problem.t1
            ),
            solver=self.solver,
            steps=steps,
        )


@eqx.filter_jit
def _moments(flow: Trajectory, weights: Weights, index: Any) -> Moments:
    position = flow.position[:, index]
    mean = jnp.einsum("m,mki->ki", weights, position)
    return Moments(mean, jnp.sqrt(jnp.einsum("m,mki->ki", weights, (position - mean[None]) ** 2)))
