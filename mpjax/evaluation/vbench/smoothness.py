"""VBench's motion smoothness: how well the odd frames are predicted from their even neighbours.

The frame rate is not normalised, and a last frame without a neighbour behind it is not looked at.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from mpjax.evaluation.metrics.metric import NotComputed, Part, Probe, Value, Want


@dataclasses.dataclass(frozen=True, eq=False)
class MotionSmoothness:
    """(255 − mean |predicted − true|) / 255 over the odd frames.

    The probe gives the mean absolute difference, 0 to 255, of the middle one of three frames from what the outer two
    predict.
    """

    probe: Probe
    name: str = "motion_smoothness"
    higher_is_better: bool = True

    def wants(self, part: Part) -> Sequence[Want]:
        """Each odd frame, counted from the part's beginning, between its neighbours."""
        if len(part) < 3:
            raise NotComputed("needs three frames")
        return [Want(self.probe, [(i - 1, i, i + 1) for i in range(part.start + 1, part.stop - 1, 2)])]

    def score(self, part: Part, rows: Sequence[np.ndarray]) -> Value:
        """From the differences."""
        values = 1 - np.asarray(rows[0], np.float64) / 255
        return Value(value=float(values.mean()), values=tuple(values.tolist()), at=tuple(range(1, len(part) - 1, 2)))
