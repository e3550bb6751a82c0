"""Where a run's numbers go: one JSON line each, and TensorBoard."""

import contextlib
import json
from pathlib import Path
from typing import Protocol

import numpy as np
from tensorboardX import SummaryWriter

from mpjax.whole_files import write_file


class Log(Protocol):
    """What receives the numbers and pictures of a run."""

    def scalars(self, step: int, group: str, values: dict[str, float]) -> None:
        """Notes scalars as `group/name`."""

    def image(self, step: int, name: str, picture: np.ndarray) -> None:
        """Notes a uint8 picture `[height, width, 3]`."""


class NoLog(contextlib.nullcontext):
    """That of a process that leaves writing to another one."""

    def __enter__(self) -> "NoLog":
        return self

    def scalars(self, step: int, group: str, values: dict[str, float]) -> None:
        """Writes nothing."""

    def image(self, step: int, name: str, picture: np.ndarray) -> None:
        """Writes nothing."""


class MetricsLog:
    """`log.jsonl` and TensorBoard files of a run folder. Opening it at step n drops whatever lies beyond n."""

    def __init__(self, folder: Path, step: int):
        self._path = folder / "log.jsonl"
        if self._path.exists():
            lines = [line for line in self._path.read_text().splitlines() if _step_of(line) <= step]
            write_file(self._path, "".join(line + "\n" for line in lines))
        self._file = self._path.open("a", buffering=1)
        self._board = SummaryWriter(str(folder / "tensorboard"), purge_step=step + 1)

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
