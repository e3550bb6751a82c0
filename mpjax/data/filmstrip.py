"""Rows of frames as one image, to look at."""

import io
from collections.abc import Sequence

import numpy as np
from PIL import Image


def filmstrip(rows: Sequence[np.ndarray], *, least: int = 48, gap: int = 2) -> np.ndarray:
    """Stacks rows of frames into one picture, enlarged by nearest neighbour.

    Args:
        rows: each `[n, H, W, 3]`, uint8 or float in [−1, 1]; rows may differ in n.
        least: smallest side of a frame in the picture, in pixels.
        gap: white pixels between frames.

    Returns:
        uint8 `[height, width, 3]`.
    """
    scale = max(1, -(-least // min(rows[0].shape[1:3])))
    strips = [np.repeat(np.repeat(to_uint8(row), scale, 1), scale, 2) for row in rows]
    height, width = strips[0].shape[1:3]
    columns = max(len(strip) for strip in strips)
    size = (len(strips) * (height + gap) - gap, columns * (width + gap) - gap, 3)
    picture = np.full(size, 255, np.uint8)
    for y, strip in enumerate(strips):
        for x, frame in enumerate(strip):
            top, left = y * (height + gap), x * (width + gap)
            picture[top : top + height, left : left + width] = frame
    return picture


def stack(panels: Sequence[bytes], gap: int = 16) -> np.ndarray:
    """Pictures below one another, each as wide as the first.

    Args:
        panels: encoded pictures, one or more.
        gap: white pixels between them.

    Returns:
        uint8 `[height, width, 3]`.
    """
    images = [Image.open(io.BytesIO(panel)).convert("RGB") for panel in panels]
    width = images[0].width
    images = [image.resize((width, image.height * width // image.width), Image.Resampling.LANCZOS) for image in images]
    canvas = Image.new("RGB", (width, sum(image.height + gap for image in images) - gap), "white")
    top = 0
    for image in images:
        canvas.paste(image, (0, top))
        top += image.height + gap
    return np.asarray(canvas)


def to_uint8(frames: np.ndarray) -> np.ndarray:
    """Float frames in [−1, 1] → uint8; uint8 frames as they are."""
    if frames.dtype == np.uint8:
        return frames
    return np.round((np.clip(frames, -1.0, 1.0) + 1.0) * 127.5).astype(np.uint8)


def png(picture: np.ndarray) -> bytes:
    """A uint8 picture `[height, width, 3]` as PNG bytes."""
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()
