"""Where a run's numbers go: one JSON line each, TensorBoard, and a progress line."""

import json
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from tensorboardX import SummaryWriter


class MetricsLog:
    """`log.jsonl` and TensorBoard files of a run folder. Opening it at step n drops whatever lies beyond n."""

    def __init__(self, folder: Path, step: int):
        self._path = folder / "log.jsonl"
        if self._path.exists():
            lines = [line for line in self._path.read_text().splitlines() if _step_of(line) <= step]
            self._path.write_text("".join(line + "\n" for line in lines))
        self._file = self._path.open("a", buffering=1)
        self._board = SummaryWriter(str(folder / "tensorboard"), purge_step=step + 1 if step else None)

    def __enter__(self) -> "MetricsLog":
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()
        self._board.close()

    def scalars(self, step: int, group: str, values: dict[str, float]) -> None:
        """Writes scalars under `group/name`."""
        self._file.write(json.dumps({"step": step, **{f"{group}/{k}": v for k, v in values.items()}}) + "\n")
        for name, value in values.items():
            self._board.add_scalar(f"{group}/{name}", value, step)

    def image(self, step: int, name: str, picture: np.ndarray) -> None:
        """Shows a uint8 picture `[height, width, 3]` in TensorBoard."""
        self._board.add_image(name, picture, step, dataformats="HWC")


def _step_of(line: str) -> int:
    """The step of a log line; a line that a kill cut short counts as lying beyond everything."""
    try:
        return int(json.loads(line)["step"])
    except (ValueError, KeyError):
        return 2**62


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
        self._say(f"{done}/{self._total}  {rate:.1f}/s  {clock} left  {text}".rstrip())
