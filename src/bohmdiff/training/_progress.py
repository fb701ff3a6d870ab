"""What a training shows on stderr."""

import sys
import time

from tqdm import tqdm


class Progress:
    """A line with the time of the first epoch, which compiles; then a bar, whose rate is that of the others."""

    def __init__(self, done: int, total: int, silent: bool):
        self._total, self._silent = total, silent or done >= total
        self._start = time.perf_counter()
        self._bar: tqdm | None = None
        self._say("compiling … ", end="")

    def update(self, epoch: int, figures: str) -> None:
        """An epoch has ended."""
        if self._bar is None:
            self._say(f"{time.perf_counter() - self._start:.1f} s, with the first epoch")
            self._bar = tqdm(total=self._total, initial=epoch, disable=self._silent, unit="epoch")
        else:
            self._bar.update()
        self._bar.set_postfix_str(figures)

    def close(self) -> None:
        if self._bar is None:
            self._say("")
        else:
            self._bar.close()

    def _say(self, text: str, end: str = "\n") -> None:
        if not self._silent:
            print(text, end=end, file=sys.stderr, flush=True)
