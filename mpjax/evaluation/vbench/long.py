"""VBench-Long: the mean of a metric over clips of 2 s, and its slow-fast form of the two consistencies.

Clips have 2 · int(fps) frames; a shorter rest is extended backwards, so that the last clip overlaps, and a video
shorter than a clip is one. VBench writes each clip as a lossy file of its own first; here the frames are the video's.

Slow-fast, which VBench computes with `--dev_flag` alone, adds how consistent the first frames of the clips are with one
another, by another network, mapped through a table of quantiles to the scale of the consistency within clips:

    score = w_in · within + w_between · table(between)

Weights and table are VBench's own files. Without the flag w_between is 0, which is the plain mean.
"""

import dataclasses
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mpjax.errors import InputError
from mpjax.evaluation.metrics.metric import Metric, Part, Probe, Value, Want
from mpjax.evaluation.vbench.consistency import Consistency, consistency

CLIP_SECONDS = 2


def clips(part: Part) -> list[Part]:
    """The clips of a part; the frame rate of each is a whole number, as VBench writes them."""
    rate = max(1, int(part.video.fps))
    length = CLIP_SECONDS * rate
    video = dataclasses.replace(part.video, fps=float(rate))
    if len(part) < length:
        return [Part(video, part.start, part.stop)]
    starts = list(range(part.start, part.stop - length + 1, length))
    if len(part) % length:
        starts.append(part.stop - length)
    return [Part(video, start, start + length) for start in starts]


@dataclasses.dataclass(frozen=True, eq=False)
class Long:
    """The mean over clips of another metric."""

    inner: Metric

    @property
    def name(self) -> str:
        """`long_` and the metric's."""
        return f"long_{self.inner.name}"

    @property
    def higher_is_better(self) -> bool | None:
        """As the metric."""
        return self.inner.higher_is_better

    def wants(self, part: Part) -> Sequence[Want]:
        """What the metric must see of each clip."""
        return [want for clip in clips(part) for want in self.inner.wants(clip)]

    def score(self, part: Part, rows: Sequence[np.ndarray]) -> Value:
        """From the rows of each clip."""
        found, left = [], list(rows)
        for clip in clips(part):
            count = len(self.inner.wants(clip))
            found.append(self.inner.score(clip, left[:count]).value)
            left = left[count:]
        at = tuple(clip.start - part.start for clip in clips(part))
        return Value(value=float(np.mean(found)), values=tuple(found), at=at)


@dataclasses.dataclass(frozen=True, kw_only=True)
class SlowFastTable:
    """VBench's weights and its table for one dimension.

    Attributes:
        within: weight of the consistency within clips.
        between: weight of that between clips.
        knots: scores between clips, rising.
        mapped: what each is worth, on the scale within clips.
    """

    within: float
    between: float
    knots: np.ndarray
    mapped: np.ndarray

    def fuse(self, within: float, between: float) -> float:
        """The score; one that the table maps to 0 (as that of a single clip) is left out."""
        mapped = float(np.interp(between, self.knots, self.mapped))
        return within * self.within + mapped * self.between if mapped != 0 else within


def read_table(table: Path, params: Path, postfix: str) -> SlowFastTable:
    """Reads a mapping table of VBench-Long and the weights in its `slow_fast_params.yaml`.

    Args:
        table: `subject_mapping_table.yaml` or `background_mapping_table.yaml`.
        params: `slow_fast_params.yaml`.
        postfix: of the weights there, sb or bg.

    Raises:
        InputError: a line is no `key: number`, or a weight is not there.
    """
    entries = sorted((float(key), value) for key, value in _numbers(table).items())
    weights = _numbers(params)
    for name in (f"w_inclip_{postfix}", f"w_clip2clip_{postfix}"):
        if name not in weights:
            raise InputError(f"{params} does not say {name}: take the file of VBench as it is")
    return SlowFastTable(
        within=weights[f"w_inclip_{postfix}"],
        between=weights[f"w_clip2clip_{postfix}"],
        knots=np.array([key for key, _ in entries]),
        mapped=np.array([value for _, value in entries]),
    )


def _numbers(path: Path) -> dict[str, float]:
    found = {}
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        if not line.strip() or line.startswith("#"):
            continue
        match = re.fullmatch(r"(\w+|[\d.]+):\s*([-+.\deE]+)\s*", line)
        try:
            if match is None:
                raise ValueError
            found[match[1]] = float(match[2])
        except ValueError:
            raise InputError(f"{path}: {line!r} is no number with a name; take the file of VBench as it is") from None
    if not found:
        raise InputError(f"{path} is empty: take the file of VBench as it is")
    return found


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class SlowFast:
    """A consistency within clips, fused with that of their first frames."""

    inner: Consistency
    probe: Probe
    table: SlowFastTable
    higher_is_better: bool = True

    @property
    def name(self) -> str:
        """`long_`, the metric's, and `_slow_fast`."""
        return f"long_{self.inner.name}_slow_fast"

    def wants(self, part: Part) -> Sequence[Want]:
        """Every clip, and the first frame of each."""
        return [*Long(self.inner).wants(part), Want(self.probe, [(clip.start,) for clip in clips(part)])]

    def score(self, part: Part, rows: Sequence[np.ndarray]) -> Value:
        """From the features of both networks."""
        within = Long(self.inner).score(part, rows[:-1])
        between = float(consistency(rows[-1]).mean()) if len(rows[-1]) > 1 else 0.0
        return dataclasses.replace(within, value=self.table.fuse(within.value, between))
