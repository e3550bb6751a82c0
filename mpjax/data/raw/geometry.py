"""What a clip is: its rate, its sizes, and how a range is cut into clips of whole segments."""

from dataclasses import dataclass

from mpjax.conditioning.buckets import BUCKETS, largest_bucket
from mpjax.errors import InputError


@dataclass(frozen=True, kw_only=True)
class Geometry:
    """Clips hold `segment_frames` · n + 1 frames, 1 ≤ n ≤ `max_segments`.

    Attributes:
        fps: frames per second after resampling.
        segment_frames: pixel frames of a segment: the codec's time factor times latent frames (4 · 9 = 36).
        max_segments: longest clip; 40 segments of 36 frames at 24 fps are a minute.
        buckets: (height, width) to choose from.
    """

    fps: float = 24.0
    segment_frames: int = 36
    max_segments: int = 40
    buckets: tuple[tuple[int, int], ...] = BUCKETS

    def __post_init__(self):
        if not self.fps > 0:
            raise InputError(f"fps is {self.fps}: give a positive number of frames per second")
        for name in ("segment_frames", "max_segments"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} is {getattr(self, name)}: it must be at least 1")
        if not self.buckets or any(min(bucket) < 1 for bucket in self.buckets):
            raise InputError(f"buckets is {self.buckets}: give at least one (height, width), both positive")

    def frames(self, segments: int) -> int:
        """Frames of a clip of so many segments."""
        return self.segment_frames * segments + 1

    def bucket(self, height: int, width: int) -> tuple[int, int]:
        """The (height, width) that a picture of this size is scaled and cropped to, see `largest_bucket`."""
        return largest_bucket(height, width, self.buckets)

    def enlargement(self, height: int, width: int) -> float:
        """How much a picture of this size is enlarged to cover its bucket; below 1 it shrinks."""
        rows, columns = self.bucket(height, width)
        return max(rows / height, columns / width)

    def windows(self, start: float, end: float) -> list[tuple[float, int]]:
        """(start in seconds, segments) of consecutive clips within a range; each begins at the frame after the last.

        A rest shorter than one segment is dropped. Starts lie on the grid of frames from `start` on.
        """
        # Half a thousandth of a frame: ends are computed, and must not lose their last frame to rounding.
        frames = int((end - start) * self.fps + 5e-4)
        windows, first = [], 0
        while (segments := min((frames - first - 1) // self.segment_frames, self.max_segments)) >= 1:
            windows.append((start + first / self.fps, segments))
            first += self.frames(segments)
        return windows
