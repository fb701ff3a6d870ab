"""Ctrl-C during a training."""

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator
from typing import Any

from tqdm import tqdm

# No signal has this number.
_END = 0


@contextlib.contextmanager
def interruptible(message: str) -> Iterator[threading.Event]:
    """The first Ctrl-C prints `message` on stderr and sets the event, so that nothing is left half done. The
    second raises `KeyboardInterrupt`."""
    interrupted, insistent = threading.Event(), threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield interrupted
        return

    def handle(number: int, frame: Any) -> None:
        if interrupted.is_set() or insistent.is_set():
            signal.signal(signal.SIGINT, before)
            raise KeyboardInterrupt
        interrupted.set()

    # Python calls its handlers between two of its own instructions, so not while XLA compiles or computes.
    # The message must not wait for that: a thread reads from a pipe which signals have come.
    read, write = os.pipe()
    os.set_blocking(write, False)

    def watch() -> None:
        presses = 0
        while (number := os.read(read, 1)[0]) != _END:
            presses += number == signal.SIGINT
            if number == signal.SIGINT and presses == 1:
                tqdm.write(message, file=sys.stderr)
            # Two signals during one long computation are a single call of the handler.
            if presses > 1:
                insistent.set()

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    before_fd = signal.set_wakeup_fd(write, warn_on_full_buffer=False)
    before = signal.signal(signal.SIGINT, handle)
    try:
        yield interrupted
    finally:
        signal.signal(signal.SIGINT, before)
        signal.set_wakeup_fd(before_fd)
        os.write(write, bytes([_END]))
        watcher.join()
        os.close(read)
        os.close(write)
