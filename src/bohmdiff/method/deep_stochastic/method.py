"""Deep stochastic mechanics: train two velocities to solve the equations of Nelson's process on its own paths."""

import math
from collections.abc import Callable
from functools import cache
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, PyTree

from ..._check import as_float, as_positive_integer, check_output
from ..._types import Field, Key, Points, Times, Weights
from ...network import SpreadingFrame, trainable
from ...problem import Problem
from ...stochastic import residuals_at
from ...training import Training, as_training, scale_by_gauss_newton, training_keys
from .._pointwise import AbstractPointwiseLoss, AbstractPointwiseTask, Columns, Rows, at_random_times
from ..method import AbstractMethod
from .solution import VelocitySolution


class DeepStochasticMechanics(AbstractMethod):
    r"""Trains an osmotic velocity `u` and a current velocity `v` to solve the equations of motion of Nelson's
    process, on paths of the process with these velocities.

    In every epoch, paths start at random from $\rho_0$ and move by Euler–Maruyama steps under $v + u$. On each
    path, one time is chosen at random. The loss is the mean square of the
    [residuals][bohmdiff.velocity_residuals] there, plus the mean square error of the initial velocities. Paths
    are not differentiated. The initial velocity and time scales of the problem scale the residuals to order one.

    ```python
    u, v = bd.velocity_networks(problem, width=8, key=key)
    method = bd.DeepStochasticMechanics(
        u, v, training=bd.Training(epochs=3), particles=32
    )
    solution = bd.solve(problem, method, key=key)
    solution.std(), solution.velocity(0.5, x)
    ```

    Residuals determine the velocities only where paths go, and these equations let an error in the tails of the
    density grow into its bulk. With interference, where $u$ and $v$ change rapidly in the tails, compare with
    [`SequentialScoreMatching`][bohmdiff.SequentialScoreMatching].

    **Arguments:**

    - `u`, `v`: modules `(t, x) -> (d,)` with arrays of real numbers as parameters, such as those of
        [`velocity_networks`][bohmdiff.velocity_networks].
    - `training`: the optimizer, the number of epochs, log and checkpoints: a [`Training`][bohmdiff.Training].
        The default optimizer takes clipped Gauss-Newton steps with a rate that rises to one half in ten epochs.
    - `particles`: the number of paths; the residuals are evaluated at one time of each.
    - `steps`: the number of steps of a path, equal by the clock of the problem, which is slow while a narrow
        packet spreads.
    - `resample_every`: the number of epochs for which paths are kept, with new evaluation times in each epoch;
        1 for fresh paths in each epoch.
    - `initial_weight`: the weight of the mean square error of the initial velocities at the starts of the paths.
        It has no effect on networks with an exact start.
    - `outlier_scale`: residuals beyond this many times the scale of the problem count logarithmically, so that a
        few points in the tails do not dominate; `math.inf` for squares.
    - `validation_particles`: the number of paths on which validations evaluate the mean square of the residuals.
        Their random numbers are drawn once, and they move with the current fields.

    **Units:** those of the problem; loss and residuals have none. Moments have the shape `(K, d)`.

    **Returns** from [`solve`][bohmdiff.solve]: a [`VelocitySolution`][bohmdiff.VelocitySolution].

    **Raises:** `ValueError` for bad options, fields without parameters, and checkpoints that are damaged or
    belong to another run; [`TrainingDivergedError`][bohmdiff.TrainingDivergedError] if updates are no longer
    finite or the current velocity loses particles,
    [`TrainingNotSavedError`][bohmdiff.TrainingNotSavedError] if log or checkpoint cannot be written, both
    with the two fields as `fitted`.

    ??? cite "Reference"

        E. Orlova, A. Ustimenko, R. Jiang, P. Y. Lu and R. Willett, *Deep stochastic mechanics*, ICML (2024).
    """

    u: Callable[..., Array]
    v: Callable[..., Array]
    training: Training = eqx.field(kw_only=True)
    particles: int = eqx.field(default=256, static=True)
    steps: int = eqx.field(default=32, static=True)
    resample_every: int = eqx.field(default=1, static=True)
    initial_weight: float = eqx.field(
        default=1.0, static=True, converter=lambda v: as_float(v, "initial_weight")
    )
    outlier_scale: float = eqx.field(
        default=math.inf, static=True, converter=lambda v: as_float(v, "outlier_scale")
    )
    validation_particles: int = eqx.field(default=256, static=True)

    def __check_init__(self):
        for name in ("u", "v"):
            if not callable(getattr(self, name)):
                raise ValueError(
                    f"{name} must be a callable {name}(t, x) -> (d,), but {getattr(self, name)!r} was given."
                )
        if not any(jax.tree.leaves(trainable((self.u, self.v)))):
            raise ValueError(
                "u and v have no parameters to train: their fields must have arrays of real numbers outside "
                "frozen modules. Pass modules such as those of velocity_networks(problem, key=key)."
            )
        as_training(self.training)
        for name in ("particles", "validation_particles"):
            as_positive_integer(getattr(self, name), name, "Pass a number of paths.")
        as_positive_integer(self.steps, "steps", "Pass the number of steps of a path.")
        as_positive_integer(self.resample_every, "resample_every", "Pass a number of epochs.")
        if not 0 <= self.initial_weight < math.inf:
            raise ValueError(f"initial_weight must not be negative, but {self.initial_weight!r} was given.")
        if not self.outlier_scale > 0:
            raise ValueError(f"outlier_scale must be positive, but {self.outlier_scale!r} was given.")

    def run(self, problem: Problem, ts: Times, *, key: Key | None, progress: bool) -> VelocitySolution:
        keys = training_keys(key, "paths")
        fields = (self.u, self.v)
        d = problem.dimension
        for name, field in zip("uv", fields, strict=True):
            check_output(field, (problem.t0, jnp.zeros(d, problem.dtype)), (d,), name)
        task = _Task(
            problem=problem,
            frame=SpreadingFrame.of(problem),
            method=self,
            validation_key=keys.validation,
            design_key=keys.solution,
        )
        return task.solved(fields, self.training, ts, keys, progress)


