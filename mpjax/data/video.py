"""Reading videos and images through PyAV: any container, any pixel format, by presentation time, a frame at a time."""

import itertools
import math
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple, TypeVar

import av
import numpy as np
from av.container import InputContainer
from av.stream import Disposition
from av.video.reformatter import Colorspace, Interpolation, VideoReformatter
from av.video.stream import VideoStream

from mpjax.errors import InputError

T = TypeVar("T")

# A frame may be shown this fraction of an output interval early. Containers round time stamps (Matroska to 1 ms), and
# without a margin a 24 fps file read at 24 fps would repeat and drop frames at random.
EARLY = Fraction(1, 4)
# A longer gap between two time stamps is a broken clock (streams that were cut and glued), not a still picture.
LONGEST_HOLD_SECONDS = 60
# Beyond this ratio of the sides nothing of a picture is left after the centre crop.
LARGEST_ASPECT_RATIO = 50

# Without these swscale rounds differently on different CPUs.
REPRODUCIBLE = Interpolation.ACCURATE_RND | Interpolation.BITEXACT | Interpolation.FULL_CHR_H_INT
UNSPECIFIED_COLORSPACE = 2
HD_HEIGHT = 720


class Timed(NamedTuple):
    """One decoded frame and its presentation time and duration in seconds; duration 0 means unknown."""

    time: Fraction
    duration: Fraction
    frame: av.VideoFrame


def read_frames(
    path: Path,
    *,
    fps: float,
    height: int,
    width: int,
    max_seconds: float | None = None,
    deadline_seconds: float = 600.0,
    note: Callable[[str], None] | None = None,
) -> Iterator[np.ndarray]:
    """Frames of a video at a target rate and size, one at a time: uint8 `[height, width, 3]`.

    Output frame i shows the last source frame whose presentation time, counted from the first one, is at most
    (i + 1/4) / fps; frames are repeated or dropped to hold that, whatever the source's rate, constant or not.
    The display matrix (rotations by quarter turns) and the sample aspect ratio are applied, then the picture is
    resized to cover `(height, width)` and cropped at the centre. Memory holds two decoded frames.

    A bit stream that breaks after some frames ends there; `note` receives one sentence on where and why.

    Args:
        path: a local file.
        fps: output frames per second.
        height: output rows.
        width: output columns.
        max_seconds: read no more than this much of the video.
        deadline_seconds: wall-clock time spent opening and decoding; the time the caller takes between two frames is
            not counted.
        note: called at most once.

    Raises:
        InputError: nothing can be decoded, the picture is absurdly elongated, or the deadline passed.
    """
    if not fps > 0:
        raise InputError(f"fps is {fps}: give a positive number of frames per second")
    rate = Fraction(fps).limit_denominator(1001)
    limit = None if max_seconds is None else math.ceil(max_seconds * rate)
    to_rgb = FrameResizer(path, height, width)
    with open_stream(path, deadline_seconds) as (container, stream):
        timed = decode(path, container, stream, deadline_seconds, note or (lambda _: None))
        source, rgb = None, None
        for frame in itertools.islice(resample(timed, rate), limit):
            if frame is not source:
                source, rgb = frame, to_rgb(frame, stream.sample_aspect_ratio)
            assert rgb is not None
            yield rgb.copy()


def read_image(path: Path, *, height: int, width: int) -> np.ndarray:
    """A picture (or the first frame of a video), turned upright, resized to cover and centre-cropped.

    Returns:
        uint8 `[height, width, 3]`.

    Raises:
        InputError: the file is no picture that can be decoded.
    """
    # Of a video the first frame: at a lower rate a later one may be nearer to the first interval's beginning.
    return next(read_frames(path, fps=1000, height=height, width=width))


def picture_size(path: Path, *, deadline_seconds: float = 60.0) -> tuple[int, int]:
    """Height and width of a picture, or of the first frame of a video, as it is shown: upright, in square pixels.

    Raises:
        InputError: as `read_image`.
    """
    with open_stream(path, deadline_seconds) as (container, stream):
        frame = next(decode(path, container, stream, deadline_seconds, lambda _: None)).frame
        size = frame.height, round(frame.width * (stream.sample_aspect_ratio or 1))
    return size[::-1] if round(frame.rotation / 90) % 2 else size


def resample(timed: Iterable[tuple[Fraction, Fraction, T]], fps: Fraction) -> Iterator[T]:
    """Items at a constant rate out of items with time stamps.

    Args:
        timed: (presentation time in seconds, duration or 0 where unknown, item), in decoding order. A stamp that does
            not advance is skipped; a gap above `LONGEST_HOLD_SECONDS` ends the stream.
        fps: output items per second.

    Yields:
        for each i = 0, 1, ... the last item with time - first time <= (i + EARLY) / fps, until the last item's time is
        over. One item at least, if there is any.
    """
    origin = held = None
    held_time = interval = Fraction(0)
    shown = 0
    for stamp, duration, item in timed:
        if origin is None:
            origin = stamp
        elif stamp - origin <= held_time:
            continue
        elif stamp - origin - held_time > LONGEST_HOLD_SECONDS:
            break
        else:
            while (shown + EARLY) / fps < stamp - origin:
                assert held is not None
                yield held
                shown += 1
            interval = stamp - origin - held_time
        held, held_time = item, stamp - origin
        interval = duration or interval
    if held is None:
        return
    end = held_time + min(interval or 1 / fps, Fraction(LONGEST_HOLD_SECONDS))
    while shown == 0 or (shown + EARLY) / fps < end:
        yield held
        shown += 1


