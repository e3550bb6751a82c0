"""What a metric is, and how many of them are measured in one pass over a video.

A metric looks at single frames or at a few at a time: DINO at one, a flow network at two, an interpolator at three. It
says at which (`wants`), a `Probe` turns them into rows of numbers, and the metric makes a value of the rows (`score`).
Rows are made once and serve every metric and every part of the video that asks for them: the whole, the first and the
last 15 % (Δdrift, PFVG's Eq. 8), the clips of VBench-Long.
"""

import collections
import dataclasses
import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

import numpy as np

from mpjax.evaluation.metrics.videos import Video

At = tuple[int, ...]  # indices of the frames that are looked at together
IMAGE = -1  # the index of `Video.image`

DRIFT_SHARE = 0.15
AHEAD = 16  # a frame for which more looks wait is fetched in a reading of its own


class Probe(Protocol):
    """Looks at frames. One object is one probe: metrics that share it share its rows."""

    @property
    def batch(self) -> int:
        """How many places it looks at in one call at most."""

    def __call__(self, frames: np.ndarray) -> np.ndarray:
        """uint8 `[b, k, height, width, 3]`, k frames at each of b places → one row for each, `[b, …]`."""


@dataclasses.dataclass(frozen=True)
class Part:
    """Frames `start` to `stop` of a video; a metric treats it as if it were a video of its own."""

    video: Video
    start: int
    stop: int

    def __len__(self) -> int:
        return self.stop - self.start


@dataclasses.dataclass(frozen=True, eq=False)
class Want:
    """A probe, and where it shall look."""

    probe: Probe
    at: Sequence[At]


