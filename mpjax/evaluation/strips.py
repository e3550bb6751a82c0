"""Rows of frames with their names beside them: filmstrips that need no legend."""

from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from mpjax.data.filmstrip import filmstrip

_TEXT = 15  # pixels
_MARGIN = 8


def named_strips(
    rows: Mapping[str, np.ndarray], *, left_out: tuple[int, int] | None = None, least: int = 48
) -> np.ndarray:
    """Stacks rows of frames, enlarged by nearest neighbour, each behind its name.

    Args:
        rows: name → `[n, H, W, 3]`, uint8 or float in [−1, 1], n the same in all.
        left_out: first and end of the frames in whose place an ellipsis stands; frames remain on both sides.
        least: smallest side of a frame in the picture, in pixels.

    Returns:
        uint8 `[height, width, 3]`.
    """
    videos = list(rows.values())
    if left_out is None or left_out[0] >= left_out[1]:
        parts = [filmstrip(videos, least=least)]
    else:
        first, end = left_out
        before = filmstrip([video[:first] for video in videos], least=least)
        after = filmstrip([video[end:] for video in videos], least=least)
        parts = [before, _column(["…"] * len(rows), len(before)), after]
    return np.concatenate([_column(list(rows), len(parts[0])), *parts], axis=1)


def _column(words: Sequence[str], height: int) -> np.ndarray:
    """Words below each other, each in the middle of its equal part of the height: uint8 `[height, width, 3]`."""
    font = ImageFont.load_default(_TEXT)
    width = 2 * _MARGIN + max(round(font.getlength(word)) for word in words)
    picture = Image.new("RGB", (width, height), "white")
    draw = ImageDraw.Draw(picture)
    for number, word in enumerate(words):
        draw.text((_MARGIN, (number + 0.5) * height / len(words)), word, "black", font, anchor="lm")
    return np.asarray(picture)
