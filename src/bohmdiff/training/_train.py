"""Training, whatever is trained: epochs, log, checkpoints, and how a run ends."""

import contextlib
import dataclasses
import math
import time
from abc import abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple

import equinox as eqx
import jax
import optax
from jaxtyping import Array, PyTree

from .._check import as_key, describe, warn
from .._closure import name_of
from .._devices import Devices
from .._errors import TrainingDivergedError, TrainingNotSavedError
from .._text import text_of
from .._types import Key, Points, Weights
from ..network import trainable
from ..problem import Problem
from ._folder import folder_of
from ._history import history_of
from ._identity import (
    Values,
    in_words,
    places_of,
    values_of,
    values_of_activations,
    values_of_optimizer,
    values_of_problem,
)
from ._interrupt import interruptible
from ._progress import Progress
from ._record import Checkpoints, Log, UnwritableError, digest
from ._update import AbstractLoss, Report, TrainingState, update
from .training import Training

# The matrix of Gauss-Newton steps takes 0.8 GB in double precision then, and each epoch factorises it.
_MOST_PARAMETERS = 10_000
_SOME_EPOCHS = 100


class AbstractTask(eqx.Module):
    """What the training of a method asks of it: particles for every epoch, a loss, and how good the result is."""

    # Of what `validate` finds, the figure that the progress bar shows.
    progress_metric: ClassVar[str]
    # What to do when no update is finite any more.
    advice: ClassVar[str]

    problem: eqx.AbstractVar[Problem]

    @abstractmethod
    def default_optimizer(self, epochs: int) -> optax.GradientTransformation:
        """Gauss-Newton steps, for a `Training` without an optimizer; the same object for the same number."""

    @abstractmethod
    def loss(self, fixed: PyTree) -> AbstractLoss:
        """What is minimised, given what is not trained."""

    @abstractmethod
    def carry(self) -> PyTree:
        """Arrays that go on from epoch to epoch, and are in checkpoints; None if there are none."""

    @abstractmethod
    def draw(self, trained: PyTree, carry: PyTree, epoch: int, key: Key) -> tuple[PyTree, Points, Weights]:
        """The new carry, and particles with their weights, for an epoch."""

    @abstractmethod
    def validate(self, trained: PyTree, devices: Devices) -> dict[str, float]:
        """Figures that say how good it is, on particles that stay the same; NaN where particles were lost."""

    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """Options that must be the same when a run goes on, by name."""

    @abstractmethod
    def functions(self, trained: PyTree) -> dict[str, tuple[str, Callable[..., Array]]]:
        """Functions of a time and a place whose values must be the same when a run goes on, by name: what is
        trained, and for what. Each with what a message calls it."""


class Keys(NamedTuple):
    """The key that a run was given, and one each for its epochs, its validation and its solution."""

    run: Key
    epochs: Key
    validation: Key
    solution: Key


def training_keys(key: Key | None, what: str) -> Keys:
    """The keys of a run that draws `what` at random."""
    if key is None:
        raise ValueError(f"Training draws its {what} at random and needs a key: key=jax.random.key(0).")
    key = as_key(key)
    return Keys(key, *jax.random.split(key, 3))


class Trained(NamedTuple):
    """What was trained, for how many epochs, and the figures of the log by name."""

    result: Any
    epoch: int
    history: dict[str, Array]


