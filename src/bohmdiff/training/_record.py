"""What a run leaves on disk: a log with a line for every epoch, and the last few checkpoints."""

import contextlib
import hashlib
import json
import math
import os
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from jaxtyping import PyTree

from .._text import text_of
from ._update import TrainingState, is_key

# The version of the description that is written with the arrays; raise it when its meaning changes.
_FORMAT = 1


class UnwritableError(Exception):
    """Something could not be written to disk."""


class Log:
    """A file of JSON lines, one for each epoch, which one process `writes`; in memory as well, and only there
    without a path."""

    def __init__(self, path: Path | None, epochs_done: int, writes: bool):
        self.lines: list[str] = []
        self._file = None
        if path is None:
            return
        try:
            if path.exists():
                # What was written after the checkpoint that a run goes on from will be written again, and
                # the last line may be torn.
                lines = path.read_text(errors="replace").splitlines()
                self.lines = [line for line in lines if _epoch_of(line) <= epochs_done]
            if not writes:
                return
            unfinished = path.with_suffix(".unfinished")
            unfinished.write_text("".join(line + "\n" for line in self.lines))
            os.replace(unfinished, path)
            self._file = path.open("a")
        except OSError as error:
            raise ValueError(f"The log can't be written to {path} ({_first_line(error)}).") from error

    @property
    def seconds(self) -> float:
        """How long the epochs took that are in the log."""
        return float(json.loads(self.lines[-1]).get("seconds", 0.0)) if self.lines else 0.0

    def write(self, record: dict[str, Any]) -> None:
        # JSON has no numbers that are not finite.
        known = {
            name: None if isinstance(value, float) and not math.isfinite(value) else value
            for name, value in record.items()
        }
        line = json.dumps(known, allow_nan=False)
        self.lines.append(line)
        if self._file is not None:
            try:
                self._file.write(line + "\n")
                self._file.flush()
            except OSError as error:
                raise UnwritableError(f"The log can't be written ({_first_line(error)}).") from error

    def close(self) -> None:
        if self._file is not None:
            # What could not be written has been said already.
            with contextlib.suppress(OSError):
                self._file.close()

    def __str__(self) -> str:
        return "\n".join(self.lines)


def _epoch_of(line: str) -> float:
    try:
        return float(json.loads(line)["epoch"])
    except (ValueError, KeyError, TypeError):
        return float("inf")


