"""Clips that show what another shows: the same file, a range listed twice, a copy at another size or rate."""

import numpy as np
from PIL import Image

# Pictures of a clip that are compared, at equal parts of its length, and the grid on which each one is.
PICTURES, ROWS, COLUMNS = 6, 8, 8


class Seen:
    """The clips that were kept so far."""

    def __init__(self):
        self._signatures = np.zeros((0, PICTURES * ROWS * COLUMNS // 8), np.uint8)
        self._ranges: list[tuple[str, float, float]] = []

    def likeness(self, pictures: np.ndarray, source_hash: str, start: float, end: float) -> float:
        """Compares a clip with those that were added.

        Two clips are as like as the part of bits that agree in their signatures: at six moments, on a grid of 8 × 8,
        whether it gets lighter to the right. Neither size nor rate nor exposure changes that much. Ranges of the same
        video are compared by their overlap, since a fixed camera looks the same all the time.

        Args:
            pictures: small frames of the clip, uint8 `[n, h, w, 3]`.
            source_hash: names the video.
            start, end: the clip's range in it, in seconds.

        Returns:
            likeness to the one that is most like it, in [0, 1]; 0 where there is none.
        """
        bits = signature(pictures)
        like = 1 - np.bitwise_count(self._signatures ^ bits).sum(1) / (8 * bits.size)
        for place, (source, first, last) in enumerate(self._ranges):
            if source == source_hash:
                shared = max(0.0, min(end, last) - max(start, first))
                like[place] = shared / max(min(end - start, last - first), 1e-9)
        return float(like.max(initial=0.0))

    def add(self, pictures: np.ndarray, source_hash: str, start: float, end: float) -> None:
        """Counts a clip among those that later ones are compared with; arguments as of `likeness`."""
        self._signatures = np.concatenate([self._signatures, signature(pictures)[None]])
        self._ranges.append((source_hash, start, end))


def signature(pictures: np.ndarray) -> np.ndarray:
    """The bits of `Seen.likeness`, uint8 `[48]`, of frames uint8 `[n, h, w, 3]`."""
    moments = np.round((np.arange(PICTURES) + 0.5) / PICTURES * len(pictures) - 0.5).astype(int)
    bits = []
    for picture in pictures[moments]:
        gray = Image.fromarray(picture).convert("F").resize((COLUMNS + 1, ROWS), Image.Resampling.BOX)
        bits.append(np.diff(np.asarray(gray), axis=1) > 0)
    return np.packbits(np.concatenate(bits).ravel())
