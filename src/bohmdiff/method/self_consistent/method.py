"""Self-consistent score matching: train a score until it is the score of the density of its own flow."""

import dataclasses
from collections.abc import Callable
from functools import lru_cache
from typing import Any, ClassVar

import diffrax
import equinox as eqx
import jax
import optax
from jaxtyping import Array, PyTree

from ..._check import as_positive_integer, warn
from ..._devices import Devices
from ..._errors import ParticlesLostError, TrainingDivergedError
from ..._text import text_of
from ..._types import Key, Points, Times, Weights
from ...flow import check_ensemble, check_integration
from ...network import trainable
from ...objective import AbstractObjective, FisherDivergence, squared_terms
from ...problem import Problem
from ...score import require_gradient
from ...solution import Diagnostics
from ...solver import BlanesMoan4
from ...training import (
    AbstractTask,
    Training,
    as_training,
    scale_by_gauss_newton,
    train,
    training_keys,
)
from ...wavepacket import AbstractDesign, TruncatedPoints, as_design
from ..given_score import FlowSolution
from ..given_score.method import GivenScore
from ..method import AbstractMethod
from ._loss import ObjectiveAt, ObjectiveLoss
from ._validation import largest_asymmetry, validate

_NOT_A_GRADIENT = 1e-3
# Numbers of an objective that a message shows.
_MOST_NUMBERS = 16