def train(start: PyTree, task: AbstractTask, training: Training, keys: Keys, progress: bool) -> Trained:
    """Trains all that is trainable of `start`, on all devices of all processes."""
    devices = Devices.for_training()
    settings = _settings(task, keys)
    options = text_of((training, start, settings), 0)
    if not devices.agree(int(digest((options, jax.random.key_data(keys.run))), 16) % 2**31):
        raise ValueError(
            "The processes of a training were given different keys or options. Run the same program in "
            "each, with the same random key."
        )
    parameters, fixed = eqx.partition(start, trainable(start))
    optimizer = training.optimizer
    if optimizer is None:
        _require_few(parameters)
        optimizer = task.default_optimizer(training.epochs)
    state = TrainingState.initial(parameters, optimizer, task.carry())
    with contextlib.ExitStack() as stack:
        checkpoints, path, digest_of_log = None, None, ""
        if training.directory is not None:
            directory = folder_of(training.directory)
            checkpoints = Checkpoints(
                directory / "checkpoints",
                training.keep,
                settings,
                devices.lead,
                _values(training, task, start, parameters),
            )
            stack.enter_context(contextlib.closing(checkpoints))
            state, fixed = _resumed(training, state, fixed, checkpoints)
            if not devices.agree(int(state.epoch)):
                raise ValueError(
                    f"The processes see different checkpoints in {training.directory}. It must be a folder on a "
                    "file system that all of them share."
                )
            # Only now has every process read what it needs.
            checkpoints.forget_after(int(state.epoch))
            path, digest_of_log = directory / "log.jsonl", checkpoints.log_digest
        foreign = training.resume is False
        log = Log(path, int(state.epoch), devices.lead, digest_of_log, foreign)
        stack.enter_context(contextlib.closing(log))
        run = _Run(training, task, optimizer, fixed, keys.epochs, devices, log, checkpoints)
        state = run.epochs(state, progress)
    return Trained(eqx.combine(state.parameters, fixed), int(state.epoch), history_of(log.lines))


@dataclasses.dataclass(frozen=True)
class _Run:
    """A training, without what changes from epoch to epoch."""

    training: Training
    task: AbstractTask
    optimizer: optax.GradientTransformation
    fixed: PyTree
    key: Key
    devices: Devices
    log: Log
    checkpoints: Checkpoints | None

    def epochs(self, state: TrainingState, progress: bool) -> TrainingState:
        """All epochs that are missing, or fewer after Ctrl-C."""
        training, devices = self.training, self.devices
        first, metric, figure, told = int(state.epoch), self.task.progress_metric, "-", False
        state, loss = devices.copy((state, self.task.loss(self.fixed)))
        start = time.perf_counter() - self.log.seconds
        shown = Progress(first, training.epochs, silent=not (progress and devices.lead))
        with contextlib.closing(shown), interruptible(self._what_ctrl_c_does()) as interrupted:
            for epoch in range(first + 1, training.epochs + 1):
                state, report = self._update(state, loss, epoch)
                record = {"epoch": epoch, "loss": float(report.loss)}
                record |= {"gradient_norm": float(report.gradient_norm)}
                record |= {name: float(value) for name, value in report.figures.items()}
                record |= {"skipped": int(state.skipped)}
                stop = devices.any_process(interrupted.is_set()) or epoch == training.epochs
                if stop or epoch % training.validate_every == 0 or epoch == 1:
                    validation = self.task.validate(eqx.combine(state.parameters, loss.fixed), devices)
                    told = told or _tell_what_is_missing(validation, epoch)
                    record |= validation
                record["seconds"] = round(time.perf_counter() - start, 3)
                diverged = int(state.skipped_in_a_row) >= training.max_skipped
                kept = stop or diverged or epoch % training.checkpoint_every == 0
                try:
                    self.log.write(record)
                    if self.checkpoints is not None and kept:
                        self.checkpoints.save(devices.gather(state), self.fixed, self.log.digest)
                except UnwritableError as error:
                    message = _what_is_not_saved(error, epoch)
                    raise TrainingNotSavedError(message, self._reached(state)) from error
                figure = f"{record[metric]:.2e}" if metric in record else figure
                shown.update(epoch, f"loss {record['loss']:.2e}, {metric} {figure}")
                if diverged:
                    raise TrainingDivergedError(self._what_diverged(report, epoch), self._reached(state))
                if stop:
                    break
        return devices.gather(state)

    def _update(self, state: TrainingState, loss: AbstractLoss, epoch: int) -> tuple[TrainingState, Report]:
        devices = self.devices
        draw_key, update_key = jax.random.split(jax.random.fold_in(self.key, epoch))
        # Every process draws the same, for itself.
        parameters, carry = devices.gather((state.parameters, state.carry))
        trained = eqx.combine(parameters, self.fixed)
        carry, x, weights = self.task.draw(trained, carry, epoch, draw_key)
        state = dataclasses.replace(state, carry=devices.copy(carry))
        x, weights = devices.divide(x, weights)
        return update(state, loss, self.optimizer, x, weights, devices.copy(update_key))

    def _reached(self, state: TrainingState) -> PyTree:
        return eqx.combine(self.devices.gather(state).parameters, self.fixed)

    def _what_ctrl_c_does(self) -> str:
        saves = "" if self.checkpoints is None else "saves a checkpoint, "
        return (
            f"Ctrl-C: the training finishes this epoch, {saves}and returns what it has reached. "
            "Press Ctrl-C again to stop at once."
        )

    def _what_diverged(self, report: Report, epoch: int) -> str:
        directory = self.training.directory
        saved = "" if directory is None else f" The last good parameters are saved in {directory}."
        return (
            f"No update was finite in the {self.training.max_skipped} epochs up to {epoch}: the loss is "
            f"{describe(report.loss)} and the norm of its gradient {describe(report.gradient_norm)}. "
            f"{self.task.advice}{saved}"
        )


