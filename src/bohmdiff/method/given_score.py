"""A score that is there already: trained, written by hand or taken from another solution."""

from collections.abc import Callable

import diffrax
import jax.numpy as jnp
from jaxtyping import Array

from .._types import Key, Times
from ..flow import check_integration, propagate
from ..problem import Problem
from ..solution import FlowSolution
from ..solver import BlanesMoan4
from ..wavepacket import AbstractPoints, as_design, default_points
from .method import AbstractMethod

_NODES = {1: 64, 2: 24, 3: 14, 4: 10}


def usual_particles(dimension: int) -> AbstractPoints:
    """What is moved under something that was found, if nothing else is asked for."""
    return default_points(dimension, _NODES.get(dimension, 6))


class GivenScore(AbstractMethod):
    """Moves particles under a given score and takes the result for the solution.

    It is one exactly if the Fisher divergence of the score is zero; see
    [`fisher_divergence`][bohmdiff.fisher_divergence].

    ```python
    solution = bd.solve(problem, bd.GivenScore(score))
    solution.mean(), solution.std(), solution.energy()
    ```

    **Arguments:**

    - `score`: any `s(t, x) -> (d,)`.
    - `particles`: a design of initial points, or a number of scrambled Sobol points, which need a `key`. If
        not given: a pruned Gauss–Hermite grid with 64, 24, 14, 10 and 6 nodes per axis in one to four and
        more dimensions, while that is at most 20,000 points, otherwise 16,384 Sobol points.
    - `steps`: equal steps from `t0` to `t1`.
    - `solver`: any of the symplectic solvers.

    **Units:** those of the problem. Moments have the shape `(K, d)`.

    **Returns** from [`solve`][bohmdiff.solve]: a [`FlowSolution`][bohmdiff.FlowSolution].

    **Raises:** `ValueError` for bad options, and if particles become non-finite.
    """

    score: Callable[..., Array]
    particles: int | AbstractPoints | None = None
    steps: int = 64
    solver: diffrax.AbstractSolver = BlanesMoan4()

    def __check_init__(self):
        if not callable(self.score):
            raise ValueError(
                f"score must be a callable s(t, x) -> (d,), but {self.score!r} was given. Of a solution, pass "
                "solution.score."
            )
        check_integration(self.solver, self.steps)
        if self.particles is not None:
            as_design(self.particles, "particles")

    def run(self, problem: Problem, ts: Times, *, key: Key | None, progress: bool) -> FlowSolution:
        if self.particles is None:
            design = usual_particles(problem.dimension)
        else:
            design = as_design(self.particles, "particles")
        x0, weights = problem.initial.points(design, key)
        flow = propagate(problem, self.score, x0, ts=ts, solver=self.solver, steps=self.steps)
        return FlowSolution(
            problem=problem,
            method=self,
            ts=ts,
            fitted=self.score,
            flow=flow,
            weights=jnp.asarray(weights, x0.dtype),
            solver=self.solver,
            steps=self.steps,
        )
