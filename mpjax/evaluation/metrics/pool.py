"""Scores of many videos: pooled over all, and over those of one duration."""

import dataclasses
import math
from collections.abc import Iterable, Sequence

from mpjax.evaluation.metrics.metric import Score


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pooled:
    """A metric over some videos.

    Attributes:
        metric: its name.
        seconds: the duration of the videos, rounded; None for those of all durations.
        videos: how many have it.
        value: weighted mean; where VBench takes the mean over the frames of all videos, a video counts by its frames.
        drift: mean of Δdrift over the videos that are long enough, None if there is none.
    """

    metric: str
    seconds: int | None
    videos: int
    value: float
    drift: float | None


def pool(scores: Iterable[Score]) -> list[Pooled]:
    """Every metric that at least one video has: over all videos, then by duration, if there are several."""
    by_metric: dict[str, list[Score]] = {}
    for score in scores:
        if score.value is not None:
            by_metric.setdefault(score.metric, []).append(score)
    pooled = []
    for metric, found in by_metric.items():
        pooled.append(_pool(metric, None, found))
        durations = sorted({round(score.seconds) for score in found})
        if len(durations) > 1:
            for seconds in durations:
                pooled.append(_pool(metric, seconds, [score for score in found if round(score.seconds) == seconds]))
    return pooled


def _pool(metric: str, seconds: int | None, scores: Sequence[Score]) -> Pooled:
    weight = math.fsum(score.weight for score in scores)
    drifts = [score.drift for score in scores if score.drift is not None]
    return Pooled(
        metric=metric,
        seconds=seconds,
        videos=len(scores),
        value=math.fsum((score.value or 0.0) * score.weight for score in scores) / weight,
        drift=math.fsum(drifts) / len(drifts) if drifts else None,
    )