def _settings(task: AbstractTask, keys: Keys) -> dict[str, str]:
    """What must be the same when a run goes on, in words."""
    problem = task.problem
    numbers = {
        "t0": problem.t0,
        "t1": problem.t1,
        "mass": problem.hamiltonian.mass,
        "hbar": problem.hamiltonian.hbar,
    }
    settings = {"dimension": problem.dimension, "problem": numbers} | task.settings()
    words = {name: in_words(value) for name, value in settings.items()}
    return words | {"key": digest(jax.random.key_data(keys.run))}


def _values(
    training: Training, task: AbstractTask, start: PyTree, parameters: PyTree
) -> Callable[[PyTree, PyTree], dict[str, Values]]:
    """The values that must be the same when a run goes on, of parameters and what is fixed."""
    problem, places = task.problem, places_of(task.problem)
    # The default optimizer may depend on the number of epochs, which may grow.
    optimizer = training.optimizer or task.default_optimizer(_SOME_EPOCHS)
    always = values_of_problem(problem, name_of(problem.hamiltonian.potential), places) | {
        "optimizer": values_of_optimizer(optimizer, parameters),
        "activation": values_of_activations(start),
    }

    def values(parameters: PyTree, fixed: PyTree) -> dict[str, Values]:
        functions = task.functions(eqx.combine(parameters, fixed))
        return always | {name: values_of(*one, places) for name, one in functions.items()}

    return values


def _require_few(parameters: PyTree) -> None:
    """The default optimizer is for few parameters."""
    number = sum(leaf.size for leaf in jax.tree.leaves(parameters))
    if number > _MOST_PARAMETERS:
        raise ValueError(
            f"There are {number:,} parameters to train. The default optimizer takes Gauss-Newton steps, which "
            f"factorise a matrix of {number:,} rows, and accepts at most {_MOST_PARAMETERS:,} parameters. Pass a "
            "first-order optimizer, such as Training(optax.adam(1e-3), epochs=1000), or a smaller network."
        )


def _resumed(
    training: Training, state: TrainingState, fixed: Any, checkpoints: Checkpoints
) -> tuple[TrainingState, Any]:
    """The state from which to go on."""
    if training.resume is False:
        if checkpoints.epochs:
            raise ValueError(
                f"{training.directory} already has checkpoints of epochs {checkpoints.epochs}. Pass "
                "resume=True to go on with that run, or another directory."
            )
        return state, fixed
    if training.resume is True and not checkpoints.epochs:
        return state, fixed
    epoch = checkpoints.epochs[-1] if training.resume is True else int(training.resume)
    state, fixed = checkpoints.restore(state, fixed, epoch)
    if epoch > training.epochs:
        raise ValueError(
            f"The run in {training.directory} has {epoch} epochs already, but epochs={training.epochs} was "
            "given: pass at least as many."
        )
    return state, fixed


def _tell_what_is_missing(figures: dict[str, float], epoch: int) -> bool:
    """Warns if a validation lost particles, and returns whether it did."""
    missing = [name for name, value in figures.items() if not math.isfinite(value)]
    if missing:
        warn(
            f"The validation after epoch {epoch} lost particles, so the log has no {', '.join(missing)} there. "
            "The training continues, and later validations may succeed. If they do not, take more steps, or "
            "start closer to the solution. This warning comes once."
        )
    return bool(missing)


def _what_is_not_saved(error: UnwritableError, epoch: int) -> str:
    return (
        f"{error} The training ends after epoch {epoch}, and what it has reached is `fitted` of this error; "
        "earlier checkpoints are complete. Make room, or the folder writable, and go on with resume=True."
    )