@cache
def default_optimizer() -> optax.GradientTransformation:
    """Always the same object, because compiled code is cached for each optimizer object."""
    return optax.chain(
        scale_by_gauss_newton(damping=1e-4, decay=0.7),
        optax.clip_by_global_norm(10.0),
        optax.scale_by_learning_rate(optax.linear_schedule(0.05, 0.5, 10)),
    )


class ResidualLoss(AbstractPointwiseLoss):
    """The mean square of the scaled residuals at times and places, and of the error at the start."""

    problem: Problem
    frame: SpreadingFrame
    fixed: PyTree
    initial_weight: float
    outlier_scale: float

    def residuals(self, parameters: PyTree, point: Columns) -> Float[Array, " components"]:
        u, v = eqx.combine(parameters, self.fixed)
        problem, frame, d = self.problem, self.frame, self.problem.dimension
        hamiltonian, initial = problem.hamiltonian, problem.initial
        t, x, x0 = point[0], point[1 : 1 + d], point[1 + d :]
        of_u, of_v = residuals_at(hamiltonian, u, v, t, x)
        wider = frame.std_at(t) / frame.std
        speeds = frame.osmotic_speed / wider, frame.current_speed * jnp.max(wider) / wider
        pace = frame.pace(t)
        t0 = jnp.asarray(problem.t0, t.dtype)
        missing_u = u(t0, x0) - 0.5 * hamiltonian.hbar / hamiltonian.mass * initial.score(x0)
        missing_v = v(t0, x0) - initial.velocity(x0, hamiltonian.mass)
        weight = self.initial_weight**0.5
        return jnp.concatenate(
            [
                pace * of_u / speeds[0],
                pace * of_v / speeds[1],
                weight * missing_u / frame.osmotic_speed,
                weight * missing_v / frame.current_speed,
            ]
        )


class _Task(AbstractPointwiseTask):
    """Residuals on paths that may be kept for some epochs."""

    advice: ClassVar[str] = (
        "Paths escape, or the fields are too rough. Lower the learning rate, clip the steps "
        "(optax.clip_by_global_norm), raise the damping of Gauss-Newton, or pass an outlier_scale."
    )

    problem: Problem
    frame: SpreadingFrame
    method: DeepStochasticMechanics
    validation_key: Key
    design_key: Key

    def default_optimizer(self, epochs: int) -> optax.GradientTransformation:
        return default_optimizer()

    def loss(self, fixed: PyTree) -> ResidualLoss:
        method = self.method
        return ResidualLoss(
            problem=self.problem,
            frame=self.frame,
            fixed=fixed,
            initial_weight=method.initial_weight,
            outlier_scale=method.outlier_scale,
        )

    def carry(self) -> PyTree:
        if self.method.resample_every == 1:
            return None
        d, dtype = self.problem.dimension, self.problem.dtype
        return jnp.zeros((self.method.particles, self.method.steps + 1, d), dtype)

    def draw(self, trained: PyTree, carry: PyTree, epoch: int, key: Key) -> tuple[PyTree, Points, Weights]:
        paths_key, times_key = jax.random.split(key)
        method = self.method
        paths = carry
        if paths is None or (epoch - 1) % method.resample_every == 0:
            paths = self.paths(trained, method.particles, paths_key)
        points = at_random_times(self.frame, paths, times_key)
        weights = jnp.full(method.particles, 1 / method.particles, points.dtype)
        return None if carry is None else paths, points, weights

    def collocation(self, trained: PyTree, number: int, key: Key) -> Rows:
        return self.on_paths(trained, number, key)

    def velocities(self, trained: PyTree) -> tuple[Field, Field]:
        return trained

    def solution(
        self, trained: PyTree, ts: Times, x0: Points, weights: Weights, history: dict[str, Array]
    ) -> VelocitySolution:
        return VelocitySolution.of(self.problem, self.method, ts, trained, x0, weights, history)

    def settings(self) -> dict[str, Any]:
        names = ("particles", "steps", "resample_every", "initial_weight", "outlier_scale")
        return {name: getattr(self.method, name) for name in names}

    def functions(self, trained: PyTree) -> dict[str, tuple[str, Callable[..., Array]]]:
        return {name: (type(one).__name__, one) for name, one in zip("uv", trained, strict=True)}
