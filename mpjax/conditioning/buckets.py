"""FramePack's picture sizes: a fixed list of about 640² pixels, of which the one nearest in shape is taken.

Source: docs/backbone.md, section 2.7 (lllyasviel's FramePack, bucket "640").
"""

from collections.abc import Sequence

import numpy as np
from PIL import Image

from mpjax.errors import InputError

# (height, width), flat ones first; all are multiples of 32.
_FLAT = ((416, 960), (448, 864), (480, 832), (512, 768), (544, 704), (576, 672), (608, 640))
BUCKETS = _FLAT + tuple((width, height) for height, width in reversed(_FLAT))


# Buckets whose areas differ by less are alternatives of one resolution.
SAME_RESOLUTION = 1.25


def nearest_bucket(height: int, width: int, buckets: Sequence[tuple[int, int]] = BUCKETS) -> tuple[int, int]:
    """The (height, width) of one of the buckets for a picture of this size; of equally near ones the later."""
    if min(height, width) < 1:
        raise InputError(f"a picture of {height} × {width} pixels has no shape: give another one")
    return min(reversed(buckets), key=lambda bucket: abs(height * bucket[1] - width * bucket[0]))


def largest_bucket(height: int, width: int, buckets: Sequence[tuple[int, int]]) -> tuple[int, int]:
    """The nearest bucket of the highest resolution that the picture fills without being enlarged, or of the lowest.

    Args:
        height, width: of the picture.
        buckets: (height, width) in any order and of any number of resolutions. For one resolution, such as `BUCKETS`,
            this is `nearest_bucket`.
    """
    rest = sorted(range(len(buckets)), key=lambda i: -buckets[i][0] * buckets[i][1])
    while True:
        area = buckets[rest[0]][0] * buckets[rest[0]][1]
        tier = [i for i in rest if buckets[i][0] * buckets[i][1] * SAME_RESOLUTION > area]
        rest = rest[len(tier) :]
        nearest = nearest_bucket(height, width, [buckets[i] for i in sorted(tier)])
        if not rest or (nearest[0] <= height and nearest[1] <= width):
            return nearest


def cover(picture: np.ndarray, height: int, width: int) -> np.ndarray:
    """Resizes uint8 `[H, W, 3]` to cover height × width (Lanczos) and cuts out the centre: `[height, width, 3]`."""
    rows, columns = picture.shape[:2]
    scale = max(height / rows, width / columns)
    size = (round(columns * scale), round(rows * scale))
    resized = Image.fromarray(picture).resize(size, Image.Resampling.LANCZOS)
    left, top = round((size[0] - width) / 2), round((size[1] - height) / 2)
    return np.asarray(resized.crop((left, top, left + width, top + height)))
