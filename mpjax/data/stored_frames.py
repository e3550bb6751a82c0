"""The frames of a video as they are stored: every one, once, at its own size; `video.read_frames` resamples."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from mpjax.data.decoding import open_video
from mpjax.data.video import FrameResizer, picture_size
from mpjax.errors import InputError

DEADLINE_SECONDS = 3600.0


def stored_frames(path: Path) -> Iterator[np.ndarray]:
    """Every frame in display order, upright, in square pixels: uint8 `[height, width, 3]`.

    The size is that of the first frame. Colours are converted as by decord, with which VBench reads: of 8 bits, 4:2:0
    and even sides to the bit on x86, see docs/evaluation.md.

    Raises:
        InputError: as `count_frames`.
    """
    resize = FrameResizer(path, *picture_size(path), as_decord=True)
    with open_video(path, DEADLINE_SECONDS) as reading:
        for timed in reading.frames(note=lambda text: _refuse(path, text)):
            yield resize(timed.frame, reading.stream.sample_aspect_ratio)


def count_frames(path: Path) -> tuple[int, float]:
    """How many frames are stored, and how many a second; the file is decoded to its end.

    Raises:
        InputError: not a video, or damaged on the way.
    """
    with open_video(path, DEADLINE_SECONDS) as reading:
        frames = sum(1 for _ in reading.frames(note=lambda text: _refuse(path, text)))
        stream = reading.stream
        rate = stream.average_rate or stream.base_rate or stream.guessed_rate
        return frames, float(rate) if rate else 25.0


def _refuse(path: Path, text: str) -> None:
    raise InputError(f"{path}: {text.partition(';')[0]}; scores of a part are no scores of the video: write it again")
