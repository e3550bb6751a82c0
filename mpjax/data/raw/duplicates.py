"""Clips that show what another shows: the same file, a range listed twice, a copy at another size or rate."""

import numpy as np
from PIL import Image

# Pictures of a clip that are compared, at equal parts of its length, and the grid on which each one is.
PICTURES, ROWS, COLUMNS = 6, 8, 8
SIGNATURE_BYTES = PICTURES * ROWS * COLUMNS // 8


class Seen:
    """The clips that were kept so far."""

    def __init__(self):
        self._signatures = np.zeros((64, SIGNATURE_BYTES), np.uint8)  # twice as many rows whenever they are full
        self._count = 0
        self._ranges: dict[str, list[tuple[int, float, float]]] = {}  # of a video: row, start, end

    def likeness(self, bits: np.ndarray, source_hash: str, start: float, end: float) -> float:
        """Compares a clip with those that were added.

        Two clips are as like as the part of bits that agree in their signatures: at six moments, on a grid of 8 × 8,
        whether it gets lighter to the right. Neither size nor rate nor exposure changes that much. Ranges of the same
        video are compared by their overlap, since a fixed camera looks the same all the time.

        Args:
            bits: the clip's `signature`.
            source_hash: names the video.
            start, end: the clip's range in it, in seconds.

        Returns:
            likeness to the one that is most like it, in [0, 1]; 0 where there is none.
        """
        like = 1 - np.bitwise_count(self._signatures[: self._count] ^ bits).sum(1) / (8 * bits.size)
        for row, first, last in self._ranges.get(source_hash, ()):
            shared = max(0.0, min(end, last) - max(start, first))
            like[row] = shared / max(min(end - start, last - first), 1e-9)
        return float(like.max(initial=0.0))

    def add(self, bits: np.ndarray, source_hash: str, start: float, end: float) -> None:
        """Counts a clip among those that later ones are compared with; arguments as of `likeness`."""
        if self._count == len(self._signatures):
            self._signatures = np.concatenate([self._signatures, np.zeros_like(self._signatures)])
        self._signatures[self._count] = bits
        self._ranges.setdefault(source_hash, []).append((self._count, start, end))
        self._count += 1


def signature(pictures: np.ndarray) -> np.ndarray:
    """The bits of `Seen.likeness`, uint8 `[48]`, of small frames of a clip, uint8 `[n, h, w, 3]`."""
    moments = np.round((np.arange(PICTURES) + 0.5) / PICTURES * len(pictures) - 0.5).astype(int)
    bits = []
    for picture in pictures[moments]:
        gray = Image.fromarray(picture).convert("F").resize((COLUMNS + 1, ROWS), Image.Resampling.BOX)
        bits.append(np.diff(np.asarray(gray), axis=1) > 0)
    return np.packbits(np.concatenate(bits).ravel())
