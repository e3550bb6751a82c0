"""Decoding through PyAV: the frames of any container with their times, from any time on, within a time limit."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import av
from av.container import InputContainer
from av.stream import Disposition
from av.video.stream import VideoStream

from mpjax.data.media import Media
from mpjax.errors import InputError

# Nearer to the beginning decoding everything costs no more than a jump.
LEAST_JUMP_SECONDS = 2


class Timed(NamedTuple):
    """One decoded frame, its time since the video's first frame, and its duration, in seconds; duration 0: unknown."""

    time: Fraction
    duration: Fraction
    frame: av.VideoFrame


class Reading:
    """A video being read: its stream, and the time spent on it so far."""

    def __init__(self, media: Media, container: InputContainer, stream: VideoStream, deadline_seconds: float):
        self.media, self.stream = media, stream
        self._container, self._deadline, self._spent = container, deadline_seconds, 0.0
        self._count = 0

    def frames(self, start: Fraction = Fraction(0), note: Callable[[str], None] = lambda _: None) -> Iterator[Timed]:
        """Frames in presentation order up to the end of the stream or its first damage.

        Args:
            start: seconds; the first frame given is at or before it, wherever the stream allows a jump; else the
                video's first.
            note: receives one sentence where the stream is damaged.

        Raises:
            InputError: not one frame can be decoded, or the deadline passed.
        """
        packets = self._demux()
        opening = self._decode(packets, note)
        origin = next(opening)
        if start >= LEAST_JUMP_SECONDS and origin.frame.pts is not None:
            for back in (start, start - 10, start - 60):
                # A jump is by decoding time, and an index may be wrong: what counts is the first frame that comes out.
                if back < LEAST_JUMP_SECONDS or not self._jump(origin.time + back):
                    break
                landed = self._decode(self._demux(), note)
                first = next(landed, None)
                if first is not None and origin.time <= first.time <= origin.time + start:
                    yield first._replace(time=first.time - origin.time)
                    yield from (frame._replace(time=frame.time - origin.time) for frame in landed)
                    return
            if not self._jump(origin.time):
                raise InputError(f"{self.media}: cannot be read from {float(start):g} s on; write the file anew")
            opening = self._decode(self._demux(), note)
        else:
            yield origin._replace(time=Fraction(0))
        yield from (frame._replace(time=frame.time - origin.time) for frame in opening)

    def seconds(self) -> float:
        """The length that the header claims, 0 where it says nothing."""
        if self.stream.duration is not None and self.stream.time_base is not None:
            return float(self.stream.duration * self.stream.time_base)
        return (self._container.duration or 0) / av.time_base

    def _jump(self, to: Fraction) -> bool:
        assert self.stream.time_base is not None
        try:
            self._container.seek(int(to / self.stream.time_base), stream=self.stream, backward=True)
        except (av.error.FFmpegError, OSError, ValueError):
            return False
        return True

    def _demux(self) -> Iterator[av.Packet]:
        return self._container.demux(self.stream)

    def _decode(self, packets: Iterator[av.Packet], note: Callable[[str], None]) -> Iterator[Timed]:
        """Frames with the stream's own clock."""
        count = 0
        last, step = Fraction(0), Fraction(1, 25) if not self.stream.average_rate else 1 / self.stream.average_rate
        while True:
            started = time.monotonic()
            try:
                packet = next(packets, None)
                frames = [] if packet is None else packet.decode()
            except (av.error.FFmpegError, OSError, ValueError) as error:
                late = self._spent + time.monotonic() - started > self._deadline
                if isinstance(error, av.error.ExitError) or late:
                    raise _too_slow(self.media, self._deadline) from error
                if self._count == 0:
                    raise InputError(f"{self.media}: not one frame can be decoded; leave it out") from error
                note(f"damaged after {count} source frames; the rest is not used")
                return
            self._spent += time.monotonic() - started
            if self._spent > self._deadline:
                raise _too_slow(self.media, self._deadline)
            for frame in frames:
                # Decoders paint over what they miss. At the start (a stream cut before a key frame) that passes; later
                # on it is the damage at the end of a broken file.
                if frame.is_corrupt and count == 0:
                    continue
                if frame.is_corrupt:
                    note(f"damaged after {count} source frames; the rest is not used")
                    return
                count += 1
                self._count += 1
                unit = self.stream.time_base if frame.time_base is None else frame.time_base
                assert unit is not None
                last = last + step if frame.pts is None else frame.pts * unit
                yield Timed(last, (frame.duration or 0) * unit, frame)
            if packet is None:
                if self._count == 0:
                    raise InputError(f"{self.media}: not one frame can be decoded; leave it out")
                return


def _too_slow(media: Media, deadline_seconds: float) -> InputError:
    return InputError(f"{media}: decoding took longer than {deadline_seconds:g} s; cut the video into shorter files")


@contextmanager
def open_video(video: Path | Media, deadline_seconds: float) -> Iterator[Reading]:
    """Opens a video's first stream that is no cover picture.

    Args:
        video: a local file, or one inside a tar.
        deadline_seconds: wall-clock time spent opening and decoding; what the caller does in between does not count.

    Raises:
        InputError: no such file, an empty one, one that may not be read, no video, or the deadline passed.
    """
    media = video if isinstance(video, Media) else Media(path=video)
    media.check()
    try:
        source = media.open() if media.member else media.path
        container = av.open(source, "r", metadata_errors="replace", timeout=deadline_seconds)
    except PermissionError as error:
        raise InputError(f"{media}: may not be read; change its permissions") from error
    except (av.error.FFmpegError, OSError, ValueError) as error:
        if isinstance(error, av.error.ExitError):
            raise _too_slow(media, deadline_seconds) from error
        raise InputError(f"{media}: not a media file, or damaged at the start; leave it out") from error
    with container:
        streams = [s for s in container.streams.video if not s.disposition & Disposition.attached_pic]
        if not streams:
            raise InputError(f"{media}: no video stream; leave it out")
        # One thread: how many frames come out before an error would otherwise depend on the number of cores.
        streams[0].thread_count = 1
        yield Reading(media, container, streams[0], deadline_seconds)