class NotComputed(Exception):
    """A metric cannot be had of this video; the message says why, in one sentence without a full stop."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Value:
    """What a metric says of a part.

    Attributes:
        value: the number.
        values: what it is made of, in time order: by frame, pair or clip; may be empty.
        at: index of the frame, within the part, that each of `values` belongs to.
        weight: what it counts in a mean over videos (some of VBench's are means over frames).
    """

    value: float
    values: tuple[float, ...] = ()
    at: tuple[int, ...] = ()
    weight: float = 1.0


class Metric(Protocol):
    """One number for a video."""

    @property
    def name(self) -> str:
        """In tables and in `--metrics`."""

    @property
    def higher_is_better(self) -> bool | None:
        """None where neither is."""

    def wants(self, part: Part) -> Sequence[Want]:
        """What it must see of a part. Raises `NotComputed`."""

    def score(self, part: Part, rows: Sequence[np.ndarray]) -> Value:
        """The number from the rows of each of `wants(part)`, in the same order. Raises `NotComputed`."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Score:
    """A metric of a video.

    Attributes:
        video: its name.
        seconds: its length.
        metric: its name.
        value: None where it was not computed.
        values: as in `Value`.
        at: as in `Value`.
        weight: as in `Value`.
        start: the same metric of the 15 % generated first, None where that is too short.
        end: of the 15 % generated last.
        reason: why it was not computed.
    """

    video: str
    seconds: float
    metric: str
    value: float | None
    values: tuple[float, ...] = ()
    at: tuple[int, ...] = ()
    weight: float = 1.0
    start: float | None = None
    end: float | None = None
    reason: str | None = None

    @property
    def drift(self) -> float | None:
        """Δdrift = |M(first 15 %) − M(last 15 %)|."""
        return None if self.start is None or self.end is None else abs(self.start - self.end)


def drift_parts(video: Video) -> tuple[Part, Part]:
    """The first and the last 15 % in the order of generation; at least a frame each."""
    length = max(1, int(DRIFT_SHARE * video.frames))
    parts = Part(video, 0, length), Part(video, video.frames - length, video.frames)
    return parts[::-1] if video.backward else parts


def measure(video: Video, metrics: Sequence[Metric]) -> list[Score]:
    """All metrics of a video in one pass over its frames; see `look` for when it is two.

    Memory holds the frames that are still to be looked at: the longest reach of one look, and a batch for each probe.

    Args:
        video: the video.
        metrics: whose names differ.

    Returns:
        a score for each metric, in order.
    """
    whole, (first, last) = Part(video, 0, video.frames), drift_parts(video)
    wants: dict[tuple[int, Part], Sequence[Want]] = {}
    reasons: dict[tuple[int, Part], str] = {}
    for index, metric in enumerate(metrics):
        for part in (whole, first, last):
            try:
                wants[index, part] = metric.wants(part)
            except NotComputed as error:
                reasons[index, part] = str(error)
    rows = look(video, [want for each in wants.values() for want in each])

    def value(index: int, part: Part) -> Value | str:
        if (index, part) in reasons:
            return reasons[index, part]
        asked = wants[index, part]
        try:
            return metrics[index].score(part, [np.stack([rows[want.probe][at] for at in want.at]) for want in asked])
        except NotComputed as error:
            return str(error)

    scores = []
    for index, metric in enumerate(metrics):
        found, start, end = (value(index, part) for part in (whole, first, last))
        score = Score(video=video.name, seconds=video.seconds, metric=metric.name, value=None)
        if isinstance(found, str):
            scores.append(dataclasses.replace(score, reason=found))
            continue
        if not math.isfinite(found.value):
            scores.append(dataclasses.replace(score, reason=f"the value is {found.value}"))
            continue
        ends = [None if isinstance(each, str) else each.value for each in (start, end)]
        scores.append(dataclasses.replace(score, **vars(found), start=ends[0], end=ends[1]))
    return scores


def look(video: Video, wants: Iterable[Want]) -> Mapping[Probe, Mapping[At, np.ndarray]]:
    """Every row that is wanted, by probe and place.

    The video is read once, and not at all if nothing is wanted. Where many looks wait for one late frame, as those that
    compare with the start of a video that was generated backward, that frame is fetched first, in a reading of its own:
    otherwise all frames before it would be held.
    """
    places: dict[Probe, set[At]] = {}
    for want in wants:
        places.setdefault(want.probe, set()).update(want.at)
    ends = collections.Counter(max(at) for at_all in places.values() for at in at_all if len(at) > 1)
    ahead = {index for index, count in ends.items() if count > AHEAD}
    due: dict[int, list[tuple[Probe, At]]] = {}  # by the last frame of a place that is not held by then
    last_use: dict[int, int] = {}
    for probe, at_all in places.items():
        for at in sorted(at_all):
            last = max(set(at) - ahead, default=max(at))
            due.setdefault(last, []).append((probe, at))
            for index in at:
                last_use[index] = max(last_use.get(index, IMAGE), last)
    rows: dict[Probe, dict[At, np.ndarray]] = {probe: {} for probe in places}
    waiting: dict[Probe, list[tuple[At, list[np.ndarray]]]] = {probe: [] for probe in places}
    held: dict[int, np.ndarray] = {}

    def flush(probe: Probe) -> None:
        queue, waiting[probe] = waiting[probe], []
        shapes = [(len(frames), *frames[0].shape) for _, frames in queue]
        for shape in set(shapes):  # the picture may have another size than the frames
            same = [waits for waits, its in zip(queue, shapes, strict=True) if its == shape]
            seen = probe(np.stack([frame for _, frames in same for frame in frames]).reshape(-1, *shape))
            rows[probe].update(zip([at for at, _ in same], seen, strict=True))

    def arrive(index: int, frame: np.ndarray) -> None:
        if index not in last_use:
            return
        held[index] = frame
        for probe, at in due.get(index, ()):
            waiting[probe].append((at, [held[each] for each in at]))
            if len(waiting[probe]) == probe.batch:
                flush(probe)
        for each in [each for each in held if last_use[each] <= index]:
            del held[each]

    if IMAGE in last_use:
        assert video.image is not None, "a metric that looks at the picture raises NotComputed where there is none"
        arrive(IMAGE, video.image())
    if ahead:
        early = enumerate(video.read())
        held.update((index, frame) for index, frame in itertools.islice(early, max(ahead) + 1) if index in ahead)
    if due.keys() - {IMAGE}:
        for index, frame in enumerate(video.read()):
            arrive(index, frame)
    for probe in places:
        if waiting[probe]:
            flush(probe)
    return rows
