"""Metrics that are the mean over frames of a network's number: VBench's aesthetic and imaging quality."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from mpjax.evaluation.metrics.metric import Part, Probe, Value, Want


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class FrameQuality:
    """The mean over all frames, in units of `scale`: aesthetic scores are out of 10, MUSIQ's out of 100."""

    name: str
    probe: Probe
    scale: float
    higher_is_better: bool = True

    def wants(self, part: Part) -> Sequence[Want]:
        """Every frame."""
        return [Want(self.probe, [(i,) for i in range(part.start, part.stop)])]

    def score(self, part: Part, rows: Sequence[np.ndarray]) -> Value:
        """From the numbers `[n]`."""
        values = np.asarray(rows[0], np.float64) / self.scale
        return Value(value=float(values.mean()), values=tuple(values.tolist()), at=tuple(range(len(part))))
