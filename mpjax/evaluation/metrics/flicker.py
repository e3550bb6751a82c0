"""VBench's temporal flickering: how little one frame differs from the next. Needs no network."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from mpjax.evaluation.metrics.metric import NotComputed, Part, Value, Want


@dataclasses.dataclass(frozen=True, eq=False)
class FrameDifference:
    """The mean absolute difference of two frames, 0 to 255."""

    batch: int = 1

    def __call__(self, frames: np.ndarray) -> np.ndarray:
        """uint8 `[b, 2, height, width, 3]` → float64 `[b]`."""
        return np.asarray([_difference(before, after) for before, after in frames])


def _difference(before: np.ndarray, after: np.ndarray) -> float:
    difference = np.maximum(before, after)
    difference -= np.minimum(before, after)
    # In bytes, and down whole rows first: several times faster than a mean of wider integers, and exact as well.
    return float(difference.reshape(len(difference), -1).sum(0, dtype=np.uint32).sum(dtype=np.uint64)) / before.size


@dataclasses.dataclass(frozen=True, eq=False)
class TemporalFlickering:
    """(255 − mean |f_{i+1} − f_i|) / 255 over all pairs; 1 is a still picture."""

    probe: FrameDifference = FrameDifference()
    name: str = "temporal_flickering"
    higher_is_better: bool = True

    def wants(self, part: Part) -> Sequence[Want]:
        """Every two neighbours."""
        if len(part) < 2:
            raise NotComputed("needs two frames")
        return [Want(self.probe, [(i, i + 1) for i in range(part.start, part.stop - 1)])]

    def score(self, part: Part, rows: Sequence[np.ndarray]) -> Value:
        """From the differences."""
        values = 1 - rows[0] / 255
        return Value(value=float(values.mean()), values=tuple(values.tolist()), at=tuple(range(1, len(part))))
