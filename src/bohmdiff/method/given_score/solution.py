"""The solution that a score makes by its own flow."""

from typing import Any, NoReturn

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import xarray
from jaxtyping import Array, Float

from ..._check import as_positive_integer
from ..._precision import in_full_precision
from ..._types import Key, Numbers, Paths, Scalar, Time, Times, Vector, Weights
from ...flow import Trajectory, propagate
from ...problem import Problem
from ...score import scalar_of
from ...solution._export import attributes
from ...solution.solution import Solution, place
from ...training._history import read_history
from ...wavepacket import RandomPoints


class FlowSolution(Solution):
    r"""Particles that moved under a score: what [`GivenScore`][bohmdiff.GivenScore] and
    [`SelfConsistentScoreMatching`][bohmdiff.SelfConsistentScoreMatching] return.

    ```python
    solution = bd.solve(problem, bd.GivenScore(score))
    solution.flow.log_density[:, -1]
    ```

    - `flow`: the [`Trajectory`][bohmdiff.Trajectory] of the particles, with the density, phase and energy
        of each.
    - `weights`: of the particles, shape `(M,)`.
    - `fitted`: the score itself, a module: after training, the trained one.
    - `history`: of the training, an `xarray.Dataset` over `epoch`, or `None` if there was none.

    Moments are those of the particles. `log_density` is the score's own, normalised by the particles at
    the saved times and interpolated between them.
    """

    problem: Problem
    method: eqx.Module
    ts: Times
    fitted: Any
    flow: Trajectory
    weights: Weights
    solver: diffrax.AbstractSolver
    steps: int = eqx.field(static=True)
    _history: str | None = eqx.field(static=True, default=None)

    @property
    def particles(self) -> int:
        """How many there are."""
        return self.weights.shape[0]

    @property
    def history(self) -> xarray.Dataset | None:
        """Of the training: everything that its log has, over `epoch`, with the attributes of `to_xarray`."""
        if self._history is None:
            return None
        return read_history(self._history).assign_attrs(attributes(self.problem, self.method))

    @in_full_precision
    def mean(self) -> Float[Array, "K d"]:
        return jnp.einsum("m,mkd->kd", self.weights, self.flow.position)

    @in_full_precision
    def std(self) -> Float[Array, "K d"]:
        return jnp.sqrt(jnp.einsum("m,mkd->kd", self.weights, (self.flow.position - self.mean()) ** 2))

    @in_full_precision
    def energy(self) -> Times:
        return self.weights @ self.flow.energy

    def sample(self, key: Key, n: int) -> Float[Array, "n K d"]:
        """`n` new Bohmian trajectories: random starts from ρ0, moved under the score."""
        n = as_positive_integer(n, "n", "Pass how many trajectories.")
        return self.trajectories(self.problem.initial.particles(RandomPoints(n), key)[0])

    def trajectories(self, x0: Numbers) -> Paths:
        """The paths of particles that start at `x0`, shape `(M, d)`, at the saved times: `(M, K, d)`."""
        return propagate(
            self.problem,
            self.fitted,
            x0,
            ts=self.ts,
            solver=self.solver,
            steps=self.steps,
            tangents=False,
        ).position

    def score(self, t: Time, x: Vector) -> Vector:
        t, x = place(self.problem, t, x)
        return self.fitted(t, x)

    @in_full_precision
    def log_density(self, t: Time, x: Vector) -> Scalar:
        if not hasattr(self.fitted, "log_density"):
            self._unavailable(
                "log_density",
                "Its score is a vector field without a scalar. flow.log_density has ln ρ on the particles; "
                "give the score a method log_density(t, x), or write it as GradientScore(scalar).",
            )
        t, x = place(self.problem, t, x)
        return scalar_of(self.fitted)(t, x) - jnp.interp(t, self.ts, self._offsets())

    def wave_function(self, t: Time, x: Vector) -> NoReturn:
        self._unavailable(
            "wave_function",
            "It has the density (log_density), and density and phase on the particles (flow.log_density, "
            "flow.phase). For ψ anywhere use SplitOperator (d ≤ 4), or GaussianDynamics for quadratic "
            "potentials.",
        )

    def _offsets(self) -> Times:
        """By how much the score's scalar exceeds ln ρ at the saved times, on average over particles."""
        assert self.flow.log_density is not None
        scalar = scalar_of(self.fitted)
        at_time = jax.vmap(scalar, in_axes=(None, 0))
        own = jax.vmap(at_time, in_axes=(0, 1), out_axes=1)(self.ts, self.flow.position)
        return self.weights @ (own - self.flow.log_density)