class SelfConsistentScoreMatching(AbstractMethod):
    r"""Trains a score by descent through the whole flow that it drives.

    In every epoch, fresh particles move under the score. They carry tangents, which give the
    density of this flow exactly. An objective measures how far the score is from the score of that density, and
    its gradient goes back through all steps, with recursive checkpoints. When the Fisher divergence is zero, the
    flow is the solution of the Schrödinger equation.

    ```python
    baseline = bd.solve(problem, bd.SequentialScoreMatching(degree=4))
    score = bd.NeuralScore(
        problem, baseline=baseline, width=8, key=jax.random.key(0)
    )
    method = bd.SelfConsistentScoreMatching(
        score, training=bd.Training(epochs=4), particles=64
    )
    solution = bd.solve(problem, method, key=jax.random.key(1))
    solution.history["fisher"]
    ```

    The start decides how long the training takes. A [`NeuralScore`][bohmdiff.NeuralScore] on top of a solution
    by [`SequentialScoreMatching`][bohmdiff.SequentialScoreMatching] starts close to the solution. From a harmonic
    baseline, half of the particles may be close to caustics at first.

    The default optimizer takes Gauss-Newton steps: [`scale_by_gauss_newton`][bohmdiff.scale_by_gauss_newton],
    clipped, with a rate that rises to one half and then falls as the cosine over `epochs`. It needs an objective
    that is a sum of squares, such as the default one, and at most 10,000 parameters. With
    [`LogDensityVariance`][bohmdiff.LogDensityVariance] and
    [`ImplicitScoreMatching`][bohmdiff.ImplicitScoreMatching], pass an optimizer: `Training(optax.adam(1e-3),
    epochs=1000)`.

    Particles are divided among all devices that JAX sees, in all processes that `jax.distributed` has joined
    (one processor in each process); their number need not be a multiple of the number of devices. Every process
    runs the same program with the same key. The first one writes, and all must be able to read `directory`.

    **Arguments:**

    - `score`: the score to train, any module `s(t, x) -> (d,)` with arrays of real numbers as parameters.
        Nothing inside a [`FrozenScore`][bohmdiff.FrozenScore] changes.
    - `objective`: e.g. [`FisherDivergence()`][bohmdiff.FisherDivergence], or a weighted sum of objectives.
    - `training`: the optimizer, the number of epochs, log and checkpoints: a [`Training`][bohmdiff.Training].
    - `particles`: the particles of each epoch, drawn afresh: a design, or the number of scrambled Sobol points,
        without the farthest thousandth of the probability ([`TruncatedPoints`][bohmdiff.TruncatedPoints]).
    - `steps`, `solver`: the number of equal steps and the solver of the flow, in training and validation.
    - `times`: if given, the objective is evaluated at a random subset of this size of the `steps + 1` times.
    - `validation_particles`: for the Fisher divergence, the mean energy and its drift in validations: a design,
        or the number of Sobol points, drawn once.
    - `solution_particles`: used for the moments of the returned solution, as the `particles` of
        [`GivenScore`][bohmdiff.GivenScore]. If the score has ripples or is inaccurate in the tails, pass a
        number of Sobol points.

    **Units:** those of the problem; the log has the Fisher divergence in 1 / length². Moments have the shape
    `(K, d)`.

    **Returns** from [`solve`][bohmdiff.solve]: a [`FlowSolution`][bohmdiff.FlowSolution]. Its solver is that of
    [`GivenScore`][bohmdiff.GivenScore], which also chooses its steps; its `history` is the log of the training.

    **Raises:** `ValueError` for bad options, a score without parameters, an objective that does not suit the
    optimizer, and checkpoints that are damaged or belong to another run;
    [`TrainingDivergedError`][bohmdiff.TrainingDivergedError] if updates are no longer finite;
    [`TrainingNotSavedError`][bohmdiff.TrainingNotSavedError] if log or checkpoint cannot be written.
    """

    score: Callable[..., Array]
    objective: AbstractObjective = eqx.field(default=FisherDivergence(), static=True)
    training: Training = eqx.field(kw_only=True)
    particles: int | AbstractDesign = eqx.field(default=256, static=True)
    steps: int = eqx.field(default=8, static=True)
    solver: diffrax.AbstractSolver = eqx.field(default=BlanesMoan4(), static=True)
    times: int | None = eqx.field(default=None, static=True)
    validation_particles: int | AbstractDesign = eqx.field(default=256, static=True)
    solution_particles: int | AbstractDesign | None = eqx.field(default=None, static=True)

    def __check_init__(self):
        if not callable(self.score):
            raise ValueError(f"score must be a callable s(t, x) -> (d,), but {self.score!r} was given.")
        if not any(jax.tree.leaves(trainable(self.score))):
            raise ValueError(
                f"{type(self.score).__name__} has no parameters to train: its fields must have arrays of real "
                "numbers outside frozen scores. For a score that is complete, use GivenScore."
            )
        if not isinstance(self.objective, AbstractObjective):
            raise ValueError(
                f"objective must be an objective such as FisherDivergence(), but {self.objective!r} was given."
            )
        if as_training(self.training).optimizer is None and not squared_terms(self.objective):
            raise ValueError(
                "The default optimizer takes Gauss-Newton steps, which need an objective that is a sum of "
                f"squares over single particles, such as FisherDivergence(), but {self.objective!r} was given. "
                "Pass another optimizer: training=Training(optax.adam(1e-3), epochs=1000)."
            )
        check_integration(self.solver, self.steps)
        as_design(self.particles, "particles")
        as_design(self.validation_particles, "validation_particles")
        if self.solution_particles is not None:
            as_design(self.solution_particles, "solution_particles")
        if self.times is not None:
            as_positive_integer(self.times, "times", "Pass a number of times, or None for all.")
            if self.times > self.steps + 1:
                raise ValueError(
                    f"times must be at most steps + 1 = {self.steps + 1}, but {self.times} was given."
                )

    def run(self, problem: Problem, ts: Times, *, key: Key | None, progress: bool) -> FlowSolution:
        keys = training_keys(key, "particles")
        x0, weights = problem.initial.particles(
            as_design(self.validation_particles, "validation_particles"), keys.validation
        )
        problem, score, x0 = check_ensemble(problem, self.score, x0)
        if self.objective.needs_gradient:
            require_gradient(score, problem.dimension, problem.dtype)
        _warn_unless_gradient(problem, score, x0)

        task = _Task(problem, (x0, weights), self)
        score, epoch, history = train(score, task, self.training, keys, progress)
        given = GivenScore(score, self.solution_particles)
        try:
            solution = given.run(problem, ts, key=keys.solution, progress=False)
        except ParticlesLostError as error:
            raise TrainingDivergedError(
                f"Training ended after epoch {epoch}, but the flow of the trained score loses "
                f"particles: {error} The score is the `fitted` of this error. Train longer, or evaluate it "
                "with GivenScore on particles that reach less far out.",
                score,
            ) from error
        # The history tells how good the score is.
        kept = {name: solution.diagnostics[name] for name in ("time step", "runaways")}
        figures = Diagnostics(kept, ts, problem.t1)
        return dataclasses.replace(solution, method=self, diagnostics=figures, _history=history)


