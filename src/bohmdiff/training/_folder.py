"""The folder of a training: which names it may have, and that only one training at a time writes to it."""

import os
import re
from pathlib import Path

from .._check import warn

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")
# Orbax takes names with these for patterns or addresses, and can't read what it has written there.
_UNREADABLE = re.compile(r"[\\\[\]*?\0\ud800-\udfff]|:$")


def folder_of(directory: str | Path) -> Path:
    """The folder that `directory` names, without links; `ValueError` if checkpoints can't be kept there."""
    given = os.path.expanduser(directory)
    if _ADDRESS.match(given):
        raise ValueError(
            f"directory must be a folder of this machine, but the address {given!r} was given. Train into a "
            "folder, and copy it to that address afterwards."
        )
    if given.startswith("~"):
        raise ValueError(f"directory must be a folder, but there is no home for {given!r}. Check the name.")
    folder = Path(os.path.abspath(given) if "\0" in given else os.path.realpath(given))
    for name in folder.parts[1:]:
        if _UNREADABLE.search(name):
            raise ValueError(
                f"directory must be a folder from which checkpoints can be read again, but in {str(folder)!r} "
                f"the name {name!r} has one of the characters \\ [ ] * ?, ends with a colon, or is not text. "
                "Rename it."
            )
    return folder


class FolderLock:
    """Held until it is closed, or until the process ends in any way. A second one for the same folder is refused
    at once, in this process too."""

    def __init__(self, folder: Path, name: str):
        self._file = (folder / ".lock").open("a")
        try:
            if fcntl is None:
                raise OSError("this system has no fcntl")
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._file.close()
            raise ValueError(
                f"Another training is writing to {name}. Wait until it ends, or train into another directory."
            ) from None
        except OSError as error:
            warn(
                f"{name} can't be locked ({error}). Make sure that no other training writes to it meanwhile."
            )

    def close(self) -> None:
        # A forked copy of this process would hold it longer.
        if fcntl is not None and not self._file.closed:
            fcntl.flock(self._file, fcntl.LOCK_UN)
        self._file.close()
