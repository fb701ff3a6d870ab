"""Self-consistent score matching: train a score until its flow makes the density that it is the score of."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import diffrax
import equinox as eqx
import jax
import optax
from jaxtyping import Array, PyTree

from ..._check import as_positive_integer, warn
from ..._devices import Devices
from ..._errors import TrainingDivergedError
from ..._types import Key, Points, Times, Weights
from ...flow import check_ensemble, check_integration
from ...network import trainable
from ...objective import AbstractObjective, FisherDivergence
from ...problem import Problem
from ...score import require_gradient
from ...solver import VelocityVerlet
from ...training import AbstractTask, AbstractTrainedMethod, text_of, training_keys
from ...wavepacket import AbstractDesign, TruncatedPoints, as_design
from ..given_score import FlowSolution
from ..given_score.method import GivenScore
from ._loss import ObjectiveLoss
from ._validation import largest_asymmetry, validate

_NOT_A_GRADIENT = 1e-3


class SelfConsistentScoreMatching(AbstractTrainedMethod):
    r"""Trains a score by gradient descent through the whole flow that it drives.

    In every epoch fresh particles move under the score, with tangents from which the density that this
    flow makes is known exactly; an objective measures how far the score is from the score of that
    density; and its gradient goes back through all steps, with recursive checkpoints. When the Fisher
    divergence is zero, the flow is the solution of the Schrödinger equation.

    ```python
    baseline = bd.solve(problem, bd.SequentialScoreMatching(degree=4))
    score = bd.NeuralScore(problem, baseline=baseline, key=jax.random.key(0))
    method = bd.SelfConsistentScoreMatching(score, bd.LogDensityVariance(), epochs=20, particles=64)
    solution = bd.solve(problem, method, key=jax.random.key(1))
    solution.history["fisher"]
    ```

    Where to start decides how long it takes: a [`NeuralScore`][bohmdiff.NeuralScore] on top of a solution
    by [`SequentialScoreMatching`][bohmdiff.SequentialScoreMatching] is most of the way there, while from
    a harmonic baseline half of the particles may be close to caustics at first.

    Particles are divided among all devices that JAX sees, in all processes that `jax.distributed` has joined
    (of processors one in each process); their number need not be a multiple. Every process runs the same
    program with the same key, the first of them writes, and `directory` is a folder that all can read.

    **Arguments:**

    - `score`: what is trained, any module `s(t, x) -> (d,)` with arrays of real numbers as parameters.
        Nothing inside a [`FrozenScore`][bohmdiff.FrozenScore] changes.
    - `objective`: e.g. [`FisherDivergence()`][bohmdiff.FisherDivergence], or a weighted sum of some.
    - `optimizer`: of optax: any, chained with gradient clipping and schedules as you like. It is given the
        loss as `value`, as `optax.contrib.reduce_on_plateau` wants it.
    - `epochs`: the number of updates in all, those before a resumption included.
    - `particles`: for each epoch, drawn afresh: a design of points, or a number of scrambled Sobol
        points, without the thousandth of the probability that lies farthest out
        ([`TruncatedPoints`][bohmdiff.TruncatedPoints]).
    - `steps`, `solver`: of the flow, in training and validation.
    - `times`: if given, the objective is evaluated at a random subset of so many of the `steps + 1` times.
    - `validation_particles`: on which the Fisher divergence, the mean energy and its drift are found
        every `validate_every` epochs and at the end: drawn once, a design, or a number of Sobol points.
    - `solution_particles`: that the solution has its moments of, as the `particles` of
        [`GivenScore`][bohmdiff.GivenScore]. Where fields have ripples or the tails are not known well, pass a
        number of Sobol points.
    - `directory`: for `log.jsonl`, which has a line for every epoch, and `checkpoints/`. Nothing is
        written without one.
    - `checkpoint_every`, `keep`: how often a checkpoint is written, and how many of the last are kept.
    - `resume`: `True` goes on from the last checkpoint in `directory`, if there is one, and ends with the
        parameters that the run would have had without interruption, to the bit; a number goes on from
        the checkpoint of that epoch, and later ones are deleted.
    - `max_skipped`: an update from a loss or gradient that is not finite is skipped; so many in a row
        end the training with an error.

    Ctrl-C ends the training after the epoch that is running, with a checkpoint, and what has been reached
    is returned; pressed twice, at once.

    **Units:** those of the problem; the log has the Fisher divergence in 1 / length². Moments have the shape
    `(K, d)`.

    **Returns** from [`solve`][bohmdiff.solve]: a [`FlowSolution`][bohmdiff.FlowSolution]. Its solver and steps
    are like those of [`GivenScore`][bohmdiff.GivenScore], its `history` has what the log has.

    **Raises:** `ValueError` for bad options, a score without anything to train, and checkpoints that are
    damaged or of another run; `TrainingDivergedError` if no update is finite any more; `TrainingNotSavedError`
    if log or checkpoint can't be written.
    """

    advice: ClassVar[str] = (
        "Particles escape, or come close to caustics. Start closer to the solution (baseline=solve(problem, "
        "SequentialScoreMatching())), lower the learning rate, clip the gradient (optax.clip_by_global_norm), "
        "take particles that lie less far out (TruncatedPoints), or more steps."
    )

    score: Callable[..., Array]
    objective: AbstractObjective = FisherDivergence()
    optimizer: optax.GradientTransformation = eqx.field(
        default_factory=lambda: optax.chain(optax.clip_by_global_norm(1.0), optax.adam(1e-3))
    )
    epochs: int = eqx.field(kw_only=True)
    particles: int | AbstractDesign = 256
    steps: int = 64
    solver: diffrax.AbstractSolver = VelocityVerlet()
    times: int | None = None
    validate_every: int = 50
    validation_particles: int | AbstractDesign = 256
    solution_particles: int | AbstractDesign | None = None
    directory: str | Path | None = eqx.field(default=None, static=True)
    checkpoint_every: int = 50
    keep: int = 3
    resume: bool | int = False
    max_skipped: int = 20

    def __check_init__(self):
        if not callable(self.score):
            raise ValueError(f"score must be a callable s(t, x) -> (d,), but {self.score!r} was given.")
        if not any(jax.tree.leaves(trainable(self.score))):
            raise ValueError(
                f"{type(self.score).__name__} has no parameters that could be trained: its fields must have "
                "arrays of real numbers outside of frozen scores. A score that is complete is for GivenScore."
            )
        if not isinstance(self.objective, AbstractObjective):
            raise ValueError(
                f"objective must be an objective such as FisherDivergence(), but {self.objective!r} was given."
            )
        self.check_training()
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
        key, epoch_key, validation_key, final_key = training_keys(key, "particles")
        x0, weights = problem.initial.particles(
            as_design(self.validation_particles, "validation_particles"), validation_key
        )
        problem, score, x0 = check_ensemble(problem, self.score, x0)
        if self.objective.needs_gradient:
            require_gradient(score, problem.dimension, problem.dtype)
        _warn_unless_gradient(problem, score, x0)

        task = _Task(problem, (x0, weights), self)
        score, epoch, history = self.train(score, task, key, epoch_key, progress)
        given = GivenScore(score, self.solution_particles, steps=max(self.steps, GivenScore.steps))
        try:
            solution = given.run(problem, ts, key=final_key, progress=False)
        except ValueError as error:
            raise TrainingDivergedError(
                f"Training ended after epoch {epoch}, but the flow of the trained score loses "
                f"particles: {error} The score is kept as `fitted` of this error; train longer, or evaluate it "
                "with GivenScore on particles that lie less far out.",
                score,
            ) from error
        return dataclasses.replace(solution, method=self, _history=history)


class _Task(AbstractTask):
    """Fresh particles in every epoch, and an objective along the flow."""

    progress_metric: ClassVar[str] = "fisher"

    problem: Problem
    validation: tuple[Points, Weights]
    method: SelfConsistentScoreMatching

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

    def settings(self) -> dict[str, str]:
        method = self.method
        return {
            "objective": text_of(method.objective),
            "particles": text_of(method.particles),
            "steps": str(method.steps),
            "times": str(method.times),
            "solver": type(method.solver).__name__,
        }


def _training_design(particles: int | AbstractDesign) -> AbstractDesign:
    if isinstance(particles, AbstractDesign):
        return particles
    return TruncatedPoints(as_design(particles, "particles"))


def _warn_unless_gradient(problem: Problem, score: Any, x0: Points) -> None:
    asymmetry = largest_asymmetry(problem, score, x0)
    if asymmetry > _NOT_A_GRADIENT:
        warn(
            f"The score is not a gradient: its Jacobian differs from its transpose by {asymmetry:.1e} of its "
            "size. The score of a density is one, so the Fisher divergence can't reach zero before that part "
            "is gone. Write the score as GradientScore(scalar) to keep it curl-free by construction.",
        )
