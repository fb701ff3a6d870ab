"""A given score: trained, written by hand or taken from another solution."""

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp

from ..._types import Key, Paths, Points, Times, Vector, Weights
from ...flow import check_integration
from ...hamiltonian import warn_of_kinks
from ...problem import Problem
from ...score import AbstractScore, as_score
from ...solution import Diagnostics, Figure, Particles, over_time
from ...solver import BlanesMoan4
from ...wavepacket import AbstractDesign, as_design, default_design
from ..method import AbstractMethod
from ._judge import score_figures
from .solution import FlowSolution, flow_and_velocity

_NODES = {1: 64, 2: 24, 3: 14, 4: 10}
# The farthest part of the probability, and how much its share of a variance may grow.
_FAR_OUT, _MOST = 1e-3, 0.05


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
    - `steps`: the number of equal steps from `t0` to `t1`.
    - `solver`: any of the symplectic solvers.

    **Units:** those of the problem. Moments have the shape `(K, d)`.

    **Returns** from [`solve`][bohmdiff.solve]: a [`FlowSolution`][bohmdiff.FlowSolution].

    **Raises:** `ValueError` for bad options; [`ParticlesLostError`][bohmdiff.ParticlesLostError] if particles
    become infinite or NaN. Warns of a score that cannot be right: one that is not that of the initial state at
    `t0`, does not fit the width of the particles or any density that can be normalised, is not a gradient, leads
    to an energy below the potential, or is not the score of the density that its own flow carries. Also warns
    if the share of a variance from the farthest thousandth of the probability grows: particles in the far
    tails, where a fitted or trained score is inaccurate, have then run away.
    """

    score: AbstractScore = eqx.field(converter=as_score)
    particles: int | AbstractDesign | None = eqx.field(default=None, static=True)
    steps: int = eqx.field(default=64, static=True)
    solver: diffrax.AbstractSolver = eqx.field(default=BlanesMoan4(), static=True)

    def __check_init__(self):
        check_integration(self.solver, self.steps)
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
        flow, current = flow_and_velocity(problem, self.score, x0, weights, ts, self.solver, self.steps)
        return FlowSolution(
            problem=problem,
            method=self,
            ts=ts,
            fitted=self.score,
            flow=flow,
            particles=Particles(flow.position, weights, flow.log_density, flow.phase),
            current=current,
            diagnostics=Diagnostics(
                {"runaways": _runaways(x0, weights, flow.position, ts)}
                | score_figures(problem, self.score, x0, weights, flow),
                ts,
                problem.t1,
            ),
            solver=self.solver,
            steps=self.steps,
        )


def _runaways(x0: Points, weights: Weights, position: Paths, ts: Times) -> Figure:
    """How much the share of a variance from the farthest thousandth has grown since the start."""
    before = _share_of_farthest(x0, weights)
    shares = jax.lax.map(lambda x: _share_of_farthest(x, weights), jnp.moveaxis(position, 1, 0))
    return over_time(
        jnp.max(shares - before[None], axis=1),
        ts,
        limit=_MOST,
        meaning="The farthest thousandth of the probability contributes that much more to a variance than at the "
        "start: particles that started far out have run away, where the score is inaccurate, and the moments "
        "cannot be trusted.",
        remedy="Use particles that reach less far out: GivenScore(score, particles=SobolPoints(8192)), with "
        "solution.fitted as the score after training, or StandardizedPoints(TruncatedPoints(SobolPoints(8192))), "
        "which leave that thousandth out and keep the covariance.",
    )


def _share_of_farthest(x: Points, weights: Weights) -> Vector:
    """The share of each coordinate's variance that comes from the particles farthest from the mean, which
    together have at most a thousandth of the weight."""
    square = (x - (weights @ x)[None]) ** 2
    order = jnp.argsort(-square, axis=0)
    sizes = weights[order]
    parts = sizes * jnp.take_along_axis(square, order, axis=0)
    far = jnp.sum(jnp.where(jnp.cumsum(sizes, axis=0) <= _FAR_OUT * jnp.sum(weights), parts, 0), axis=0)
    total = jnp.sum(parts, axis=0)
    return jnp.where(total > 0, far / jnp.where(total > 0, total, 1), 0)
