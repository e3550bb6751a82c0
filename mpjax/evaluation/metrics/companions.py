"""Metrics without a network by name; these always run."""

from collections.abc import Callable

from mpjax.evaluation.metrics.appearance import COLUMNS, Appearance, Level, SharpnessSlope
from mpjax.evaluation.metrics.change import Change, DeadMotionRate, MotionEnergy, ReturnToStart, SeamJump
from mpjax.evaluation.metrics.metric import Metric
from mpjax.evaluation.metrics.registry import Offer

# One object each, so that all metrics share its rows.
_APPEARANCE = Appearance()
_CHANGE = Change()


def _level(name: str) -> Callable[[], Metric]:
    return lambda: Level(name=name, probe=_APPEARANCE)


COMPANIONS: tuple[Offer, ...] = (
    *(Offer(name=name, make=_level(name)) for name in COLUMNS),
    Offer(name="sharpness_slope", make=lambda: SharpnessSlope(probe=_APPEARANCE)),
    Offer(name="motion_energy", make=lambda: MotionEnergy(probe=_CHANGE)),
    Offer(name="dead_motion_rate", make=lambda: DeadMotionRate(probe=_CHANGE)),
    Offer(name="return_to_start", make=lambda: ReturnToStart(probe=_CHANGE)),
    Offer(name="seam_jump", make=lambda: SeamJump(probe=_CHANGE), flag="--segment-frames"),
)
