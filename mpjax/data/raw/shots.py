"""Where one shot ends and the next begins: hard cuts and dissolves, on small pictures of all frames of a video.

Two pictures belong to one shot when one looks like the other moved a little. Their *unlikeness* is 1 − ρ, with ρ the
correlation of their pixels at the best of a few shifts: neither exposure nor a slow camera changes it much.

A hard cut is a jump of unlikeness between neighbouring frames that stands out from those around it and does not come
back: after a flash the old picture returns.

A dissolve from A to B shows (1 − α) A + α B with α rising from 0 to 1. So its frames lie near the straight line from A
to B in the space of pictures, in order, while a moving camera leaves that line; and A is unlike B. In the middle two
unlike pictures also cancel each other in part, so the contrast falls, which no camera does.
"""

from dataclasses import dataclass
from itertools import pairwise, product

import numpy as np

# Standard deviation of pixels (of 255) below which a picture is flat: like other flat ones, and no others.
FLAT = 3.0
# Shifts tried, in pixels of the small pictures.
ROWS, COLUMNS = 2, 3
# Pictures or windows looked at together, which bounds the memory.
CHUNK = 1024
# Of the contrast that an even mixture of A and B loses, the part that a dissolve's middle has lost at least.
FADED = 0.5


@dataclass(frozen=True, kw_only=True)
class Cut:
    """A change of shot.

    Attributes:
        time: seconds from the first frame; of a dissolve its middle.
        length: seconds over which both shots are seen; 0 for a hard cut.
    """

    time: float
    length: float