class Checkpoints:
    """The last few states of a run in a folder, written by orbax: each is there completely or not at all.

    Of several processes one `writes`; all read, each for itself.
    """

    def __init__(self, folder: Path, keep: int, settings: dict[str, str], writes: bool):
        self.folder, self.settings, self._writes = folder.resolve(), settings, writes
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ValueError(
                f"directory must be a folder that can be written to, but {folder.parent} can't be "
                f"({_first_line(error)})."
            ) from error
        this = jax.process_index()
        options = ocp.CheckpointManagerOptions(
            max_to_keep=keep,
            create=False,
            read_only=not writes,
            cleanup_tmp_directories=writes,
            enable_async_checkpointing=False,
            # What is saved is the same in all processes, so none has to wait for another.
            multiprocessing_options=ocp.options.MultiprocessingOptions(
                primary_host=this, active_processes={this}, barrier_sync_key_prefix=f"process_{this}"
            ),
        )
        self._manager = ocp.CheckpointManager(self.folder, options=options)

    @property
    def epochs(self) -> list[int]:
        """The epochs that have a checkpoint, in order."""
        return sorted(self._manager.all_steps())

    def save(self, state: TrainingState, fixed: PyTree) -> None:
        epoch = int(state.epoch)
        if not self._writes or epoch in self.epochs:
            return
        arrays = _arrays((state, fixed))
        named = {f"{number:04d}": array for number, array in enumerate(arrays.values())}
        description = {"format": _FORMAT, "settings": self.settings, "arrays": _describe(arrays)}
        try:
            self._manager.save(
                epoch,
                args=ocp.args.Composite(
                    arrays=ocp.args.StandardSave(named), description=ocp.args.JsonSave(description)
                ),
            )
        except Exception as error:
            raise UnwritableError(
                f"The checkpoint of epoch {epoch} can't be written to {self.folder} ({_first_line(error)})."
            ) from error

    def restore(self, like: TrainingState, fixed: PyTree, epoch: int) -> tuple[TrainingState, PyTree]:
        """The state at an epoch."""
        if epoch not in self.epochs:
            raise ValueError(
                f"There is no checkpoint of epoch {epoch} in {self.folder}, only of {self.epochs}."
            )
        others = [one for one in self.epochs if one != epoch]
        instead = (
            f"resume={others[-1]} goes on from the one before" if others else "resume=False starts anew"
        )
        tree = (like, fixed)
        arrays = _arrays(tree)
        template = {
            f"{number:04d}": jax.ShapeDtypeStruct(array.shape, array.dtype)
            for number, array in enumerate(arrays.values())
        }
        where = f"The checkpoint of epoch {epoch} in {self.folder}"
        try:
            description = self._manager.restore(
                epoch, args=ocp.args.Composite(description=ocp.args.JsonRestore())
            )["description"]
            saved_settings, saved_arrays = dict(description["settings"]), list(description["arrays"])
            saved_format = int(description["format"])
        except Exception as error:
            raise ValueError(
                f"{where} can't be read ({_first_line(error)}). It is damaged or was not written by this "
                f"method: {instead}, or delete its folder."
            ) from error
        if saved_format > _FORMAT:
            raise ValueError(
                f"{where} was written by a newer version of bohmdiff, in format {saved_format}; this one reads "
                f"up to {_FORMAT}. Update bohmdiff, or train into another directory."
            )
        for name, value in self.settings.items():
            if saved_settings.get(name) != value:
                both = "" if name in DIGESTS else f" ({saved_settings.get(name)} there, {value} here)"
                raise ValueError(
                    f"{where} belongs to another run: its {name} is not the same{both}. Go on with the "
                    "same, or train into another directory."
                )
        wanted = _describe(arrays)
        if saved_arrays != wanted:
            first = next(
                (f"{a} there, {b} here" for a, b in zip(saved_arrays, wanted, strict=False) if a != b),
                f"{len(saved_arrays)} arrays there, {len(wanted)} here",
            )
            raise ValueError(
                f"{where} is of another score or optimizer: {first}. Go on with the same ones, or train into "
                "another directory."
            )
        try:
            restored = self._manager.restore(
                epoch, args=ocp.args.Composite(arrays=ocp.args.StandardRestore(template))
            )["arrays"]
            values = [np.asarray(restored[name]) for name in template]
        except Exception as error:
            raise ValueError(
                f"{where} can't be read ({_first_line(error)}). It is damaged: {instead}, or delete its folder."
            ) from error
        dynamic, static = eqx.partition(tree, eqx.is_array)
        likes, structure = jax.tree.flatten(dynamic)
        leaves = [
            jax.random.wrap_key_data(jnp.asarray(value), impl=jax.random.key_impl(one))
            if is_key(one)
            else jnp.asarray(value)
            for value, one in zip(values, likes, strict=True)
        ]
        return eqx.combine(jax.tree.unflatten(structure, leaves), static)

    def forget_after(self, epoch: int) -> None:
        """Deletes later checkpoints: those of the run that goes on from here take their place."""
        for one in self.epochs if self._writes else []:
            if one > epoch:
                self._manager.delete(one)

    def close(self) -> None:
        self._manager.close()


DIGESTS = ("problem", "key")


def digest(tree: PyTree) -> str:
    """Some letters that stand for a tree with the values of all its arrays."""
    out = hashlib.sha256(text_of(tree, 0).encode())
    for array in _arrays(tree).values():
        out.update(np.ascontiguousarray(array).tobytes())
    return out.hexdigest()[:16]


def _arrays(tree: PyTree) -> dict[str, np.ndarray]:
    """All arrays by their path; of random keys, their data."""
    leaves = jax.tree_util.tree_leaves_with_path(eqx.filter(tree, eqx.is_array))
    return {
        jax.tree_util.keystr(path): np.asarray(jax.random.key_data(leaf) if is_key(leaf) else leaf)
        for path, leaf in leaves
    }


def _describe(arrays: dict[str, np.ndarray]) -> list[str]:
    return [f"{path} {array.dtype}{list(array.shape)}" for path, array in arrays.items()]


def _first_line(error: Exception) -> str:
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0][:200] if text else ''}"
