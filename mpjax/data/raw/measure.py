"""Everything the filters need to know about a range of a video, from one pass over its frames.

What is kept of a frame is a picture of 18 × 32 pixels (2 kB), and of every second one a little larger; so memory grows
by 70 kB for a second of video, whatever its size.
"""

from collections import deque
from dataclasses import dataclass

import numpy as np
from PIL import Image

from mpjax.data.media import Media
from mpjax.data.raw.motion import motion
from mpjax.data.video import probe, read_frames

SHORT_SIDE = 64
# (rows, columns) of the pictures that shots are found on, for pictures wider than high.
SMALL = (18, 32)
MOTION_RATE = 4.0
LUMA = np.array([0.299, 0.587, 0.114], np.float32)
# Luma, of 255, that the brightest pixels but 2 % stay below in a black frame.
BLACK = 28.0
# Mean change, of 255, below which a picture is the same again.
SAME = 0.01


@dataclass(frozen=True, kw_only=True)
class Measured:
    """A range of a video, seen at a constant rate.

    Attributes:
        height, width: of its pictures as shown.
        fps: the rate.
        pictures: all frames at a small size, uint8 `[n, h, w, 3]`.
        black: frames that are black, bool `[n]`.
        moves: motion at `move_times`, columns of `motion.Motion`, in short sides of the picture a second, `[m, 2]`.
        move_times: seconds from the range's first frame, `[m]`.
        views: a larger frame of every second, uint8 `[seconds, h, w, 3]`.
        note: where the stream is damaged.
    """

    height: int
    width: int
    fps: float
    pictures: np.ndarray
    black: np.ndarray
    moves: np.ndarray
    move_times: np.ndarray
    views: np.ndarray
    note: str

    @property
    def seconds(self) -> float:
        """How much could be read."""
        return len(self.pictures) / self.fps

    def scores(self, start: float, end: float) -> dict[str, float]:
        """Of the frames from `start` to `end`, in seconds from the range's first: black, frozen, dynamism, camera."""
        first, last = round(start * self.fps), max(round(end * self.fps), round(start * self.fps) + 1)
        pictures = self.pictures[first:last].astype(np.int16)
        same = np.abs(np.diff(pictures, axis=0)).mean((1, 2, 3)) < SAME
        inside = (self.move_times >= start) & (self.move_times < end)
        moves = self.moves[inside].mean(0) if inside.any() else np.zeros(2)
        return {
            "black": _longest_run(self.black[first:last]) / self.fps,
            "frozen": _longest_run(same) / self.fps,
            "dynamism": float(moves[0]),
            "camera": float(moves[1]),
        }

    def view(self, time: float) -> np.ndarray:
        """The stored frame nearest to a time from the range's first frame, uint8 `[h, w, 3]`."""
        return self.views[min(len(self.views) - 1, max(0, round(time)))]


def measure(
    media: Media, *, fps: float, start: float = 0.0, end: float | None = None, deadline_seconds: float = 600.0
) -> Measured:
    """Reads a range once.

    Args:
        media: the video.
        fps: rate at which it is looked at.
        start, end: seconds from the video's first frame; None: its end.
        deadline_seconds: see `read_frames`.

    Raises:
        InputError: nothing can be decoded, or the deadline passed.
    """
    shown = probe(media, deadline_seconds=deadline_seconds)
    scale = SHORT_SIDE / min(shown.height, shown.width)
    height, width = round(shown.height * scale), round(shown.width * scale)
    small = SMALL if width >= height else SMALL[::-1]
    note: list[str] = []
    step = max(1, round(fps / MOTION_RATE))
    pictures: list[np.ndarray] = []
    views: list[np.ndarray] = []
    black, moves, times = [], [], []
    past: deque[np.ndarray] = deque(maxlen=step)
    frames = read_frames(
        media,
        fps=fps,
        height=height,
        width=width,
        start=start,
        end=end,
        deadline_seconds=deadline_seconds,
        note=note.append,
    )
    for number, frame in enumerate(frames):
        pictures.append(np.asarray(Image.fromarray(frame).resize(small[::-1], Image.Resampling.BOX)))
        gray = frame @ LUMA
        black.append(bool(np.quantile(gray, 0.98) < BLACK))
        if number % step == 0 and len(past) == step:
            moves.append(np.array(motion(past[0], gray)) * fps / step)
            times.append((number - step / 2) / fps)
        past.append(gray)
        if number >= len(views) * fps:
            views.append(frame)
    return Measured(
        height=shown.height,
        width=shown.width,
        fps=fps,
        pictures=np.stack(pictures) if pictures else np.zeros((0, *small, 3), np.uint8),
        black=np.array(black, bool),
        moves=np.array(moves).reshape(-1, 2),
        move_times=np.array(times),
        views=np.stack(views) if views else np.zeros((1, height, width, 3), np.uint8),
        note=note[0] if note else "",
    )


def _longest_run(flags: np.ndarray) -> int:
    """The most true values in a row."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], flags.astype(np.int8), [0]])))
    return int((edges[1::2] - edges[::2]).max(initial=0))
