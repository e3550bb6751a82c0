"""The clip that `--video` continues: read a segment at a time, however long it is."""

import hashlib
import itertools
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from mpjax.data.video import read_frames
from mpjax.errors import InputError
from mpjax.generation.first_frame import to_float
from mpjax.weights import Run


def whole_segments(run: Run, clip: Path, segment_frames: int, total: int) -> int:
    """How many whole segments of pixel frames follow the first frame of a clip.

    Args:
        run: gives rate and size.
        clip: a video file.
        segment_frames: pixel frames of a segment.
        total: frames of the whole video, which the clip must not fill.

    Raises:
        InputError: the clip is shorter than one segment, or as long as the whole video.
    """
    # One frame more than needed would tell nothing new: a clip that reaches `total` leaves nothing to generate.
    count = sum(1 for _ in _frames(run, clip, total))
    if count >= total:
        raise InputError(
            f"{clip} alone fills the {total / run.fps:g} s of --seconds, which count the clip: raise --seconds"
        )
    if count <= segment_frames:
        raise InputError(
            f"{clip} has {count} frames at {run.fps:g} frames/s, but the model continues whole segments: "
            f"give a clip of at least {(1 + segment_frames) / run.fps:g} s"
        )
    return (count - 1) // segment_frames


def given_segments(run: Run, clip: Path, segment_frames: int, segments: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yields, for each of the first whole segments, its pixels and its latents.

    Yields:
        uint8 `[n, H, W, 3]` and float32 `[f, h, w, c]`. The clip is encoded as one stream from its first frame on.
    """
    # A codec may need later frames before it completes the latents of a segment: `tee` keeps the pixels until then.
    pixels, encoded = itertools.tee(_chunks(run, clip, segment_frames, segments))
    latents = _latents(run, encoded)
    next(pixels), next(latents)  # the reference frame
    for chunk in pixels:
        yield chunk, np.stack(list(itertools.islice(latents, segment_frames // run.codec.time_factor)))


def first_pixels(run: Run, clip: Path) -> np.ndarray:
    """The clip's first frame as it is, uint8 `[1, H, W, 3]`."""
    return next(_frames(run, clip, 1))[None]


def file_hash(path: Path) -> str:
    """sha256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _frames(run: Run, clip: Path, count: int) -> Iterator[np.ndarray]:
    """At most `count` frames at the run's rate and size."""
    frames = read_frames(clip, fps=run.fps, height=run.height, width=run.width, end=count / run.fps)
    return itertools.islice(frames, count)


def _chunks(run: Run, clip: Path, segment_frames: int, segments: int) -> Iterator[np.ndarray]:
    """The first frame, then whole segments, uint8 `[n, H, W, 3]`."""
    frames = _frames(run, clip, 1 + segments * segment_frames)
    for count in (1, *[segment_frames] * segments):
        yield np.stack(list(itertools.islice(frames, count)))


def _latents(run: Run, chunks: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
    """Latent frames `[h, w, c]` of a clip that ends with the last chunk."""
    tail = run.codec.encode_start(1, run.height, run.width)
    for chunk in chunks:
        latents, tail = run.codec.encode_stream(tail, to_float(chunk)[None])
        yield from latents[0]
    yield from run.codec.encode_finish(tail)[0]