class _Task(AbstractTask):
    """Fresh particles in every epoch, and an objective along the flow."""

    progress_metric: ClassVar[str] = "fisher"
    advice: ClassVar[str] = (
        "Particles escape, or come close to caustics. Start closer to the solution (baseline=solve(problem, "
        "SequentialScoreMatching())), lower the learning rate, clip the gradient (optax.clip_by_global_norm), "
        "use particles that reach less far out (TruncatedPoints), or more steps."
    )

    problem: Problem
    validation: tuple[Points, Weights]
    method: SelfConsistentScoreMatching

    def default_optimizer(self, epochs: int) -> optax.GradientTransformation:
        return default_optimizer(epochs)

    def loss(self, fixed: PyTree) -> ObjectiveLoss:
        method = self.method
        return ObjectiveLoss(
            self.problem, fixed, method.objective, method.solver, method.steps, method.times
        )

    def carry(self) -> None:
        return None

    def draw(self, trained: PyTree, carry: None, epoch: int, key: Key) -> tuple[None, Points, Weights]:
        return None, *self.problem.initial.particles(_training_design(self.method.particles), key)

    def validate(self, trained: PyTree, devices: Devices) -> dict[str, float]:
        x0, weights = devices.divide(*self.validation)
        return validate(self.problem, trained, x0, weights, self.method.solver, self.method.steps)

    def settings(self) -> dict[str, Any]:
        return {name: getattr(self.method, name) for name in ("particles", "steps", "times", "solver")}

    def functions(self, trained: PyTree) -> dict[str, tuple[str, Callable[..., Array]]]:
        objective = self.method.objective
        return {
            "score": (type(trained).__name__, trained),
            "objective": (text_of(objective, _MOST_NUMBERS), ObjectiveAt(self.problem, trained, objective)),
        }


# One object for each number of epochs: compiled code is cached for each optimizer object.
@lru_cache
def default_optimizer(epochs: int) -> optax.GradientTransformation:
    """Takes up to half of the step that solves the linearised problem; less in the end, to average."""
    rate = optax.warmup_cosine_decay_schedule(0.1, 0.5, min(6, epochs // 4), epochs, 0.01)
    return optax.chain(
        scale_by_gauss_newton(damping=3e-6),
        optax.clip_by_global_norm(6.0),
        optax.scale_by_learning_rate(rate),
    )


def _training_design(particles: int | AbstractDesign) -> AbstractDesign:
    if isinstance(particles, AbstractDesign):
        return particles
    return TruncatedPoints(as_design(particles, "particles"))


def _warn_unless_gradient(problem: Problem, score: Any, x0: Points) -> None:
    asymmetry = largest_asymmetry(problem, score, x0)
    if asymmetry > _NOT_A_GRADIENT:
        warn(
            f"The score is not a gradient: its Jacobian differs from its transpose by {asymmetry:.1e} of its "
            "size. The score of a density is a gradient, so the Fisher divergence cannot reach zero while this "
            "part remains. Write the score as GradientScore(scalar) to keep it curl-free by construction.",
        )