def unlikeness(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """How unlike pictures are: 0 the same, up to a shift and a change of brightness or contrast; 1 unrelated.

    Args:
        a: `[n, h, w, 3]`, 0 to 255.
        b: likewise.

    Returns:
        float64 `[n]` in [0, 2].
    """
    a, b = np.asarray(a, np.float32), np.asarray(b, np.float32)
    middle = a[:, ROWS:-ROWS, COLUMNS:-COLUMNS]
    middle = middle - middle.mean((1, 2, 3), keepdims=True)
    scale = np.sqrt(np.mean(middle**2, (1, 2, 3)) + FLAT**2)
    best = np.full(len(a), -1.0)
    height, width = middle.shape[1:3]
    for top, left in product(range(2 * ROWS + 1), range(2 * COLUMNS + 1)):
        moved = b[:, top : top + height, left : left + width]
        moved = moved - moved.mean((1, 2, 3), keepdims=True)
        with_scale = scale * np.sqrt(np.mean(moved**2, (1, 2, 3)) + FLAT**2)
        best = np.maximum(best, (np.mean(middle * moved, (1, 2, 3)) + FLAT**2) / with_scale)
    return 1 - best


@dataclass(frozen=True, kw_only=True)
class ShotDetector:
    """Thresholds, for pictures of 18 × 32 pixels.

    Attributes:
        unlike: least unlikeness of the two sides of a cut.
        stands_out: a hard cut's unlikeness is at least this multiple of the second highest within half a second, the
            highest being perhaps another cut.
        change: least mean change of a hard cut's pixels, of 255.
        dissolve_seconds: lengths of window that are searched for a dissolve, each about 1.2 times what it finds best.
        off_line: greatest distance of a dissolve's frames from the line between its ends, as a part of its length.
    """

    unlike: float = 0.35
    stands_out: float = 1.7
    change: float = 12.0
    dissolve_seconds: tuple[float, ...] = (0.4, 0.6, 0.9, 1.3)
    off_line: float = 0.4

    def cuts(self, pictures: np.ndarray, fps: float) -> list[Cut]:
        """The changes of shot in order of time.

        Args:
            pictures: uint8 `[n, h, w, 3]`, all frames at a constant rate.
            fps: that rate.
        """
        hard = self._hard(pictures, fps)
        if len(pictures) < 2:
            return []
        near = round(0.35 * fps)
        cuts = [Cut(time=at / fps, length=0.0) for at in hard]
        for middle, length in self._dissolves(pictures, fps):
            if all(abs(middle - at) > near + length / 2 for at in hard):
                cuts.append(Cut(time=middle / fps, length=length / fps))
        return sorted(cuts, key=lambda cut: cut.time)

    def _hard(self, pictures: np.ndarray, fps: float) -> list[int]:
        """Numbers of the first frames of new shots."""
        rows = [slice(first, first + CHUNK) for first in range(0, len(pictures) - 1, CHUNK)]
        jump = np.concatenate([[0.0], *(unlikeness(pictures[:-1][part], pictures[1:][part]) for part in rows)])
        change = np.concatenate([[0.0], _mean_change(pictures)])
        around, back = max(2, round(fps / 2)), max(1, round(fps / 4))
        found = []
        for at in np.flatnonzero((jump > self.unlike) & (change > self.change)):
            others = np.sort(np.concatenate([jump[max(0, at - around) : at], jump[at + 1 : at + 1 + around]]))
            if len(others) > 1 and jump[at] < self.stands_out * others[-2]:
                continue
            later, earlier = pictures[at + 1 : at + 1 + back], pictures[max(0, at - 1 - back) : at - 1]
            if self._returns(pictures[at - 1], later) or self._returns(pictures[at], earlier):
                continue  # the beginning or the end of a flash
            found.append(int(at))
        return found

    def _returns(self, picture: np.ndarray, others: np.ndarray) -> bool:
        """Whether one of the others shows the same as a picture."""
        return len(others) > 0 and unlikeness(np.broadcast_to(picture, others.shape), others).min() < self.unlike / 2

    def _dissolves(self, pictures: np.ndarray, fps: float) -> list[tuple[int, int]]:
        """(middle frame, length in frames), the clearest of those that overlap."""
        flat = pictures.reshape(len(pictures), -1)
        found: list[tuple[float, int, int]] = []
        for window in sorted({max(4, 2 * round(seconds * fps / 2)) for seconds in self.dissolve_seconds}):
            for first in range(0, len(flat) - window, CHUNK):
                part = flat[first : first + CHUNK + window].astype(np.float32)
                found += [
                    (off, first + at + window // 2, window) for off, at in self._lines(part, window, pictures.shape)
                ]
        chosen: list[tuple[int, int]] = []
        for _, middle, length in sorted(found):
            if all(abs(middle - other) > (length + span) / 2 for other, span in chosen):
                chosen.append((middle, length))
        return chosen

    def _lines(self, frames: np.ndarray, window: int, shape: tuple[int, ...]) -> list[tuple[float, int]]:
        """(distance from the line, first frame) of the windows over which one picture turns into another."""
        start, stop = frames[:-window], frames[window:]
        way = stop - start
        length = np.sqrt(np.mean(way**2, 1)) + 1e-9

        def place(step: int, rows: np.ndarray | slice) -> tuple[np.ndarray, np.ndarray]:
            """How far along the line the frames are, and how far off it, as parts of its length."""
            moved = frames[step : len(frames) - window + step][rows] - start[rows]
            along = np.mean(moved * way[rows], 1) / length[rows] ** 2
            off = np.sqrt(np.maximum(np.mean(moved**2, 1) / length[rows] ** 2 - along**2, 0))
            return along, off

        along, off = place(window // 2, slice(None))
        likely = np.flatnonzero((length > self.change) & (off < self.off_line) & (np.abs(along - 0.5) < 0.25))
        if not len(likely):
            return []
        places = [place(step, likely) for step in range(1, window)]
        along = np.stack([np.zeros(len(likely)), *(a for a, _ in places), np.ones(len(likely))])
        worst = np.max([off for _, off in places], 0)
        steps = np.diff(along, axis=0)
        # A hard cut would go the whole way at once.
        smooth = (steps.min(0) > -0.1) & (steps.max(0) < 0.5)
        good = (worst < self.off_line) & smooth
        rows, worst = likely[good], worst[good]
        if not len(rows):
            return []
        ends = (_contrast(frames[rows]) + _contrast(frames[rows + window])) / 2
        mixed = _contrast((frames[rows] + frames[rows + window]) / 2)
        faded = ends - _contrast(frames[rows + window // 2]) > FADED * (ends - mixed)
        rows, worst = rows[faded], worst[faded]
        pictures = frames.reshape(-1, *shape[1:])
        sides = unlikeness(pictures[rows], pictures[rows + window])
        textured = np.minimum(frames[rows].std(1), frames[rows + window].std(1)) > 2 * FLAT
        return [
            (float(w), int(r)) for w, r, s, t in zip(worst, rows, sides, textured, strict=True) if s > self.unlike and t
        ]


def _contrast(frames: np.ndarray) -> np.ndarray:
    """Variance of the pixels, `[n]`, of frames `[n, pixels]`."""
    return frames.var(1)


def _mean_change(pictures: np.ndarray) -> np.ndarray:
    """Mean absolute difference of neighbouring pictures, `[n - 1]`."""
    return np.array([np.abs(b.astype(np.int16) - a).mean() for a, b in pairwise(pictures)])
