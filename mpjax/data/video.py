"""Reading videos and images through PyAV: any container, any pixel format, by presentation time, a frame at a time."""

import itertools
import math
from collections.abc import Callable, Iterable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple, TypeVar

import av
import numpy as np
from av.video.reformatter import Colorspace, Interpolation, VideoReformatter

from mpjax.data.decoding import open_video
from mpjax.data.media import Media
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


def read_frames(
    video: Path | Media,
    *,
    fps: float,
    height: int,
    width: int,
    start: float = 0.0,
    end: float | None = None,
    deadline_seconds: float = 600.0,
    note: Callable[[str], None] | None = None,
) -> Iterator[np.ndarray]:
    """Frames of a video at a target rate and size, one at a time: uint8 `[height, width, 3]`.

    Output frame i shows the last source frame whose presentation time, counted from the first one, is at most
    start + (i + 1/4) / fps; frames are repeated or dropped to hold that, whatever the source's rate, constant or not.
    The display matrix (rotations by quarter turns) and the sample aspect ratio are applied, then the picture is
    resized to cover `(height, width)` and cropped at the centre. Memory holds two decoded frames.

    A bit stream that breaks after some frames ends there; `note` receives one sentence on where and why.

    Args:
        video: a local file, or one inside a tar.
        fps: output frames per second.
        height: output rows.
        width: output columns.
        start: seconds from the video's first frame to the first output frame; a jump to it is by key frames, so a range
            of a long video costs no more than it is long.
        end: seconds to where output stops; None: the end of the video.
        deadline_seconds: wall-clock time spent opening and decoding; the time the caller takes between two frames is
            not counted.
        note: called at most once.

    Raises:
        InputError: nothing can be decoded, the picture is absurdly elongated, or the deadline passed.
    """
    if not fps > 0:
        raise InputError(f"fps is {fps}: give a positive number of frames per second")
    if start < 0 or (end is not None and end <= start):
        raise InputError(f"{video}: the range from {start} to {end} s is empty; give 0 ≤ start < end")
    rate, begin = Fraction(fps).limit_denominator(1001), Fraction(start).limit_denominator(10**6)
    # A range of n / fps seconds in floating point must not round up to n + 1 frames.
    limit = None if end is None else math.ceil((end - start) * float(rate) - 1e-6)
    to_rgb = FrameResizer(video, height, width)
    with open_video(video, deadline_seconds) as reading:
        timed = reading.frames(begin, note or (lambda _: None))
        source, rgb = None, None
        for frame in itertools.islice(resample(timed, rate, begin), limit):
            if frame is not source:
                source, rgb = frame, to_rgb(frame, reading.stream.sample_aspect_ratio)
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


class Probe(NamedTuple):
    """What the header and the first frame of a video tell.

    Attributes:
        height, width: in pixels as shown: upright, with square pixels.
        seconds: as the header claims, which a broken file does not hold; 0 where it says nothing.
        fps: mean source frames per second as claimed; 0 where it says nothing.
    """

    height: int
    width: int
    seconds: float
    fps: float


def probe(video: Path | Media, *, deadline_seconds: float = 60.0) -> Probe:
    """Size, length and rate of a video at the cost of one frame.

    Raises:
        InputError: nothing can be decoded, or the deadline passed.
    """
    with open_video(video, deadline_seconds) as reading:
        frame = next(reading.frames()).frame
        size = frame.height, round(frame.width * (reading.stream.sample_aspect_ratio or 1))
        height, width = size[::-1] if round(frame.rotation / 90) % 2 else size
        return Probe(height, width, reading.seconds(), float(reading.stream.average_rate or 0))


def picture_size(path: Path, *, deadline_seconds: float = 60.0) -> tuple[int, int]:
    """Height and width of a picture, or of the first frame of a video, as it is shown: upright, in square pixels.

    Raises:
        InputError: as `read_image`.
    """
    return probe(path, deadline_seconds=deadline_seconds)[:2]


def resample(
    timed: Iterable[tuple[Fraction, Fraction, T]], fps: Fraction, start: Fraction | None = None
) -> Iterator[T]:
    """Items at a constant rate out of items with time stamps.

    Args:
        timed: (presentation time in seconds, duration or 0 where unknown, item), in decoding order. A stamp that does
            not advance is skipped; a gap above `LONGEST_HOLD_SECONDS` ends the stream.
        fps: output items per second.
        start: time of the first output; None: the first stamp.

    Yields:
        for each i = 0, 1, ... the last item with time <= start + (i + EARLY) / fps (or the first item, where there is
        none), until the last item's time is over. One item at least, if there is any at or after the start.
    """
    held = None
    held_time = interval = Fraction(0)
    shown = 0
    for stamp, duration, item in timed:
        if start is None:
            start = stamp
        if held is not None:
            if stamp <= held_time:
                continue
            if stamp - held_time > LONGEST_HOLD_SECONDS:
                break
            while start + (shown + EARLY) / fps < stamp:
                yield held
                shown += 1
            interval = stamp - held_time
        held, held_time = item, stamp
        interval = duration or interval
    if held is None:
        return
    assert start is not None
    end = held_time + min(interval or 1 / fps, Fraction(LONGEST_HOLD_SECONDS))
    while (shown == 0 and held_time >= start) or start + (shown + EARLY) / fps < end:
        yield held
        shown += 1


class FrameResizer:
    """Decoded frame -> uint8 `[height, width, 3]`: upright, square pixels, resized to cover, centre-cropped."""

    def __init__(self, video: Path | Media, height: int, width: int, *, as_decord: bool = False):
        """A converter for the frames of one video.

        Args:
            video: only names the file in errors.
            height: output rows.
            width: output columns.
            as_decord: give the colours that decord gives, which are swscale's own: rounded as the CPU does it
                fastest, chroma repeated, and BT.601 where no matrix is named. Otherwise they are the same on every CPU,
                and HD without a name is BT.709, as players take it by convention.
        """
        self._path, self._height, self._width, self._as_decord = video, height, width, as_decord
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
        names_bt709 = unlabelled_hd and not frame.format.is_rgb and not self._as_decord
        interpolation = Interpolation.AREA if shrinks else Interpolation.BICUBIC
        try:
            picture = self._reformatter.reformat(
                frame,
                width=new_width,
                height=new_height,
                format="rgb24",
                src_colorspace=Colorspace.ITU709 if names_bt709 else None,
                interpolation=interpolation if self._as_decord else interpolation | REPRODUCIBLE,
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
