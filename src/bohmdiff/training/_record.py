"""What a run leaves on disk: a log with a line for every epoch, and the last few checkpoints."""

import contextlib
import hashlib
import itertools
import json
import math
import os
import shutil
import uuid
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NoReturn

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from jaxtyping import PyTree

from .._check import warn
from .._text import text_of
from ._folder import FolderLock, folder_of
from ._identity import Values
from ._update import TrainingState, is_key

# The version of what is written with the arrays; raise it when its meaning changes.
_FORMAT = 2
_SUMS = "sha256.json"
# Where these are in the arrays of a checkpoint.
_PARAMETERS, _OPTIMIZER = "[0].parameters", "[0].optimizer"


class UnwritableError(Exception):
    """Something could not be written to disk."""


class Log:
    """A file of JSON lines, one for each epoch, which one process `writes`; in memory as well, and only there
    without a path.

    `digest` is what it was at `epochs_done`, if that is known. The log of another run is `foreign`.
    """

    def __init__(
        self, path: Path | None, epochs_done: int, writes: bool, digest: str = "", foreign: bool = False
    ):
        self.lines: list[str] = []
        self._file = None
        if path is None:
            return
        try:
            before = path.read_bytes() if path.exists() else b""
            epochs = [(_epoch_of(line), line) for line in before.split(b"\n")]
            # What was written after the checkpoint that a run goes on from will be written again.
            known = {epoch: line.decode() for epoch, line in epochs if epoch}
            self.lines = [known[epoch] for epoch in sorted(known) if epoch <= epochs_done]
            if not writes:
                return
            lost = _what_is_lost(known, epochs_done)
            if foreign and before:
                self._tell(path, before, "belongs to an earlier run that has no checkpoint")
            elif digest != self.digest and (lost or digest):
                unknown = any(line and not epoch for epoch, line in epochs)
                self._tell(
                    path, before if unknown else b"", lost or "was changed, so its figures may be wrong"
                )
            # The name can't be guessed, and nothing is written through a link.
            unfinished = path.with_name(f".{uuid.uuid4().hex}.tmp")
            with unfinished.open("x", newline="\n") as file:
                file.writelines(line + "\n" for line in self.lines)
            os.replace(unfinished, path)
            self._file = path.open("a", newline="\n")
        except OSError as error:
            raise ValueError(f"The log can't be written to {path} ({_first_line(error)}).") from error

    @property
    def digest(self) -> str:
        """Letters that stand for all its lines."""
        return hashlib.sha256("\n".join(self.lines).encode()).hexdigest()

    @property
    def seconds(self) -> float:
        """How long the epochs took that are in the log."""
        return float(json.loads(self.lines[-1]).get("seconds") or 0.0) if self.lines else 0.0

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

    def _tell(self, path: Path, before: bytes, what: str) -> None:
        """Warns, and keeps under another name what would be lost."""
        kept = ""
        if before:
            for number in itertools.count(1):
                other = path.with_name(f"{path.stem}.{number}{path.suffix}")
                with contextlib.suppress(FileExistsError), other.open("xb") as file:
                    file.write(before)
                    kept = f" The file as it was is kept as {other.name}."
                    break
        warn(f"{path} {what}. The training itself is not affected.{kept}")


def _epoch_of(line: bytes) -> int:
    """The epoch of a line of a log; 0 if it is not one."""
    try:
        record = json.loads(line)
        epoch = record["epoch"]
        figures = [0.0 if value is None else value for value in record.values()]
        sound = type(epoch) is int and all(isinstance(one, int | float) for one in figures)
        return max(epoch, 0) if sound and [float(one) for one in figures] else 0
    except (ValueError, LookupError, TypeError, AttributeError, OverflowError, RecursionError):
        return 0


def _what_is_lost(known: Iterable[int], epochs_done: int) -> str:
    missing = sorted(set(range(1, epochs_done + 1)) - set(known))
    if not missing:
        return ""
    runs = itertools.groupby(enumerate(missing), lambda pair: pair[1] - pair[0])
    spans = [[epoch for _, epoch in run] for _, run in runs]
    said = ", ".join(f"{one[0]}" if len(one) == 1 else f"{one[0]} to {one[-1]}" for one in spans)
    return f"was damaged or cut: it has no line, nor has `history`, for epoch {said}"