class FrameResizer:
    """Decoded frame -> uint8 `[height, width, 3]`: upright, square pixels, resized to cover, centre-cropped."""

    def __init__(self, path: Path, height: int, width: int):
        """`path` only names the file in errors."""
        self._path, self._height, self._width = path, height, width
        self._reformatter = VideoReformatter()

    def __call__(self, frame: av.VideoFrame, sample_aspect_ratio: Fraction | None) -> np.ndarray:
        """Sizes are computed for every frame: a stream may change its resolution halfway."""
        quarter_turns = round(frame.rotation / 90) % 4
        rows, columns = (self._width, self._height) if quarter_turns % 2 else (self._height, self._width)
        shown_width = frame.width * (sample_aspect_ratio or 1)
        if max(shown_width / frame.height, frame.height / shown_width) > LARGEST_ASPECT_RATIO:
            raise InputError(
                f"{self._path}: a picture of {frame.width}x{frame.height} is too elongated; "
                f"the sides may differ by a factor of {LARGEST_ASPECT_RATIO} at most"
            )
        scale = max(columns / shown_width, Fraction(rows, frame.height))
        new_width = max(columns, round(shown_width * scale))
        new_height = max(rows, round(frame.height * scale))
        shrinks = new_width <= frame.width and new_height <= frame.height
        # By convention unlabelled HD is BT.709 and everything smaller BT.601, swscale's own default.
        unlabelled_hd = frame.colorspace == UNSPECIFIED_COLORSPACE and frame.height >= HD_HEIGHT
        try:
            picture = self._reformatter.reformat(
                frame,
                width=new_width,
                height=new_height,
                format="rgb24",
                src_colorspace=Colorspace.ITU709 if unlabelled_hd and not frame.format.is_rgb else None,
                interpolation=(Interpolation.AREA if shrinks else Interpolation.BICUBIC) | REPRODUCIBLE,
                threads=1,
            ).to_ndarray()
        except (av.error.FFmpegError, ValueError) as error:
            raise InputError(
                f"{self._path}: pixel format {frame.format.name} at {frame.width}x{frame.height} cannot be converted; "
                "convert the video to yuv420p"
            ) from error
        top, left = (new_height - rows) // 2, (new_width - columns) // 2
        # The display matrix turns counter-clockwise by frame.rotation, as np.rot90 does.
        return np.ascontiguousarray(np.rot90(picture[top : top + rows, left : left + columns], quarter_turns))


@contextmanager
def open_stream(path: Path, deadline_seconds: float) -> Iterator[tuple[InputContainer, VideoStream]]:
    """A file opened, and its first video stream that is no cover picture.

    Raises:
        InputError: not a media file with a video stream.
    """
    # A named pipe would block for ever, so anything that is no regular file stays outside.
    if path.is_dir():
        raise InputError(f"{path}: a folder; give a file")
    if not path.is_file():
        raise InputError(f"{path}: no such file; check the path")
    if path.stat().st_size == 0:
        raise InputError(f"{path}: empty file; copy it again or leave it out")
    try:
        container = av.open(path, metadata_errors="replace", timeout=deadline_seconds)
    except PermissionError as error:
        raise InputError(f"{path}: may not be read; change its permissions") from error
    except (av.error.FFmpegError, OSError, ValueError) as error:
        raise InputError(f"{path}: not a media file, or damaged at the start; leave it out") from error
    with container:
        streams = [s for s in container.streams.video if not s.disposition & Disposition.attached_pic]
        if not streams:
            raise InputError(f"{path}: no video stream; leave it out")
        # One thread: how many frames come out before an error would otherwise depend on the number of cores.
        streams[0].thread_count = 1
        yield container, streams[0]


def decode(
    path: Path, container: InputContainer, stream: VideoStream, deadline_seconds: float, note: Callable[[str], None]
) -> Iterator[Timed]:
    """Frames in presentation order up to the end of the stream or its first damage, of which `note` is told.

    Raises:
        InputError: there is not one, or the deadline passed.
    """
    spent, count = 0.0, 0
    last, step = Fraction(0), Fraction(1, 25) if not stream.average_rate else 1 / stream.average_rate
    packets = container.demux(stream)
    while True:
        started = time.monotonic()
        try:
            packet = next(packets, None)
            frames = [] if packet is None else packet.decode()
        except (av.error.FFmpegError, OSError, ValueError) as error:
            if isinstance(error, av.error.ExitError) or spent + time.monotonic() - started > deadline_seconds:
                raise InputError(_too_slow(path, deadline_seconds)) from error
            if count == 0:
                raise InputError(f"{path}: not one frame can be decoded; leave it out") from error
            note(f"damaged after {count} source frames; the rest is not used")
            return
        spent += time.monotonic() - started
        if spent > deadline_seconds:
            raise InputError(_too_slow(path, deadline_seconds))
        for frame in frames:
            # Decoders paint over what they miss. At the start (a stream cut before a key frame) that passes; later on
            # it is the damage at the end of a broken file.
            if frame.is_corrupt and count == 0:
                continue
            if frame.is_corrupt:
                note(f"damaged after {count} source frames; the rest is not used")
                return
            count += 1
            unit = stream.time_base if frame.time_base is None else frame.time_base
            assert unit is not None
            last = last + step if frame.pts is None else frame.pts * unit
            yield Timed(last, (frame.duration or 0) * unit, frame)
        if packet is None:
            if count == 0:
                raise InputError(f"{path}: not one frame can be decoded; leave it out")
            return


def _too_slow(path: Path, deadline_seconds: float) -> str:
    return f"{path}: decoding took longer than {deadline_seconds:g} s; cut the video into shorter files"
