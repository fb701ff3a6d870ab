"""Training, whatever is trained: epochs, log, checkpoints, and how a run ends."""

import contextlib
import dataclasses
import signal
import threading
import time
from abc import abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import equinox as eqx
import jax
import optax
from jaxtyping import PyTree
from tqdm import tqdm

from .._check import as_key, as_positive_integer, describe
from .._devices import Devices
from .._errors import TrainingDivergedError, TrainingNotSavedError
from .._types import Key, Points, Weights
from ..method.method import AbstractMethod
from ..network import trainable
from ..problem import Problem
from ._record import Checkpoints, Log, UnwritableError, digest, text_of
from ._update import AbstractLoss, TrainingState, update


class AbstractTask(eqx.Module):
    """What the training of a method asks of it: particles for every epoch, a loss, and how good the result is."""

    # Of what `validate` finds, the figure that the progress bar shows.
    progress_metric: ClassVar[str]

    problem: eqx.AbstractVar[Problem]

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
        """Figures that say how good it is, on particles that stay the same."""

    @abstractmethod
    def settings(self) -> dict[str, str]:
        """What must be the same when a run goes on, by name."""


class Trained(NamedTuple):
    """What was trained, and a line of JSON for every epoch."""

    result: Any
    epoch: int
    history: str


def training_keys(key: Key | None, what: str) -> tuple[Key, Key, Key, Key]:
    """The key that a run was given, and one each for its epochs, its validation and its solution."""
    if key is None:
        raise ValueError(f"Training draws its {what} at random and needs a key: key=jax.random.key(0).")
    key = as_key(key)
    epoch_key, validation_key, final_key = jax.random.split(key, 3)
    return key, epoch_key, validation_key, final_key


