"""Deep stochastic mechanics: train two velocities to solve the equations of Nelson's process on its own paths."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, PyTree

from .._check import as_float, as_key, as_positive_integer, check_output
from .._types import Key, Points, Scalar, Times, Vector, Weights
from ..flow import Devices
from ..problem import Problem
from ..score import trainable
from ..solution import VelocitySolution
from ..stochastic import SpreadingFrame, process_paths, residuals_at
from ..wavepacket import RandomPoints
from .given_score import usual_particles
from .training import (
    AbstractLoss,
    AbstractTask,
    AbstractTrainedMethod,
    TrainingDivergedError,
    energy_figures,
    scale_by_gauss_newton,
    text_of,
)


class DeepStochasticMechanics(AbstractTrainedMethod):
    r"""Trains an osmotic velocity `u` and a current velocity `v` to solve the equations of motion of Nelson's
    process on paths of the process that they make themselves.

    In every epoch paths start at random from $\rho_0$ and move by Euler and Maruyama's steps under $v + u$; on
    each of them one time is chosen at random; the loss is the mean square of the
    [residuals][bohmdiff.velocity_residuals] there, and of what the fields miss of the initial velocities. Paths
    are held fixed: no derivative goes through them. Residuals are made of order one by the velocities and the
    times that the problem starts with.

    ```python
    u, v = bd.velocity_networks(problem, width=8, key=key)
    method = bd.DeepStochasticMechanics(u, v, epochs=3, points=32)
    solution = bd.solve(problem, method, key=key)
    solution.std(), solution.velocity(0.5, x)
    ```

    Residuals fix the velocities only where paths go, and equations of this kind let an error in the tails of the
    density grow into its bulk. With interference, where $u$ and $v$ change rapidly in the tails, compare with
    [`SequentialScoreMatching`][bohmdiff.SequentialScoreMatching].

    **Arguments:**

    - `u`, `v`: modules `(t, x) -> (d,)` with arrays of real numbers as parameters, such as those of
        [`velocity_networks`][bohmdiff.velocity_networks].
    - `optimizer`: of optax. By default Gauss-Newton steps, see
        [`scale_by_gauss_newton`][bohmdiff.scale_by_gauss_newton], which take tens of epochs instead of thousands.
    - `epochs`: the number of updates in all, those before a resumption included.
    - `points`: how many paths, each of which is asked at one time.
    - `steps`: of a path, equal by the clock of the problem, which is slow while a narrow packet spreads.
    - `resample_every`: for how many epochs paths are kept, and asked at other times: 1 for fresh ones each
        epoch.
    - `initial_weight`: of the mean square of what is missing of the initial velocities, on the starts of the
        paths. It is nothing for networks with an exact start.
    - `outlier_scale`: a residual counts logarithmically beyond that many times the scale of the problem, so that
        a few points in the tails do not rule; `math.inf` for squares.
    - `validation_points`: how many paths, drawn once and moved by the fields of the moment, are asked for the
        mean square of the residuals every `validate_every` epochs.
    - `directory`, `checkpoint_every`, `keep`, `resume`, `most_skipped`: as for
        [`SelfConsistentScoreMatching`][bohmdiff.SelfConsistentScoreMatching].

    **Units:** those of the problem; loss and residuals have none. Moments have the shape `(K, d)`.

    **Returns** from [`solve`][bohmdiff.solve]: a [`VelocitySolution`][bohmdiff.VelocitySolution].

    **Raises:** `ValueError` for bad options, fields without anything to train, and checkpoints that are damaged
    or of another run; `TrainingDivergedError` if no update is finite any more or the current velocity loses
    particles, `TrainingNotSavedError` if log or checkpoint can't be written, both with the two fields as
    `fitted`.

    ??? cite "Reference"

        E. Orlova, A. Ustimenko, R. Jiang, P. Y. Lu and R. Willett, *Deep stochastic mechanics*, ICML (2024).
    """

    advice: ClassVar[str] = (
        "Paths escape, or the fields are too rough. Lower the learning rate, clip the steps "
        "(optax.clip_by_global_norm), raise the damping of Gauss-Newton, or pass an outlier_scale."
    )

    u: Callable[..., Array]
    v: Callable[..., Array]
    optimizer: optax.GradientTransformation = eqx.field(
        default_factory=lambda: optax.chain(
            scale_by_gauss_newton(damping=1e-4, decay=0.7),
            optax.clip_by_global_norm(10.0),
            optax.scale_by_learning_rate(optax.linear_schedule(0.05, 0.5, 10)),
        )
    )
    epochs: int = eqx.field(kw_only=True)
    points: int = 256
    steps: int = 32
    resample_every: int = 1
    initial_weight: float = 1.0
    outlier_scale: float = math.inf
    validate_every: int = 50
    validation_points: int = 256
    directory: str | Path | None = eqx.field(default=None, static=True)
    checkpoint_every: int = 50
    keep: int = 3
    resume: bool | int = False
    most_skipped: int = 20

    def __check_init__(self):
        for name in ("u", "v"):
            if not callable(getattr(self, name)):
                raise ValueError(
                    f"{name} must be a callable {name}(t, x) -> (d,), but {getattr(self, name)!r} was given."
                )
        if not any(jax.tree.leaves(trainable((self.u, self.v)))):
            raise ValueError(
                "u and v have no parameters that could be trained: their fields must have arrays of real numbers "
                "outside of frozen modules, as those of velocity_networks(problem, key=key)."
            )
        self.check_training()
        for name in ("points", "validation_points"):
            as_positive_integer(getattr(self, name), name, "Pass a number of paths.")
        as_positive_integer(self.steps, "steps", "Pass the number of steps of a path.")
        as_positive_integer(self.resample_every, "resample_every", "Pass a number of epochs.")
        if not 0 <= as_float(self.initial_weight, "initial_weight") < math.inf:
            raise ValueError(f"initial_weight must not be negative, but {self.initial_weight!r} was given.")
        if not as_float(self.outlier_scale, "outlier_scale") > 0:
            raise ValueError(f"outlier_scale must be positive, but {self.outlier_scale!r} was given.")

    def run(self, problem: Problem, ts: Times, *, key: Key | None, progress: bool) -> VelocitySolution:
        if key is None:
            raise ValueError("Training draws its paths at random and needs a key: key=jax.random.key(0).")
        key = as_key(key)
        epoch_key, validation_key, final_key = jax.random.split(key, 3)
        fields = (self.u, self.v)
        d = problem.dimension
        for name, field in zip("uv", fields, strict=True):
            check_output(field, (problem.t0, jnp.zeros(d, problem.dtype)), (d,), name)
        task = _Task(problem, SpreadingFrame.of(problem), self, validation_key, final_key)
        fields, epoch, history = self.train(fields, task, key, epoch_key, progress)
        try:
            return self.solution(problem, ts, fields, final_key, history)
        except ValueError as error:
            raise TrainingDivergedError(
                f"Training ended after epoch {epoch}, but the current velocity loses particles: {error} Both "
                "fields are kept as `fitted` of this error; train longer, or with smaller steps.",
                fields,
            ) from error

    def solution(
        self,
        problem: Problem,
        ts: Times,
        fields: tuple[Callable[..., Array], Callable[..., Array]],
        key: Key,
        history: str,
    ) -> VelocitySolution:
        """That of two fields, osmotic and current."""
        x0, weights = problem.initial.points(usual_particles(problem.dimension), key)
        return VelocitySolution.moved(problem, self, ts, fields, x0, weights, history)


class ResidualLoss(AbstractLoss):
    """The mean square of the scaled residuals at times and places, and of what is missing at the start."""

    problem: Problem
    frame: SpreadingFrame
    fixed: PyTree
    initial_weight: float
    outlier_scale: float

    def residuals(self, parameters: PyTree, point: Float[Array, " columns"]) -> Float[Array, " components"]:
        """All of one point: its time, its place, and where its path started."""
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

    def __call__(
        self, parameters: PyTree, x: Points, weights: Weights, key: Key
    ) -> tuple[Scalar, dict[str, Scalar]]:
        rows = jax.vmap(lambda point: self.residuals(parameters, point))(x)
        square = jnp.sum(rows**2, axis=1)
        scale = self.outlier_scale
        counted = square if math.isinf(scale) else scale**2 * jnp.log1p(square / scale**2)
        return weights @ counted, {}

    def residual_rows(
        self, parameters: PyTree, x: Points, weights: Weights, key: Key, projections: int
    ) -> PyTree:
        def rows_of(point: Vector, weight: Scalar, key: Key) -> PyTree:
            values, pull = jax.vjp(lambda p: self.residuals(p, point), parameters)
            trust = weight / (1 + jnp.sum(values**2) / self.outlier_scale**2)
            signs = jax.random.rademacher(key, (projections, values.size), values.dtype)
            return jax.vmap(lambda one: pull(one)[0])(signs * jnp.sqrt(trust / projections))

        rows = jax.vmap(rows_of)(x, weights, jax.random.split(key, x.shape[0]))
        return jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), rows)


class _Task(AbstractTask):
    """Paths under the fields of the moment, and one time on each."""

    shown: ClassVar[str] = "residual"

    problem: Problem
    frame: SpreadingFrame
    method: DeepStochasticMechanics
    validation_key: Key
    design_key: Key

    def loss(self, fixed: PyTree) -> ResidualLoss:
        method = self.method
        return ResidualLoss(
            problem=self.problem,
            frame=self.frame,
            fixed=fixed,
            initial_weight=method.initial_weight,
            outlier_scale=method.outlier_scale,
        )

    def remembered(self) -> PyTree:
        if self.method.resample_every == 1:
            return None
        d, dtype = self.problem.dimension, self.problem.dtype
        return jnp.zeros((self.method.points, self.method.steps + 1, d), dtype)

    def draw(
        self, trained: PyTree, remembered: PyTree, epoch: int, key: Key
    ) -> tuple[PyTree, Points, Weights]:
        paths_key, times_key = jax.random.split(key)
        method = self.method
        paths = remembered
        if paths is None or (epoch - 1) % method.resample_every == 0:
            paths = self._paths(trained, method.points, paths_key)
        points = _at_random_times(self.frame, paths, times_key)
        weights = jnp.full(method.points, 1 / method.points, points.dtype)
        return None if remembered is None else paths, points, weights

    def validate(self, trained: PyTree, devices: Devices) -> dict[str, float]:
        paths_key, times_key = jax.random.split(self.validation_key)
        paths = self._paths(trained, self.method.validation_points, paths_key)
        points = _at_random_times(self.frame, paths, times_key)
        residual = float(_mean_square(self.problem, self.frame, trained, points))

        def energies_at(ts: Times) -> Times:
            return self.method.solution(self.problem, ts, trained, self.design_key, "").energy()

        return {"residual": residual} | energy_figures(self.problem, energies_at)

    def settings(self) -> dict[str, str]:
        names = ("points", "steps", "resample_every", "initial_weight", "outlier_scale")
        return {name: text_of(getattr(self.method, name)) for name in names}

    def _paths(self, trained: PyTree, number: int, key: Key) -> Array:
        start_key, noise_key = jax.random.split(key)
        x0 = self.problem.initial.points(RandomPoints(number), start_key)[0].astype(self.problem.dtype)
        return _paths(self.problem, self.frame, trained, x0, self.method.steps, noise_key)


@eqx.filter_jit
def _paths(
    problem: Problem, frame: SpreadingFrame, fields: PyTree, x0: Points, steps: int, key: Key
) -> Float[Array, "M N d"]:
    osmotic, current = fields
    noise, backward, saved = jnp.ones((), x0.dtype), False, jnp.arange(steps + 1)
    return process_paths(
        problem.hamiltonian,
        osmotic,
        current,
        x0,
        _grid(frame, steps),
        saved,
        noise,
        backward,
        key,
        solver=diffrax.Euler(),
    )


def _grid(frame: SpreadingFrame, steps: int) -> Times:
    return jax.vmap(frame.time_at)(jnp.linspace(0.0, 1.0, steps + 1, dtype=frame.mean.dtype))


@eqx.filter_jit
def _at_random_times(
    frame: SpreadingFrame, paths: Float[Array, "M N d"], key: Key
) -> Float[Array, "M columns"]:
    number, times, _ = paths.shape
    index = jax.random.randint(key, (number,), 0, times)
    t = _grid(frame, times - 1)[index]
    return jnp.concatenate([t[:, None], paths[jnp.arange(number), index], paths[:, 0]], axis=1)


@eqx.filter_jit
def _mean_square(
    problem: Problem, frame: SpreadingFrame, fields: PyTree, points: Float[Array, "M columns"]
) -> Scalar:
    parameters, fixed = eqx.partition(fields, eqx.is_array)
    loss = ResidualLoss(
        problem=problem, frame=frame, fixed=fixed, initial_weight=1.0, outlier_scale=math.inf
    )
    return jnp.mean(jax.vmap(lambda point: jnp.sum(loss.residuals(parameters, point) ** 2))(points))