class Checkpoints:
    """The last few states of a run in a folder, written by orbax: each is there completely or not at all.

    Of several processes one `writes`; all read, each for itself. `settings` must be the same when a run goes on,
    and so must the `values` of what is trained, given its parameters and what is fixed of it.
    """

    def __init__(
        self,
        folder: Path,
        keep: int,
        settings: dict[str, str],
        writes: bool,
        values: Callable[[PyTree, PyTree], dict[str, Values]] = lambda parameters, fixed: {},
    ):
        self.folder, self.settings, self._writes = folder_of(folder), settings, writes
        self._keep, self._values = keep, values
        # What is not complete yet, and what is about to be deleted.
        self._aside = self.folder / ".unfinished"
        # Of the log, at the epoch that was restored.
        self.log_digest = ""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with contextlib.ExitStack() as stack:
                if writes:
                    stack.enter_context(contextlib.closing(FolderLock(self.folder, str(folder.parent))))
                    shutil.rmtree(self._aside, ignore_errors=True)
                    self._aside.mkdir(exist_ok=True)
                    self._manager = stack.enter_context(contextlib.closing(_manager(self._aside)))
                self._open = stack.pop_all()
        except OSError as error:
            raise ValueError(
                f"directory must be a folder that can be written to, but {folder.parent} can't be "
                f"({_first_line(error)})."
            ) from error

    @property
    def epochs(self) -> list[int]:
        """The epochs that have a checkpoint, in order."""
        found = [path for path in self.folder.iterdir() if path.name.isdecimal() and path.is_dir()]
        return sorted(int(path.name) for path in found if path.name == str(int(path.name)))

    def save(self, state: TrainingState, fixed: PyTree, log: str = "") -> None:
        """Writes the state, with the digest of the log up to here."""
        epoch = int(state.epoch)
        if not self._writes or epoch in self.epochs:
            return
        arrays = _arrays((state, fixed))
        named = {f"{number:04d}": array for number, array in enumerate(arrays.values())}
        values = self._values(state.parameters, fixed)
        description = {
            "format": _FORMAT,
            "settings": self.settings,
            "values": {name: one.as_json() for name, one in values.items()},
            "arrays": _describe(arrays),
            "log": log,
        }
        try:
            self._manager.save(
                epoch,
                args=ocp.args.Composite(
                    arrays=ocp.args.StandardSave(named), description=ocp.args.JsonSave(description)
                ),
            )
            written = self._aside / str(epoch)
            (written / _SUMS).write_text(json.dumps(_sums(written)))
            if (self.folder / str(epoch)).exists():
                self._delete(epoch)
            # Not before now is it complete.
            os.rename(written, self.folder / str(epoch))
            self._manager.reload()
            for one in self.epochs[: -self._keep]:
                self._delete(one)
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
        description = self._description(epoch)
        for name, value in self.settings.items():
            there = description["settings"].get(name)
            if there != value:
                self._refuse(epoch, name, str(there), value)
        tree = (like, fixed)
        arrays = _arrays(tree)
        wanted, saved = _describe(arrays), description["arrays"]
        if saved != wanted:
            first = next(((a, b) for a, b in zip(saved, wanted, strict=False) if a != b), None)
            there, here = first or (f"{len(saved)} arrays", f"{len(wanted)} arrays")
            # The parameters come before the optimizer.
            of_optimizer = not there.startswith(_PARAMETERS) and not here.startswith(_PARAMETERS)
            of_optimizer &= there.startswith(_OPTIMIZER) or here.startswith(_OPTIMIZER)
            if of_optimizer:
                self._refuse(epoch, "optimizer", "", "")
            self._refuse(epoch, "score", there, here)
        template = {
            f"{number:04d}": jax.ShapeDtypeStruct(array.shape, array.dtype)
            for number, array in enumerate(arrays.values())
        }
        try:
            with contextlib.closing(_manager(self.folder)) as manager:
                args = ocp.args.Composite(arrays=ocp.args.StandardRestore(template))
                restored = manager.restore(epoch, args=args)["arrays"]
            values = [np.asarray(restored[name]) for name in template]
        except Exception as error:
            self._damaged(epoch, _first_line(error), error)
        dynamic, static = eqx.partition(tree, eqx.is_array)
        likes, structure = jax.tree.flatten(dynamic)
        leaves = [
            jax.random.wrap_key_data(jnp.asarray(value), impl=jax.random.key_impl(one))
            if is_key(one)
            else jnp.asarray(value)
            for value, one in zip(values, likes, strict=True)
        ]
        state, restored_fixed = eqx.combine(jax.tree.unflatten(structure, leaves), static)
        for name, here in self._values(state.parameters, fixed).items():
            there = Values.from_json(description["values"][name])
            if not here.same_as(there):
                self._refuse(epoch, name, there.called, here.called)
        self.log_digest = description["log"]
        return state, restored_fixed

    def forget_after(self, epoch: int) -> None:
        """Deletes later checkpoints: those of the run that goes on from here take their place."""
        try:
            for one in self.epochs if self._writes else []:
                if one > epoch:
                    self._delete(one)
        except OSError as error:
            raise ValueError(
                f"The checkpoints after epoch {epoch} in {self.folder} can't be deleted ({_first_line(error)})."
            ) from error

    def close(self) -> None:
        self._open.close()

    def _delete(self, epoch: int) -> None:
        # At once for whoever looks, also if the process is killed meanwhile.
        going = self._aside / f"{epoch}.{uuid.uuid4().hex}"
        os.rename(self.folder / str(epoch), going)
        shutil.rmtree(going, ignore_errors=True)

    def _description(self, epoch: int) -> dict[str, Any]:
        """What was written with the arrays, after a look at every byte of the checkpoint."""
        folder = self.folder / str(epoch)
        try:
            description = json.loads((folder / "description" / "metadata").read_bytes())
            its_format, sealed = int(description["format"]), (folder / _SUMS).exists()
            sums = json.loads((folder / _SUMS).read_bytes()) if sealed else {}
            here = _sums(folder)
            changed = next((name for name, value in sums.items() if here.get(name) != value), None)
        except Exception as error:
            self._damaged(epoch, _first_line(error), error)
        if its_format > _FORMAT:
            raise ValueError(
                f"{self._where(epoch)} was written by a newer version of bohmdiff, in format {its_format}; this "
                f"one reads up to {_FORMAT}. Update bohmdiff. If you have no newer version, the checkpoint is "
                f"damaged: {self._instead(epoch)}, or delete its folder."
            )
        if its_format == 1 and not sealed:
            raise ValueError(
                f"{self._where(epoch)} was written by an older version of bohmdiff and has no checksums. Go on "
                "with that version, or train into another directory."
            )
        if changed is not None or not sealed:
            self._damaged(
                epoch, f"the checksum of {changed} is not right" if changed else "it has no checksums"
            )
        return description

    def _damaged(self, epoch: int, why: str, error: Exception | None = None) -> NoReturn:
        raise ValueError(
            f"{self._where(epoch)} can't be read ({why}). It is damaged or was not written by this method: "
            f"{self._instead(epoch)}, or delete its folder."
        ) from error

    def _refuse(self, epoch: int, name: str, there: str, here: str) -> NoReturn:
        both = "" if there == here or name in DIGESTS else f" ({there} there, {here} here)"
        raise ValueError(
            f"{self._where(epoch)} belongs to another run: its {name} is not the same{both}. Go on with the "
            "same, or train into another directory."
        )

    def _where(self, epoch: int) -> str:
        return f"The checkpoint of epoch {epoch} in {self.folder}"

    def _instead(self, epoch: int) -> str:
        others = [one for one in self.epochs if one != epoch]
        return (
            f"resume={others[-1]} goes on from the one before" if others else "train into another directory"
        )


def _manager(folder: Path) -> ocp.CheckpointManager:
    this = jax.process_index()
    options = ocp.CheckpointManagerOptions(
        create=False,
        enable_async_checkpointing=False,
        # What is saved is the same in all processes, so none has to wait for another.
        multiprocessing_options=ocp.options.MultiprocessingOptions(
            primary_host=this, active_processes={this}, barrier_sync_key_prefix=f"process_{this}"
        ),
    )
    return ocp.CheckpointManager(folder, options=options)


def _sums(folder: Path) -> dict[str, str]:
    """The checksum of every file in a checkpoint."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path != folder / _SUMS)
    sums = {}
    for path in files:
        with path.open("rb") as file:
            sums[path.relative_to(folder).as_posix()] = hashlib.file_digest(file, "sha256").hexdigest()
    return sums


# Settings that say nothing to a reader.
DIGESTS = ("key",)


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
