"""Self-consistent score matching: train a score until its flow makes the density that it is the score of."""

import contextlib
import dataclasses
import signal
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import diffrax
import equinox as eqx
import jax
import optax
from jaxtyping import Array
from tqdm import tqdm

from ..._check import as_key, as_positive_integer, describe
from ..._types import Key, Points, Times, Weights
from ...flow import Devices, check_ensemble, check_integration
from ...objective import AbstractObjective, FisherDivergence
from ...problem import Problem
from ...score import require_gradient, trainable
from ...solution import FlowSolution
from ...solver import VelocityVerlet
from ...wavepacket import AbstractPoints, TruncatedPoints, as_design
from ..given_score import GivenScore
from ..method import AbstractMethod
from .record import Checkpoints, Log, UnwritableError, digest, text_of
from .update import Loss, TrainingDivergedError, TrainingNotSavedError, TrainingState, update
from .validation import largest_asymmetry, validate

_NOT_A_GRADIENT = 1e-3


class SelfConsistentScoreMatching(AbstractMethod):
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
    - `directory`: for `log.jsonl`, which has a line for every epoch, and `checkpoints/`. Nothing is
        written without one.
    - `checkpoint_every`, `keep`: how often a checkpoint is written, and how many of the last are kept.
    - `resume`: `True` goes on from the last checkpoint in `directory`, if there is one, and ends with the
        parameters that the run would have had without interruption, to the bit; a number goes on from
        the checkpoint of that epoch, and later ones are deleted.
    - `most_skipped`: an update from a loss or gradient that is not finite is skipped; so many in a row
        end the training with an error.

    Ctrl-C ends the training after the epoch that is running, with a checkpoint, and what has been reached
    is returned; pressed twice, at once.

    **Units:** those of the problem; the log has the Fisher divergence in 1 / length². Moments have the shape
    `(K, d)`.

    **Returns** from [`solve`][bohmdiff.solve]: a [`FlowSolution`][bohmdiff.FlowSolution]. Its moments come
    from particles, solver and steps like those of [`GivenScore`][bohmdiff.GivenScore], its `history` has
    what the log has.

    **Raises:** `ValueError` for bad options, a score without anything to train, and checkpoints that are
    damaged or of another run; `TrainingDivergedError` if no update is finite any more; `TrainingNotSavedError`
    if log or checkpoint can't be written.
    """

    score: Callable[..., Array]
    objective: AbstractObjective = FisherDivergence()
    optimizer: optax.GradientTransformation = eqx.field(
        default_factory=lambda: optax.chain(optax.clip_by_global_norm(1.0), optax.adam(1e-3))
    )
    epochs: int = eqx.field(kw_only=True)
    particles: int | AbstractPoints = 256
    steps: int = 64
    solver: diffrax.AbstractSolver = VelocityVerlet()
    times: int | None = None
    validate_every: int = 50
    validation_particles: int | AbstractPoints = 256
    directory: str | Path | None = eqx.field(default=None, static=True)
    checkpoint_every: int = 50
    keep: int = 3
    resume: bool | int = False
    most_skipped: int = 20

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
        if not isinstance(self.optimizer, optax.GradientTransformation):
            raise ValueError(
                f"optimizer must be of optax, such as optax.adam(1e-3), but {self.optimizer!r} was given."
            )
        for name in ("epochs", "validate_every", "checkpoint_every", "most_skipped"):
            as_positive_integer(getattr(self, name), name, "Pass a number of epochs.")
        as_positive_integer(self.keep, "keep", "Pass a number of checkpoints.")
        check_integration(self.solver, self.steps)
        as_design(self.particles, "particles")
        as_design(self.validation_particles, "validation_particles")
        if self.times is not None:
            as_positive_integer(self.times, "times", "Pass a number of times, or None for all.")
            if self.times > self.steps + 1:
                raise ValueError(
                    f"times must be at most steps + 1 = {self.steps + 1}, but {self.times} was given."
                )
        if not isinstance(self.resume, bool):
            as_positive_integer(self.resume, "resume", "Pass True, False, or the epoch of a checkpoint.")
        if self.resume and self.directory is None:
            raise ValueError("resume needs the directory of the run that shall go on: pass directory=...")

    def run(self, problem: Problem, ts: Times, *, key: Key | None, progress: bool) -> FlowSolution:
        if key is None:
            raise ValueError(
                "Training draws its particles at random and needs a key: key=jax.random.key(0)."
            )
        key = as_key(key)
        # Keys of their own, so that what happens in one epoch does not depend on those before.
        epoch_key, validation_key, final_key = jax.random.split(key, 3)
        x0, weights = problem.initial.points(
            as_design(self.validation_particles, "validation_particles"), validation_key
        )
        problem, score, x0 = check_ensemble(problem, self.score, x0)
        if self.objective.needs_gradient:
            require_gradient(score, problem.dimension, problem.dtype)
        _warn_unless_gradient(problem, score, x0)

        devices = Devices.for_training()
        if not devices.agree(int(digest((text_of(self), jax.random.key_data(key))), 16) % 2**31):
            raise ValueError(
                "The processes of a training were given different keys or options. Run the same program in each, "
                "with the same random key."
            )
        parameters, fixed = eqx.partition(score, trainable(score))
        state = TrainingState.initial(parameters, self.optimizer)
        validation = devices.divide(x0, weights)
        with contextlib.ExitStack() as stack:
            checkpoints = path = None
            if self.directory is not None:
                checkpoints = stack.enter_context(
                    contextlib.closing(self._checkpoints(problem, key, devices))
                )
                state, fixed = self._resumed(state, fixed, checkpoints)
                if not devices.agree(int(state.epoch)):
                    raise ValueError(
                        f"The processes see different checkpoints in {self.directory}. It must be a folder on a "
                        "file system that all of them share."
                    )
                # Only now has every process read what it needs.
                checkpoints.forget_after(int(state.epoch))
                path = Path(self.directory) / "log.jsonl"
            log = stack.enter_context(contextlib.closing(Log(path, int(state.epoch), devices.lead)))
            loss = Loss(problem, fixed, self.objective, self.solver, self.steps, self.times)
            state = self._train(state, loss, validation, epoch_key, devices, log, checkpoints, progress)
        score = eqx.combine(state.parameters, fixed)
        given = GivenScore(score, steps=max(self.steps, GivenScore.steps))
        try:
            solution = given.run(problem, ts, key=final_key, progress=False)
        except ValueError as error:
            raise TrainingDivergedError(
                f"Training ended after epoch {int(state.epoch)}, but the flow of the trained score loses "
                f"particles: {error} The score is kept as `fitted` of this error; train longer, or evaluate it "
                "with GivenScore on particles that lie less far out.",
                score,
            ) from error
        return dataclasses.replace(solution, method=self, _history=str(log))

    def _train(
        self,
        state: TrainingState,
        loss: Loss,
        validation: tuple[Points, Weights],
        key: Key,
        devices: Devices,
        log: Log,
        checkpoints: Checkpoints | None,
        progress: bool,
    ) -> TrainingState:
        design, initial, fixed = _training_design(self.particles), loss.problem.initial, loss.fixed
        state, loss = devices.copy((state, loss))
        start = time.perf_counter() - log.seconds
        first, fisher = int(state.epoch), "-"
        silent = not (progress and devices.lead)
        bar = tqdm(total=self.epochs, initial=first, disable=silent, unit="epoch")
        with bar, _interruptible() as interrupted:
            for epoch in range(first + 1, self.epochs + 1):
                points_key, update_key = jax.random.split(jax.random.fold_in(key, epoch))
                x0, weights = devices.divide(*initial.points(design, points_key))
                update_key = devices.copy(update_key)
                state, report = update(state, loss, self.optimizer, x0, weights, update_key)
                record = {
                    "epoch": epoch,
                    "loss": float(report.loss),
                    "gradient_norm": float(report.gradient_norm),
                    "masked_fraction": float(report.masked_fraction),
                    "minimum_determinant": float(report.minimum_determinant),
                    "skipped": int(state.skipped),
                }
                stop = devices.any_process(interrupted.is_set()) or epoch == self.epochs
                if stop or epoch % self.validate_every == 0 or epoch == 1:
                    score = eqx.combine(state.parameters, loss.fixed)
                    record |= validate(loss.problem, score, *validation, self.solver, self.steps)
                record["seconds"] = round(time.perf_counter() - start, 3)
                diverged = int(state.skipped_in_a_row) >= self.most_skipped
                kept = stop or diverged or epoch % self.checkpoint_every == 0
                try:
                    log.write(record)
                    if checkpoints is not None and kept:
                        checkpoints.save(devices.gather(state), fixed)
                except UnwritableError as error:
                    score = eqx.combine(devices.gather(state).parameters, fixed)
                    raise TrainingNotSavedError(self._what_is_not_saved(error, epoch), score) from error
                bar.update()
                fisher = f"{record['fisher']:.2e}" if "fisher" in record else fisher
                bar.set_postfix_str(f"loss {record['loss']:.2e}, fisher {fisher}")
                if diverged:
                    score = eqx.combine(devices.gather(state).parameters, fixed)
                    raise TrainingDivergedError(self._what_diverged(report, epoch), score)
                if stop:
                    break
        return devices.gather(state)

    def _checkpoints(self, problem: Problem, key: Key, devices: Devices) -> Checkpoints:
        """The folder of checkpoints, with what must be the same when one of them is used."""
        assert self.directory is not None
        settings = {
            "dimension": str(problem.dimension),
            "problem": digest(problem),
            "key": digest(jax.random.key_data(key)),
            "objective": text_of(self.objective),
            "particles": text_of(self.particles),
            "steps": str(self.steps),
            "times": str(self.times),
            "solver": type(self.solver).__name__,
        }
        return Checkpoints(Path(self.directory) / "checkpoints", self.keep, settings, devices.lead)

    def _resumed(
        self, state: TrainingState, fixed: Any, checkpoints: Checkpoints
    ) -> tuple[TrainingState, Any]:
        """The state from which to go on."""
        if self.resume is False:
            if checkpoints.epochs:
                raise ValueError(
                    f"{self.directory} already has checkpoints of epochs {checkpoints.epochs}. Pass "
                    "resume=True to go on with that run, or another directory."
                )
            return state, fixed
        if self.resume is True and not checkpoints.epochs:
            return state, fixed
        epoch = checkpoints.epochs[-1] if self.resume is True else int(self.resume)
        state, fixed = checkpoints.restore(state, fixed, epoch)
        if epoch > self.epochs:
            raise ValueError(
                f"The run in {self.directory} has {epoch} epochs already, but epochs={self.epochs} was "
                "given: pass at least as many."
            )
        return state, fixed

    def _what_is_not_saved(self, error: UnwritableError, epoch: int) -> str:
        return (
            f"{error} The training ends after epoch {epoch}, and the score it has reached is `fitted` of this "
            "error; earlier checkpoints are complete. Make room, or the folder writable, and go on with "
            "resume=True."
        )

    def _what_diverged(self, report: Any, epoch: int) -> str:
        saved = (
            "" if self.directory is None else f" The last good parameters are saved in {self.directory}."
        )
        return (
            f"No update was finite in the {self.most_skipped} epochs up to {epoch}: the loss is "
            f"{describe(report.loss)} and the norm of its gradient {describe(report.gradient_norm)}. Particles "
            "escape, or come close to caustics. Start closer to the solution (baseline=solve(problem, "
            "SequentialScoreMatching())), lower the learning rate, clip the gradient "
            "(optax.clip_by_global_norm), take particles that lie less far out (TruncatedPoints), or more "
            f"steps.{saved}"
        )


def _training_design(particles: int | AbstractPoints) -> AbstractPoints:
    if isinstance(particles, AbstractPoints):
        return particles
    return TruncatedPoints(as_design(particles, "particles"))


def _warn_unless_gradient(problem: Problem, score: Any, x0: Points) -> None:
    asymmetry = largest_asymmetry(problem, score, x0)
    if asymmetry > _NOT_A_GRADIENT:
        warnings.warn(
            f"The score is not a gradient: its Jacobian differs from its transpose by {asymmetry:.1e} of its "
            "size. The score of a density is one, so the Fisher divergence can't reach zero before that part "
            "is gone. Write the score as GradientScore(scalar) to keep it curl-free by construction.",
            stacklevel=4,
        )


@contextlib.contextmanager
def _interruptible() -> Iterator[threading.Event]:
    """The first Ctrl-C sets the event, so that nothing is left half done; the second raises."""
    interrupted = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield interrupted
        return
    before = signal.getsignal(signal.SIGINT)

    def handle(number: int, frame: Any) -> None:
        if interrupted.is_set():
            signal.signal(signal.SIGINT, before)
            raise KeyboardInterrupt
        interrupted.set()

    signal.signal(signal.SIGINT, handle)
    try:
        yield interrupted
    finally:
        signal.signal(signal.SIGINT, before)
