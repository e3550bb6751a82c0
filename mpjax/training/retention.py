"""Which checkpoints of a run stay."""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any


class Retention:
    """The newest `keep` steps, every one of multiples of `keep_every` (0 for none), and one that is being read.

    It is Orbax's `PreservationPolicy`. Orbax asks when it begins to write a step, and removes what has to go once that
    is written; in between a step still looks as if it stayed, so `held` says whether it does.
    """

    def __init__(self, keep: int = 2, keep_every: int = 0):
        self._keep, self._keep_every = keep, keep_every
        self._lock = threading.Lock()
        self._held: int | None = None
        self._going: set[int] = set()

    def kept(self, steps: Sequence[int]) -> list[int]:
        """Those of the rising steps that stay by their number."""
        newest = set(steps[-self._keep :])
        return [s for s in steps if s in newest or (self._keep_every and s % self._keep_every == 0)]

    @contextmanager
    def held(self, step: int) -> Iterator[bool]:
        """Keeps a step, one at a time, in this process; False: it goes, since a newer one is being written."""
        with self._lock:
            stays = step not in self._going
            self._held = step if stays else None
        try:
            yield stays
        finally:
            with self._lock:
                self._held = None

    def should_preserve(self, checkpoints: Sequence[Any], *, context: Any) -> list[bool]:
        """For each of Orbax's descriptions of steps, the oldest first, whether it stays."""
        del context
        steps = [checkpoint.step for checkpoint in checkpoints]
        with self._lock:
            stay = {*self.kept(steps), self._held}
            self._going = set(steps) - stay
        return [step in stay for step in steps]
