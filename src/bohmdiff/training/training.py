"""The options that all trainings share."""

from pathlib import Path
from typing import Any

import equinox as eqx
import optax

from .._check import as_positive_integer
from ._folder import folder_of


class Training(eqx.Module):
    """How a method trains: its optimizer, how long, and where it keeps its log and checkpoints.

    ```python
    training = bd.Training(epochs=30, directory="run", resume=True)
    method = bd.SelfConsistentScoreMatching(score, training=training)
    adam = bd.Training(optax.adam(1e-3), epochs=1000)
    ```

    The same object serves [`SelfConsistentScoreMatching`][bohmdiff.SelfConsistentScoreMatching],
    [`DeepStochasticMechanics`][bohmdiff.DeepStochasticMechanics] and
    [`PhysicsInformedNetwork`][bohmdiff.PhysicsInformedNetwork].

    Ctrl-C ends a training after the current epoch, with a checkpoint if there is a `directory`, and
    [`solve`][bohmdiff.solve] returns what was reached. A second Ctrl-C stops at once.

    **Arguments:**

    - `optimizer`: an optax transformation, chained with clipping and schedules as you like. It gets the loss
        as `value`, which `optax.contrib.reduce_on_plateau` and line searches need. `None` is the default of
        the method: Gauss-Newton steps, see [`scale_by_gauss_newton`][bohmdiff.scale_by_gauss_newton].
    - `epochs`: the total number of updates, including those before a resumption. There is no default: 20 to
        60 are often enough with Gauss-Newton steps; first-order optimizers need hundreds or thousands.
    - `directory`: the folder in which to write `log.jsonl`, with one line for each epoch, and `checkpoints/`. One
        training at a time writes to it. Without one, nothing is written.
    - `resume`: `True` continues from the last checkpoint in `directory` if there is one, and ends with the
        same parameters, to the bit, as a run that was never interrupted. A number continues from the
        checkpoint of that epoch and deletes later ones. Problem, score, objective and optimizer must have the
        same values as before.
    - `validate_every`: the number of epochs between validations. The first and the last epoch always have one.
    - `checkpoint_every`: the number of epochs between checkpoints. The last epoch always has one.
    - `keep`: how many of the latest checkpoints to keep.
    - `max_skipped`: an update whose loss, gradient or step is not finite is skipped. This many in a row end the
        training with an error.

    **Units:** none.

    **Raises:** `ValueError` for options that are not allowed, and for a `directory` from which checkpoints could
    not be read again.
    """

    optimizer: optax.GradientTransformation | None = eqx.field(default=None, static=True)
    epochs: int = eqx.field(kw_only=True, static=True)
    directory: str | Path | None = eqx.field(default=None, kw_only=True, static=True)
    resume: bool | int = eqx.field(default=False, kw_only=True, static=True)
    validate_every: int = eqx.field(default=10, kw_only=True, static=True)
    checkpoint_every: int = eqx.field(default=10, kw_only=True, static=True)
    keep: int = eqx.field(default=3, kw_only=True, static=True)
    max_skipped: int = eqx.field(default=20, kw_only=True, static=True)

    def __check_init__(self):
        if self.optimizer is not None and not isinstance(self.optimizer, optax.GradientTransformation):
            raise ValueError(
                f"optimizer must be an optax transformation such as optax.adam(1e-3), or None for the default of "
                f"the method, but {self.optimizer!r} was given."
            )
        for name in ("epochs", "validate_every", "checkpoint_every", "max_skipped"):
            as_positive_integer(getattr(self, name), name, "Pass a number of epochs.")
        as_positive_integer(self.keep, "keep", "Pass a number of checkpoints.")
        if self.directory is not None and not isinstance(self.directory, str | Path):
            raise ValueError(f"directory must be a path, but {self.directory!r} was given.")
        if self.directory is not None:
            folder_of(self.directory)
        if not isinstance(self.resume, bool):
            as_positive_integer(self.resume, "resume", "Pass True, False, or the epoch of a checkpoint.")
        if self.resume and self.directory is None:
            raise ValueError("resume needs the directory of the run to continue: pass directory=...")


def as_training(training: Any) -> Training:
    """`training`, if it is one."""
    if not isinstance(training, Training):
        raise ValueError(
            f"training must be the options of a training, such as Training(epochs=30), but {training!r} was "
            "given."
        )
    return training