class AbstractTrainedMethod(AbstractMethod):
    """A method with parameters that are found by descent; each explains the options that are declared here."""

    # What to do when no update is finite any more.
    advice: ClassVar[str]

    optimizer: eqx.AbstractVar[optax.GradientTransformation]
    epochs: eqx.AbstractVar[int]
    validate_every: eqx.AbstractVar[int]
    directory: eqx.AbstractVar[str | Path | None]
    checkpoint_every: eqx.AbstractVar[int]
    keep: eqx.AbstractVar[int]
    resume: eqx.AbstractVar[bool | int]
    max_skipped: eqx.AbstractVar[int]

    def check_training(self) -> None:
        """Raises for options that are not allowed."""
        if not isinstance(self.optimizer, optax.GradientTransformation):
            raise ValueError(
                f"optimizer must be of optax, such as optax.adam(1e-3), but {self.optimizer!r} was given."
            )
        for name in ("epochs", "validate_every", "checkpoint_every", "max_skipped"):
            as_positive_integer(getattr(self, name), name, "Pass a number of epochs.")
        as_positive_integer(self.keep, "keep", "Pass a number of checkpoints.")
        if not isinstance(self.resume, bool):
            as_positive_integer(self.resume, "resume", "Pass True, False, or the epoch of a checkpoint.")
        if self.resume and self.directory is None:
            raise ValueError("resume needs the directory of the run that shall go on: pass directory=...")

    def train(self, start: PyTree, task: AbstractTask, key: Key, epoch_key: Key, progress: bool) -> Trained:
        """Trains all that is trainable of `start`, on all devices of all processes.

        `key` is the one that the whole run was given, and that of the epochs comes from it.
        """
        devices = Devices.for_training()
        if not devices.agree(int(digest((text_of(self), jax.random.key_data(key))), 16) % 2**31):
            raise ValueError(
                "The processes of a training were given different keys or options. Run the same program in "
                "each, with the same random key."
            )
        parameters, fixed = eqx.partition(start, trainable(start))
        state = TrainingState.initial(parameters, self.optimizer, task.carry())
        with contextlib.ExitStack() as stack:
            checkpoints = path = None
            if self.directory is not None:
                checkpoints = stack.enter_context(contextlib.closing(self._checkpoints(task, key, devices)))
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
            state = self._epochs(state, fixed, task, epoch_key, devices, log, checkpoints, progress)
        return Trained(eqx.combine(state.parameters, fixed), int(state.epoch), str(log))

    def _epochs(
        self,
        state: TrainingState,
        fixed: PyTree,
        task: AbstractTask,
        key: Key,
        devices: Devices,
        log: Log,
        checkpoints: Checkpoints | None,
        progress: bool,
    ) -> TrainingState:
        state, loss = devices.copy((state, task.loss(fixed)))
        start = time.perf_counter() - log.seconds
        first, figure = int(state.epoch), "-"
        silent = not (progress and devices.lead)
        bar = tqdm(total=self.epochs, initial=first, disable=silent, unit="epoch")
        with bar, _interruptible() as interrupted:
            for epoch in range(first + 1, self.epochs + 1):
                draw_key, update_key = jax.random.split(jax.random.fold_in(key, epoch))
                # Every process draws the same, for itself.
                parameters, carry = devices.gather((state.parameters, state.carry))
                trained = eqx.combine(parameters, fixed)
                carry, x, weights = task.draw(trained, carry, epoch, draw_key)
                state = dataclasses.replace(state, carry=devices.copy(carry))
                x, weights = devices.divide(x, weights)
                state, report = update(state, loss, self.optimizer, x, weights, devices.copy(update_key))
                record = {"epoch": epoch, "loss": float(report.loss)}
                record |= {"gradient_norm": float(report.gradient_norm)}
                record |= {name: float(value) for name, value in report.figures.items()}
                record |= {"skipped": int(state.skipped)}
                stop = devices.any_process(interrupted.is_set()) or epoch == self.epochs
                if stop or epoch % self.validate_every == 0 or epoch == 1:
                    record |= task.validate(eqx.combine(state.parameters, loss.fixed), devices)
                record["seconds"] = round(time.perf_counter() - start, 3)
                diverged = int(state.skipped_in_a_row) >= self.max_skipped
                kept = stop or diverged or epoch % self.checkpoint_every == 0
                try:
                    log.write(record)
                    if checkpoints is not None and kept:
                        checkpoints.save(devices.gather(state), fixed)
                except UnwritableError as error:
                    reached = eqx.combine(devices.gather(state).parameters, fixed)
                    raise TrainingNotSavedError(_what_is_not_saved(error, epoch), reached) from error
                bar.update()
                figure = f"{record[task.progress_metric]:.2e}" if task.progress_metric in record else figure
                bar.set_postfix_str(f"loss {record['loss']:.2e}, {task.progress_metric} {figure}")
                if diverged:
                    reached = eqx.combine(devices.gather(state).parameters, fixed)
                    raise TrainingDivergedError(self._what_diverged(report, epoch), reached)
                if stop:
                    break
        return devices.gather(state)

    def _checkpoints(self, task: AbstractTask, key: Key, devices: Devices) -> Checkpoints:
        """The folder of checkpoints, with what must be the same when one of them is used."""
        assert self.directory is not None
        settings = {
            "dimension": str(task.problem.dimension),
            "problem": digest(task.problem),
            "key": digest(jax.random.key_data(key)),
        }
        settings |= task.settings()
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

    def _what_diverged(self, report: Any, epoch: int) -> str:
        saved = (
            "" if self.directory is None else f" The last good parameters are saved in {self.directory}."
        )
        return (
            f"No update was finite in the {self.max_skipped} epochs up to {epoch}: the loss is "
            f"{describe(report.loss)} and the norm of its gradient {describe(report.gradient_norm)}. "
            f"{self.advice}{saved}"
        )


def _what_is_not_saved(error: UnwritableError, epoch: int) -> str:
    return (
        f"{error} The training ends after epoch {epoch}, and what it has reached is `fitted` of this error; "
        "earlier checkpoints are complete. Make room, or the folder writable, and go on with resume=True."
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
