"""A line of progress: how much is done, how fast it goes, how long it will take."""

import time
from collections.abc import Callable


class Progress:
    """Prints done, rate and time left, at most every few seconds."""

    def __init__(self, first: int, total: int, say: Callable[[str], None] = print, every: float = 10.0):
        self._first, self._total, self._say, self._every = first, total, say, every
        self._start = self._last = time.monotonic()

    def restart(self, done: int) -> None:
        """Leaves what happened so far (compiling) out of the rate."""
        self._first, self._start = done, time.monotonic()

    def update(self, done: int, text: str = "") -> None:
        """Reports `done` of the total."""
        now = time.monotonic()
        if now - self._last < self._every and done < self._total:
            return
        self._last = now
        rate = (done - self._first) / max(now - self._start, 1e-9)
        left = (self._total - done) / rate if rate > 0 else float("inf")
        clock = f"{int(left // 60)}:{int(left % 60):02d}" if left != float("inf") else "unknown"
        pace = f"{1 / rate:.1f} s each" if 0 < rate < 1 else f"{rate:.1f}/s"
        self._say(f"{done}/{self._total}  {pace}  {clock} left  {text}".rstrip())


class ByteProgress:
    """`Progress` in megabytes, told the bytes of each piece."""

    def __init__(self, total: int, say: Callable[[str], None] = print):
        self._bytes, self._done = total, 0
        self._total = -(-total // 1_000_000)
        self._progress = Progress(0, self._total, say)

    def add(self, count: int) -> None:
        """Reports a piece."""
        self._done += count
        self._progress.update(self._total if self._done >= self._bytes else self._done // 1_000_000, "MB")


def counted(number: int, noun: str, plural: str = "") -> str:
    """`1 clip`, `2 clips`; `plural` where it is not the noun with an s."""
    return f"{number} {noun if number == 1 else plural or noun + 's'}"
