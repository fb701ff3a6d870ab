"""The solution of a method that moves particles under a score it has found."""

from typing import Any, NoReturn

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ..._check import as_positive_integer
from ..._precision import in_full_precision
from ..._types import Key, Numbers, Paths, Points, Scalar, Time, Times, Vector
from ...flow import check_ensemble, hermite_acceleration, integrate, require_finite_paths
from ...problem import Problem
from ...score import HermiteScore
from ...solution.solution import Solution, place, within_span
from ...wavepacket import RandomPoints


class EnsembleSolution(Solution):
    """What [`SequentialScoreMatching`][bohmdiff.SequentialScoreMatching] returns: the moments of its
    particles, and the score as a function of time and place.

    ```python
    solution = bd.solve(problem, bd.SequentialScoreMatching(degree=4))
    solution.condition_number[-1], solution.trajectories([[1.0, 0.0], [1.5, 0.0]])
    ```

    - `particles`: how many there are.
    - `condition_number`: of the fit at the saved times, a lower bound, shape `(K,)`.
    - `farthest`: the distance of the outermost particle from the centre, in standard deviations of the
        ensemble, shape `(K,)`.
    - `error_estimate`: of the moments, in standard deviations, from
        [`AutomaticDegree`][bohmdiff.AutomaticDegree]; otherwise `None`.
    """

    problem: Problem
    method: eqx.Module
    ts: Times
    fitted: HermiteScore
    condition_number: Times
    farthest: Times
    solver: diffrax.AbstractSolver
    steps: int = eqx.field(static=True)
    particles: int = eqx.field(static=True)
    _mean: Float[Array, "K d"]
    _std: Float[Array, "K d"]
    _energy: Times
    error_estimate: float | None = None

    def mean(self) -> Float[Array, "K d"]:
        return self._mean

    def std(self) -> Float[Array, "K d"]:
        return self._std

    def energy(self) -> Times:
        return self._energy

    def sample(self, key: Key, n: int) -> Float[Array, "n K d"]:
        """`n` new Bohmian trajectories: random starts from ρ0, moved under the fitted score."""
        n = as_positive_integer(n, "n", "Pass how many trajectories.")
        return self.trajectories(self.problem.initial.particles(RandomPoints(n), key)[0])

    @in_full_precision
    def trajectories(self, x0: Numbers) -> Paths:
        """The paths of particles that start at `x0`, shape `(M, d)`, at the saved times: `(M, K, d)`.

        Positions only, with the force in closed form; [`propagate`][bohmdiff.propagate] gives all else.
        """
        problem, fitted, x0 = check_ensemble(self.problem, self.fitted, x0)
        return require_finite_paths(_paths(problem, fitted, x0, self.ts, self.solver, self.steps), self.ts)

    def score(self, t: Time, x: Vector) -> Vector:
        t, x = place(self.problem, t, x)
        return self.fitted(within_span(self.problem, t), x)

    def log_density(self, t: Time, x: Vector) -> Scalar:
        t, x = place(self.problem, t, x)
        return self.fitted.log_density(within_span(self.problem, t), x)

    def wave_function(self, t: Time, x: Vector) -> NoReturn:
        self._unavailable(
            "wave_function",
            "It has the density (log_density), and the phase along trajectories "
            "(propagate(problem, solution.score, ...).phase). For ψ anywhere use SplitOperator (d ≤ 4), or "
            "GaussianDynamics for quadratic potentials.",
        )


@eqx.filter_jit
def _paths(
    problem: Problem,
    fitted: HermiteScore,
    x0: Points,
    ts: Times,
    solver: diffrax.AbstractSolver,
    steps: int,
) -> Paths:
    def kick(t: Any, x: Points, args: Any) -> Points:
        return hermite_acceleration(problem.hamiltonian, fitted.at(t), t, x)

    velocity0 = jax.vmap(lambda x: problem.initial.velocity(x, problem.hamiltonian.mass))(x0)
    terms = (diffrax.ODETerm(lambda t, velocity, args: velocity), diffrax.ODETerm(kick))
    saveat = diffrax.SaveAt(ts=ts, fn=lambda t, y, args: y[0])
    paths = integrate(problem, terms, (x0, velocity0), saveat, solver, steps).ys
    assert paths is not None
    return jnp.moveaxis(paths, 0, 1)
