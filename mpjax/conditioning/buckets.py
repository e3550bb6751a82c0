"""FramePack's picture sizes: a fixed list of about 640² pixels, of which the one nearest in shape is taken.

Source: docs/backbone.md, section 2.7 (lllyasviel's FramePack, bucket "640").
"""

import numpy as np
from PIL import Image

from mpjax.errors import InputError

# (height, width), flat ones first; all are multiples of 32.
_FLAT = ((416, 960), (448, 864), (480, 832), (512, 768), (544, 704), (576, 672), (608, 640))
BUCKETS = _FLAT + tuple((width, height) for height, width in reversed(_FLAT))


def nearest_bucket(height: int, width: int) -> tuple[int, int]:
    """The (height, width) of `BUCKETS` for a picture of this size; of equally near ones the later."""
    if min(height, width) < 1:
        raise InputError(f"a picture of {height} × {width} pixels has no shape: give another one")
    return min(reversed(BUCKETS), key=lambda bucket: abs(height * bucket[1] - width * bucket[0]))


def cover(picture: np.ndarray, height: int, width: int) -> np.ndarray:
    """Resizes uint8 `[H, W, 3]` to cover height × width (Lanczos) and cuts out the centre: `[height, width, 3]`."""
    rows, columns = picture.shape[:2]
    scale = max(height / rows, width / columns)
    size = (round(columns * scale), round(rows * scale))
    resized = Image.fromarray(picture).resize(size, Image.Resampling.LANCZOS)
    left, top = round((size[0] - width) / 2), round((size[1] - height) / 2)
    return np.asarray(resized.crop((left, top, left + width, top + height)))
