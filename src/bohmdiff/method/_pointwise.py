"""Losses that are sums over single points, and training on paths sampled from the current fields."""

import math
from abc import abstractmethod
from typing import Any, ClassVar

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from .._devices import Devices
from .._errors import ParticlesLostError, TrainingDivergedError
from .._types import Field, Key, Points, Scalar, Times, Vector, Weights
from ..network import SpreadingFrame
from ..problem import Problem
from ..solution import Solution
from ..stochastic import process_paths
from ..training import AbstractLoss, AbstractTask, Keys, Training, energy_figures, train
from ..wavepacket import AbstractDesign, RandomPoints, SobolPoints, StandardizedPoints
from ._field_solution import field_energies, moved

# Fields may have ripples that are finer than any grid of particles.
_SOLUTION_PARTICLES = StandardizedPoints(SobolPoints(8192))
_VALIDATION_PARTICLES = StandardizedPoints(SobolPoints(1024))

Columns = Float[Array, " columns"]
Rows = Float[Array, "M columns"]


class AbstractPointwiseLoss(AbstractLoss):
    """The mean square of residuals at single points. The layout of a row is up to the subclass."""

    outlier_scale: eqx.AbstractVar[float]

    @abstractmethod
    def residuals(self, parameters: PyTree, point: Columns) -> Float[Array, " components"]:
        """All residuals of one point, without units."""

    def mean_square(self, parameters: PyTree, points: Rows) -> Scalar:
        """The mean square of all residuals; outliers count in full."""
        return jnp.mean(jnp.sum(self._rows(parameters, points) ** 2, axis=1))

    def __call__(
        self, parameters: PyTree, x: Points, weights: Weights, key: Key
    ) -> tuple[Scalar, dict[str, Scalar]]:
        square = jnp.sum(self._rows(parameters, x) ** 2, axis=1)
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

    def _rows(self, parameters: PyTree, points: Rows) -> Float[Array, "M components"]:
        return jax.vmap(lambda point: self.residuals(parameters, point))(points)


class AbstractPointwiseTask(AbstractTask):
    """Residuals at single points: on paths of Nelson's process under the current fields, or elsewhere."""

    progress_metric: ClassVar[str] = "residual"

    problem: eqx.AbstractVar[Problem]
    frame: eqx.AbstractVar[SpreadingFrame]
    # It has `steps` of a path, and `validation_particles`.
    method: eqx.AbstractVar[Any]
    validation_key: eqx.AbstractVar[Key]
    design_key: eqx.AbstractVar[Key]

    @abstractmethod
    def loss(self, fixed: PyTree) -> AbstractPointwiseLoss:
        """The loss to minimise, given the parts that are not trained."""

    @abstractmethod
    def velocities(self, trained: PyTree) -> tuple[Field, Field]:
        """The osmotic and the current velocity, which drive the paths."""

    @abstractmethod
    def collocation(self, trained: PyTree, number: int, key: Key) -> Rows:
        """Fresh collocation points."""

    @abstractmethod
    def solution(
        self, trained: PyTree, ts: Times, x0: Points, weights: Weights, history: dict[str, Array]
    ) -> Solution:
        """The solution from trained fields, with particles that start at `x0`."""

    def solved(self, start: PyTree, training: Training, ts: Times, keys: Keys, progress: bool) -> Any:
        """Trains from the start to the end."""
        trained, epoch, history = train(start, self, training, keys, progress)
        try:
            return self.solution(trained, ts, *self._particles(_SOLUTION_PARTICLES), history)
        except ParticlesLostError as error:
            raise TrainingDivergedError(
                f"Training ended after epoch {epoch}, but the current velocity loses particles: {error} The "
                "trained fields are the `fitted` of this error. Train longer, or with smaller steps.",
                trained,
            ) from error

    def paths(self, trained: PyTree, number: int, key: Key) -> Float[Array, "M N d"]:
        """Fresh paths, at the start and after each step."""
        start_key, noise_key = jax.random.split(key)
        x0 = self.problem.initial.particles(RandomPoints(number), start_key)[0].astype(self.problem.dtype)
        return _paths(self.problem, self.frame, self.velocities(trained), x0, self.method.steps, noise_key)

    def on_paths(self, trained: PyTree, number: int, key: Key) -> Rows:
        """One point of each of `number` fresh paths."""
        paths_key, times_key = jax.random.split(key)
        return at_random_times(self.frame, self.paths(trained, number, paths_key), times_key)

    def validate(self, trained: PyTree, devices: Devices) -> dict[str, float]:
        trained = devices.gather(trained)
        points = self.collocation(trained, self.method.validation_particles, self.validation_key)
        parameters, fixed = eqx.partition(trained, eqx.is_array)
        residual = float(_mean_square(self.loss(fixed), parameters, points))

        osmotic, current = self.velocities(trained)
        x0, weights = self._particles(_VALIDATION_PARTICLES)

        def energies_at(ts: Times) -> Times:
            particles = moved(self.problem, current, x0, weights, ts)
            return field_energies(self.problem, osmotic, current, particles, ts)

        return {"residual": residual} | energy_figures(self.problem, energies_at)

    def _particles(self, design: AbstractDesign) -> tuple[Points, Weights]:
        x0, weights = self.problem.initial.particles(design, self.design_key)
        return x0, jnp.asarray(weights, x0.dtype)


@eqx.filter_jit
def at_random_times(frame: SpreadingFrame, paths: Float[Array, "M N d"], key: Key) -> Rows:
    """One point of each path: its time, its position, and the start of the path."""
    number, times, _ = paths.shape
    index = jax.random.randint(key, (number,), 0, times)
    t = _grid(frame, times - 1)[index]
    return jnp.concatenate([t[:, None], paths[jnp.arange(number), index], paths[:, 0]], axis=1)


@eqx.filter_jit
def _paths(
    problem: Problem, frame: SpreadingFrame, velocities: Any, x0: Points, steps: int, key: Key
) -> Float[Array, "M N d"]:
    osmotic, current = velocities
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


@eqx.filter_jit
def _mean_square(loss: AbstractPointwiseLoss, parameters: PyTree, points: Rows) -> Scalar:
    return loss.mean_square(parameters, points)


def _grid(frame: SpreadingFrame, steps: int) -> Times:
    return jax.vmap(frame.time_at)(jnp.linspace(0.0, 1.0, steps + 1, dtype=frame.mean.dtype))
