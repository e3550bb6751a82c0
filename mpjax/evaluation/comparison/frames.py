"""Frames of the same video by every system, at 0, 25, 50, 75 and 100 % of its length."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from mpjax.data.stored_frames import count_frames, stored_frames
from mpjax.evaluation.strips import named_strips

SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)
HEIGHT = 120


def frames_at(path: Path, shares: Sequence[float] = SHARES) -> np.ndarray:
    """Frames of a video at shares of its length, the last one at 1.

    Args:
        path: the file; it is read twice, a frame at a time.
        shares: rising, 0..1.

    Returns:
        uint8 `[len(shares), height, width, 3]`, as stored.

    Raises:
        InputError: no video that can be decoded.
    """
    count, _ = count_frames(path)
    wanted = [round(share * (count - 1)) for share in shares]
    kept = {i: frame for i, frame in enumerate(stored_frames(path)) if i in wanted}
    return np.stack([kept[i] for i in wanted])


def strip(videos: dict[str, np.ndarray]) -> np.ndarray:
    """Rows of frames below one another, each behind its name, as high as HEIGHT: uint8 `[height, width, 3]`.

    Args:
        videos: name → uint8 `[n, height, width, 3]`; sizes may differ, the first one's shape is kept.
    """
    first = next(iter(videos.values()))
    size = max(1, round(first.shape[2] * HEIGHT / first.shape[1])), HEIGHT
    scaled = {
        name: np.stack([np.asarray(Image.fromarray(frame).resize(size, Image.Resampling.LANCZOS)) for frame in frames])
        for name, frames in videos.items()
    }
    return named_strips(scaled)
