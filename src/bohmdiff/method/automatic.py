"""Sequential score matching of rising degree, until the moments no longer change."""

import math
from dataclasses import replace

import equinox as eqx
import jax.numpy as jnp

from .._check import as_float, as_positive_integer, is_concrete
from .._errors import ToleranceNotReachedError
from .._types import Key, Scalar, Times
from ..problem import Problem
from ..wavepacket import AbstractDesign, GaussHermitePoints, SobolPoints
from .method import AbstractMethod
from .sequential import EnsembleSolution
from .sequential.method import RUNAWAY, DegenerateFitError, SequentialScoreMatching, TooFewParticlesError

# Even degrees only: polynomials of odd degree fall without bound on one side of a density.
_DEGREES = (2, 4, 6, 8, 10, 12)
# While a sequence converges, its last change exceeds the remaining error; once it stops converging, the two
# are of the same size.
_SAFETY = 2.0
# The error of the steps is known by its order of magnitude.
_STEP_SAFETY = 4.0


class AutomaticDegree(AbstractMethod):
    r"""[`SequentialScoreMatching`][bohmdiff.SequentialScoreMatching] of degree 2, 4, 6 ..., until the
    moments converge to a tolerance.

    From one degree to the next, everything that limits the accuracy is refined: the polynomials, the points
    (unless `method` fixes them) and the steps. A change of one option alone would miss the errors from the
    others. The `error_estimate` of the solution is twice the largest change of a mean or a
    standard deviation at any saved time, in units of that standard deviation, plus four times the error of the
    steps. Where the density mismatch or the velocity mismatch fails, all degrees may share an error: the estimate
    is then at least that mismatch, and infinite if the density mismatch fails and particles run away.

    ```python
    solution = bd.solve(problem, bd.AutomaticDegree(tolerance=1e-2))
    solution.method.degree, solution.error_estimate
    ```

    **Arguments:**

    - `tolerance`: the largest error allowed, in units of the standard deviation of each coordinate.
    - `largest`: the largest degree, at least 4 and at most 12.
    - `method`: all its options but the degree are used. Given steps are for degree 4, and other degrees
        scale them in proportion. Unless the method fixes the points, each degree takes a Gauss–Hermite grid
        that reaches farther out, or, in dimensions where the grid is too large, twice as many Sobol points,
        which need a `key`.

    **Raises:** [`ToleranceNotReachedError`][bohmdiff.ToleranceNotReachedError] with the best solution, if
    the largest degree is not enough, or the fits become degenerate, or there are too few particles;
    `ValueError` for bad options and under a transformation of JAX.
    """

    tolerance: float = eqx.field(default=1e-3, converter=lambda value: as_float(value, "tolerance"))
    largest: int = eqx.field(
        default=8, converter=lambda n: as_positive_integer(n, "largest", "Pass the largest degree.")
    )
    method: SequentialScoreMatching = SequentialScoreMatching()

    def __check_init__(self):
        if not self.tolerance > 0:
            raise ValueError(f"tolerance must be positive, but {self.tolerance!r} was given.")
        if not 4 <= self.largest <= _DEGREES[-1]:
            raise ValueError(
                f"largest must be at least 4, since an error is estimated from two degrees, and at most "
                f"{_DEGREES[-1]}, but {self.largest!r} was given."
            )
        if not isinstance(self.method, SequentialScoreMatching):
            raise ValueError(f"method must be a SequentialScoreMatching, but {self.method!r} was given.")

    def run(self, problem: Problem, ts: Times, *, key: Key | None, progress: bool) -> EnsembleSolution:
        if not is_concrete((problem, ts)):
            raise ValueError(
                "AutomaticDegree compares concrete numbers to choose the degree, but jit, grad or vmap traces "
                "them. Let it choose a degree outside, and use SequentialScoreMatching of that degree inside."
            )
        estimates: list[tuple[float, int, EnsembleSolution]] = []
        before, why = None, f"{self.largest} is the largest degree allowed"
        for degree in _DEGREES:
            if degree > self.largest:
                break
            refined = replace(
                self.method,
                degree=degree,
                particles=self.method.particles or _points(problem.dimension, degree),
                steps=self.method.steps and -(-self.method.steps * degree // 4),
            )
            try:
                solution = refined.run(problem, ts, key=key, progress=progress)
            except (DegenerateFitError, TooFewParticlesError) as error:
                why = f"degree {degree} failed: {error}"
                break
            if before is not None:
                estimate = _estimate(before, solution)
                solution = replace(solution, error_estimate=jnp.asarray(estimate, problem.dtype))
                estimates.append((estimate, degree, solution))
                if estimate <= self.tolerance:
                    return solution
            before = solution
        best, found = None, "no two degrees could be compared"
        if estimates:
            lowest, degree, best = min(estimates, key=lambda one: one[0])
            found = f"degree {degree} has the lowest estimate, {lowest:.1e}"
        raise ToleranceNotReachedError(
            f"The tolerance {self.tolerance:g} was not reached: {found}, and {why}. Take that solution from "
            "the `solution` of this error, or allow a larger tolerance, or choose particles, steps and "
            "degree by hand with SequentialScoreMatching.",
            best,
        )


def _points(dimension: int, degree: int) -> AbstractDesign:
    """The points of the method; a larger degree has points farther out, or more of them."""
    design = SequentialScoreMatching(degree).design(dimension)
    if isinstance(design, GaussHermitePoints):
        return replace(design, discard=10.0 ** -(2 + degree // 2))
    return SobolPoints(2 ** (11 + degree // 2))


def _estimate(before: EnsembleSolution, solution: EnsembleSolution) -> float:
    """The error of a solution, from one of a lower degree and from the diagnostics, which see errors that all
    degrees share."""
    figures = solution.diagnostics
    step = float(figures["time step"].value)
    estimate = _SAFETY * float(_largest_change(before, solution)) + _STEP_SAFETY * step
    shared = figures.failed().keys() & {"density mismatch", "velocity mismatch"}
    if not shared:
        return estimate
    ran_away = float(jnp.max(solution.farthest)) > RUNAWAY * float(solution.farthest[0])
    if "density mismatch" in shared and ran_away:
        return math.inf
    return max(estimate, *(float(figures[name].value) for name in shared))


def _largest_change(first: EnsembleSolution, second: EnsembleSolution) -> Scalar:
    """The largest change of a mean or standard deviation, in units of the latter."""
    changes = jnp.stack([second.mean() - first.mean(), second.std() - first.std()])
    return jnp.max(jnp.abs(changes) / second.std()[None])
