"""How much one frame differs from another, without optical flow.

Frames are first averaged over squares so that the shorter side keeps 90 pixels or more: what is left is motion of
things, not grain. Between two such pictures a and b:

    decorrelation   1 − ρ(a, b), ρ Pearson's correlation over pixels and colours, each colour around its own mean. It
                    is half the energy of the difference of the two, each scaled to unit contrast: a change of exposure
                    or of contrast alone is none. 0 for equal pictures, about 1 for unrelated ones.
    block           the largest change of the mean of Y among 16 × 16 blocks of the frame, 0..1
    difference      mean absolute difference over pixels and colours, 0..1

"""

import dataclasses
import itertools
from collections.abc import Sequence

import numpy as np

from mpjax.evaluation.metrics.appearance import LUMA
from mpjax.evaluation.metrics.metric import DRIFT_SHARE, NotComputed, Part, Value, Want
from mpjax.evaluation.metrics.sampling import interval, sampled, whole_video

SHORT_SIDE = 90
BLOCKS = 16
DEAD = 1 / 255
"""A frame in which no block changes by more than a grey level stands still; sensor noise averages out in a block."""

NEIGHBOURS = 8  # differences on each side of a join that it is compared with
_CONTRAST = 1e-5  # variance below which a picture is flat
_QUIET = 0.1 / 255  # a join in a still scene is compared with this much change at least


@dataclasses.dataclass(frozen=True, eq=False)
class Change:
    """The three numbers above of two frames."""

    batch: int = 1

    def __call__(self, frames: np.ndarray) -> np.ndarray:
        """uint8 `[b, 2, height, width, 3]` → float64 `[b, 3]`."""
        return np.stack([_change(reduced(before), reduced(after)) for before, after in frames])


