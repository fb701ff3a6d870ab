"""A score that is there already: trained, written by hand or taken from another solution."""

from collections.abc import Callable

import diffrax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from ..._check import is_concrete, warn
from ..._types import Key, Paths, Points, Times, Weights
from ...flow import check_integration, propagate
from ...problem import Problem
from ...solver import BlanesMoan4
from ...wavepacket import AbstractDesign, as_design, default_design
from ..method import AbstractMethod
from .solution import FlowSolution

_NODES = {1: 64, 2: 24, 3: 14, 4: 10}
# What is little of a density, and how much of a variance it may make up beyond what it does at the start.
_FAR_OUT, _MOST = 1e-3, 0.05


def default_particles(dimension: int) -> AbstractDesign:
    """What is moved under something that was found, if nothing else is asked for."""
    return default_design(dimension, _NODES.get(dimension, 6))


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

    **Raises:** `ValueError` for bad options, and if particles become non-finite. Warns where the farthest
    thousandth of the probability makes up much of a variance: particles in the far tails, where a fitted or
    trained score is not known well, have then run away.
    """

    score: Callable[..., Array]
    particles: int | AbstractDesign | None = None
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
            design = default_particles(problem.dimension)
        else:
            design = as_design(self.particles, "particles")
        x0, weights = problem.initial.particles(design, key)
        flow = propagate(problem, self.score, x0, ts=ts, solver=self.solver, steps=self.steps)
        _warn_of_runaways(x0, weights, flow.position, ts)
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


def _warn_of_runaways(x0: Points, weights: Weights, position: Paths, ts: Times) -> None:
    if not is_concrete((x0, weights, position, ts)):
        return
    of_weight = np.asarray(weights)
    before = _share_of_farthest(np.asarray(x0), of_weight)
    shares = np.stack([_share_of_farthest(x, of_weight) for x in np.moveaxis(np.asarray(position), 1, 0)])
    time, coordinate = np.unravel_index(np.argmax(shares - before), shares.shape)
    if shares[time, coordinate] > before[coordinate] + _MOST:
        warn(
            f"The farthest thousandth of the probability makes up {shares[time, coordinate]:.0%} of the "
            f"variance of coordinate {coordinate} at t = {np.asarray(ts)[time]:g}: particles that started far "
            "out have run away, where the score is not known well, and the moments are not to be trusted. Move "
            "particles that reach less far out: GivenScore(score, particles=SobolPoints(8192)), with "
            "solution.fitted as the score after training, or StandardizedPoints(TruncatedPoints(SobolPoints("
            "8192))), which leave that thousandth out and keep the covariance.",
        )


def _share_of_farthest(x: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """What the particles that are farthest from the mean, and together have a thousandth of the weight at most,
    contribute to the variance of each coordinate."""
    square = (x - weights @ x) ** 2
    order = np.argsort(-square, axis=0)
    sizes = weights[order]
    parts = sizes * np.take_along_axis(square, order, axis=0)
    far = np.sum(np.where(np.cumsum(sizes, axis=0) <= _FAR_OUT * weights.sum(), parts, 0), axis=0)
    total = parts.sum(axis=0)
    return np.divide(far, total, out=np.zeros_like(far), where=total > 0)
