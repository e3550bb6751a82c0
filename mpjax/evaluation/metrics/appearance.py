"""How bright, contrasty, colourful and sharp the frames are; a rollout that drifts usually changes one of these.

None of them needs a network, and none is good or bad by itself: what counts is Δdrift and the curve. All are means over
the pixels of one frame, of values 0..1 as they are stored, without linearising them:

    exposure    mean of Y, Y = 0.2126 R + 0.7152 G + 0.0722 B (BT.709)
    contrast    standard deviation of Y
    saturation  mean of max(R, G, B) − min(R, G, B)
    warmth      mean of R − B
    tint        mean of G − (R + B) / 2
    sharpness   log2 of the energy of Y's Laplacian over its variance: unlike the bare energy it does not change with
                gain or bias, one step is a factor of two
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from mpjax.evaluation.metrics.metric import NotComputed, Part, Value, Want
from mpjax.evaluation.metrics.sampling import sampled, whole_video
from mpjax.evaluation.statistics import theil_sen_slope

LUMA = np.asarray([0.2126, 0.7152, 0.0722], np.float32)
COLUMNS = ("exposure", "contrast", "saturation", "warmth", "tint", "sharpness")
SLOPE_POINTS = 400  # the slope looks at all pairs of points
_FLAT = 1e-8  # variance of Y below which a frame has no detail: a fortieth of a grey level, squared, and less


@dataclasses.dataclass(frozen=True, eq=False)
class Appearance:
    """The columns above of a frame."""

    batch: int = 1

    def __call__(self, frames: np.ndarray) -> np.ndarray:
        """uint8 `[b, 1, height, width, 3]` → float64 `[b, 6]`; sharpness is NaN where a frame is flat."""
        return np.stack([_columns(frame) for frame in frames[:, 0]])


def _columns(frame: np.ndarray) -> np.ndarray:
    luma = luma_of(frame)
    # Down whole rows first: numpy's mean over two axes at once takes thirty times as long.
    sums = frame.reshape(len(frame), -1).sum(0, dtype=np.uint32).reshape(-1, 3).sum(0, dtype=np.uint64)
    red, green, blue = (float(total) / (255 * luma.size) for total in sums)
    spread = np.maximum(np.maximum(frame[..., 0], frame[..., 1]), frame[..., 2])
    spread -= np.minimum(np.minimum(frame[..., 0], frame[..., 1]), frame[..., 2])
    variance = float(luma.var(dtype=np.float64))
    sharpness = float("nan")
    if variance > _FLAT and min(luma.shape) > 2:
        inner = luma[1:-1, 1:-1]
        laplacian = luma[:-2, 1:-1] + luma[2:, 1:-1] + luma[1:-1, :-2] + luma[1:-1, 2:] - 4 * inner
        energy = float(np.square(laplacian).mean(dtype=np.float64))
        sharpness = float(np.log2(max(energy, _FLAT) / variance))
    saturation = float(spread.mean(dtype=np.float64)) / 255
    exposure = float(luma.mean(dtype=np.float64))
    return np.asarray([exposure, variance**0.5, saturation, red - blue, green - (red + blue) / 2, sharpness])


def luma_of(frame: np.ndarray) -> np.ndarray:
    """Y of uint8 `[height, width, 3]`: float32 `[height, width]`, 0..1."""
    return frame @ (LUMA / np.float32(255))


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Level:
    """The mean of one column over the sampled frames; Δdrift says how far it moves."""

    name: str
    probe: Appearance
    higher_is_better: bool | None = None

    def wants(self, part: Part) -> Sequence[Want]:
        """The sampled frames."""
        return [Want(self.probe, [(i,) for i in sampled(part)])]

    def score(self, part: Part, rows: Sequence[np.ndarray]) -> Value:
        """Their mean."""
        values, at = _defined(part, rows[0][:, COLUMNS.index(self.name)])
        return Value(value=float(np.mean(values)), values=values, at=at)


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class SharpnessSlope:
    """Theil-Sen slope of sharpness, in factors of two a minute of generation: negative where the video blurs."""

    probe: Appearance
    name: str = "sharpness_slope"
    higher_is_better: bool | None = None

    def wants(self, part: Part) -> Sequence[Want]:
        """The sampled frames."""
        whole_video(part)
        if len(sampled(part)) < 2:
            raise NotComputed("needs two sampled frames")
        return [Want(self.probe, [(i,) for i in sampled(part)])]

    def score(self, part: Part, rows: Sequence[np.ndarray]) -> Value:
        """From the sharpness of each."""
        values, at = _defined(part, rows[0][:, COLUMNS.index("sharpness")])
        if len(values) < 2:
            raise NotComputed("needs two frames that are not flat")
        thin = slice(None, None, -(-len(values) // SLOPE_POINTS))
        minutes = np.asarray(at[thin]) / part.video.fps / 60
        if part.video.backward:
            minutes = -minutes
        return Value(value=theil_sen_slope(minutes, np.asarray(values[thin])))  # its curve is that of sharpness


def _defined(part: Part, column: np.ndarray) -> tuple[tuple[float, ...], tuple[int, ...]]:
    """Values that exist, and their frames within the part."""
    pairs = [(float(x), i - part.start) for x, i in zip(column, sampled(part), strict=True) if np.isfinite(x)]
    if not pairs:
        raise NotComputed("every sampled frame is flat")
    return tuple(x for x, _ in pairs), tuple(i for _, i in pairs)