def reduced(frame: np.ndarray) -> np.ndarray:
    """Averages over squares: uint8 `[height, width, 3]` → float32 `[h, w, 3]`, 0..1; a rest at the edges is cut off."""
    factor = max(1, min(frame.shape[:2]) // SHORT_SIDE)
    height, width = (side // factor for side in frame.shape[:2])
    squares = frame[: height * factor, : width * factor].reshape(height, factor, width, factor, 3)
    # One slice of the squares after another, which is several times faster than numpy's sums over short axes.
    rows = _sum([squares[:, i] for i in range(factor)], np.uint16 if factor < 256 else np.uint32)
    sums = _sum([rows[:, :, i] for i in range(factor)], np.uint32)
    return sums.astype(np.float32) / np.float32(255 * factor * factor)


def _sum(arrays: Sequence[np.ndarray], dtype: type[np.unsignedinteger]) -> np.ndarray:
    total = arrays[0].astype(dtype)
    for array in arrays[1:]:
        total += array
    return total


def _change(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    difference = float(np.abs(a - b).mean(dtype=np.float64))
    blocks = np.abs(_blocks((b - a) @ LUMA)).max()
    a, b = (picture - picture.mean((0, 1)) for picture in (a, b))
    energies = [float(np.square(picture).mean(dtype=np.float64)) for picture in (a, b)]
    if min(energies) < _CONTRAST:  # of a flat picture there is no correlation: equal to another flat one, or not at all
        decorrelation = 0.0 if max(energies) < _CONTRAST else 1.0
    else:
        decorrelation = 1 - float((a * b).mean(dtype=np.float64)) / (energies[0] * energies[1]) ** 0.5
    return np.asarray([decorrelation, blocks, difference])


def _blocks(picture: np.ndarray) -> np.ndarray:
    """Means of up to 16 × 16 blocks."""
    for axis in (0, 1):
        side = picture.shape[axis]
        count = min(BLOCKS, side)
        starts = np.arange(count) * side // count
        sizes = np.diff([*starts, side])
        shape = (-1, 1) if axis == 0 else (1, -1)
        picture = np.add.reduceat(picture, starts, axis=axis) / sizes.reshape(shape)
    return picture


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class MotionEnergy:
    """Mean decorrelation of neighbouring sampled frames over the seconds between: how much of the picture changes.

    The stand-in for dynamic degree where RAFT's weights are missing. It knows no distances: flicker of a texture counts
    as motion, and a small thing counts by its area.
    """

    probe: Change
    name: str = "motion_energy"
    higher_is_better: bool | None = None

    def wants(self, part: Part) -> Sequence[Want]:
        """Neighbours among the sampled frames."""
        return [Want(self.probe, _steps(part))]

    def score(self, part: Part, rows: Sequence[np.ndarray]) -> Value:
        """From the first column."""
        # Not 8 a second but as many as a whole number of frames apart gives: 6 at 12 fps, 7.5 at 30.
        samples_per_second = part.video.fps / interval(part.video.fps)
        return _series(part, rows[0][:, 0] * samples_per_second)


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class DeadMotionRate:
    """The share of sampled frames in which nothing has moved since the one before; 1 is a frozen video."""

    probe: Change
    name: str = "dead_motion_rate"
    higher_is_better: bool | None = False

    def wants(self, part: Part) -> Sequence[Want]:
        """Neighbours among the sampled frames."""
        return [Want(self.probe, _steps(part))]

    def score(self, part: Part, rows: Sequence[np.ndarray]) -> Value:
        """From the blocks."""
        return _series(part, (rows[0][:, 1] <= DEAD).astype(float))


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class ReturnToStart:
    """Correlation of the last 15 % of the sampled frames with the first frame; the curve is that of all of them.

    Low where the camera or the subject has left, as well as where it has turned into something else: between two
    systems it compares only on videos that are meant to come back, or to stay.
    """

    probe: Change
    name: str = "return_to_start"
    higher_is_better: bool | None = None

    def wants(self, part: Part) -> Sequence[Want]:
        """The first frame and each of the others."""
        whole_video(part)
        if len(sampled(part)) < 2:
            raise NotComputed("needs two sampled frames")
        # The start of a video that was generated backward is its last frame.
        places = sampled(part)
        first, others = (places[-1], places[:-1]) if part.video.backward else (places[0], places[1:])
        return [Want(self.probe, [(first, i) for i in others])]

    def score(self, part: Part, rows: Sequence[np.ndarray]) -> Value:
        """From the first column."""
        values = 1 - rows[0][:, 0]
        places = sampled(part)
        at = places[:-1] if part.video.backward else places[1:]
        last = max(1, int(DRIFT_SHARE * len(values)))
        end = values[:last] if part.video.backward else values[-last:]
        return Value(value=float(end.mean()), values=tuple(values.tolist()), at=tuple(i - part.start for i in at))


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class SeamJump:
    """How much more the picture changes where one generated segment joins the next: log2 of the ratio; 0 is seamless.

    The difference across a join is compared with the median of those around it; the value is the mean over joins.
    """

    probe: Change
    name: str = "seam_jump"
    higher_is_better: bool | None = False

    def wants(self, part: Part) -> Sequence[Want]:
        """The neighbours at each join and around it."""
        return [Want(self.probe, [(i - 1, i) for i in self._places(part)])]

    def score(self, part: Part, rows: Sequence[np.ndarray]) -> Value:
        """From the differences."""
        found = dict(zip(self._places(part), rows[0][:, 2], strict=True))
        joins = set(part.video.joins)
        values = {}
        for join in sorted(joins & found.keys()):
            around = [
                found[i] for i in range(join - NEIGHBOURS, join + NEIGHBOURS + 1) if i in found and i not in joins
            ]
            if around:
                values[join] = float(np.log2(max(found[join], _QUIET) / max(float(np.median(around)), _QUIET)))
        if not values:
            raise NotComputed("every frame is a join")
        return Value(
            value=float(np.mean([*values.values()])),
            values=tuple(values.values()),
            at=tuple(i - part.start for i in values),
        )

    def _places(self, part: Part) -> list[int]:
        joins = [join for join in part.video.joins if part.start < join < part.stop]
        if not joins:
            raise NotComputed(part.video.no_joins)
        around = {i for join in joins for i in range(join - NEIGHBOURS, join + NEIGHBOURS + 1)}
        return sorted(i for i in around if part.start < i < part.stop)


def _steps(part: Part) -> list[tuple[int, int]]:
    places = sampled(part)
    if len(places) < 2:
        raise NotComputed(f"needs {interval(part.video.fps) + 1} frames")
    return [*itertools.pairwise(places)]


def _series(part: Part, values: np.ndarray) -> Value:
    at = tuple(i - part.start for i in sampled(part)[1:])
    return Value(value=float(values.mean()), values=tuple(values.tolist()), at=at)
