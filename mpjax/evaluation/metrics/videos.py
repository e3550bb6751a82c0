"""A video to be evaluated: its frames as they are stored, one at a time, and what a metric must know beside them."""

import dataclasses
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np

from mpjax.data.clip_sources import VIDEO_SUFFIXES
from mpjax.data.stored_frames import count_frames, stored_frames
from mpjax.errors import InputError

PICTURES = (".png", ".jpg", ".jpeg", ".webp")


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Video:
    """A video, counted but not kept.

    Attributes:
        name: in tables; of a file its path as the user gave it.
        fps: frames per second, the average.
        frames: how many.
        read: gives all frames in display order, uint8 `[height, width, 3]`, each time it is called.
        image: gives the picture that it was generated from, uint8 `[height, width, 3]` of any size, each time it is
            called; None without one.
        no_image: why there is none.
        joins: indices of the frames with which a generated segment begins, 0 left out; empty where unknown.
        no_joins: why there are none.
        backward: it was generated from its end to its beginning.
    """

    name: str
    fps: float
    frames: int
    read: Callable[[], Iterator[np.ndarray]]
    image: Callable[[], np.ndarray] | None = None
    no_image: str = "needs the picture that the video began with: give --images"
    joins: tuple[int, ...] = ()
    no_joins: str = "no join of segments is known: give --segment-frames"
    backward: bool = False

    @property
    def seconds(self) -> float:
        """How long it is."""
        return self.frames / self.fps


def open_video(path: Path, *, image: Path | None = None, joins: tuple[int, ...] = (), backward: bool = False) -> Video:
    """Reads a video once to count its frames, and its picture once; keeps neither. See `Video` for the arguments.

    Raises:
        InputError: not a video that can be decoded to its end, or not a picture.
    """
    if image is not None:
        _picture(image)
    frames, fps = count_frames(path)
    return Video(
        name=str(path),
        fps=fps,
        frames=frames,
        read=lambda: stored_frames(path),
        image=None if image is None else lambda: _picture(image),
        joins=joins,
        backward=backward,
    )


def _picture(path: Path) -> np.ndarray:
    return next(stored_frames(path))


def with_segments(video: Video, segment_frames: int | None) -> Video:
    """The video with the joins of its segments, each so many frames long, after the frame it began with.

    A video that was generated backward ends with that frame. None leaves the joins unknown. Where the join with that
    frame would be the only one, the video is one segment and has none.

    Raises:
        InputError: less than one frame.
    """
    if segment_frames is None:
        return video
    if segment_frames < 1:
        raise InputError(f"--segment-frames {segment_frames}: give the frames of a generated segment, 1 or more")
    joins = range(1, video.frames, segment_frames)
    if video.backward:
        joins = range(video.frames - 1, 0, -segment_frames)
    if len(joins) < 2:
        return dataclasses.replace(video, no_joins="no join inside: the video is one segment")
    return dataclasses.replace(video, joins=tuple(sorted(joins)))


def find_videos(paths: Iterable[Path]) -> list[Path]:
    """Files as they are, and of each folder the videos in it, by name.

    Raises:
        InputError: nothing there, a folder without a video, or a file twice.
    """
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            inside = sorted(each for each in path.iterdir() if each.suffix.lower() in VIDEO_SUFFIXES)
            if not inside:
                raise InputError(f"{path}: no video in this folder; they end in {', '.join(VIDEO_SUFFIXES)}")
            found += inside
        elif path.is_file():
            found.append(path)
        else:
            raise InputError(f"{path}: no such file or folder; check the path")
    for path in found:
        if found.count(path) > 1:
            raise InputError(f"{path} is given twice: name it once")
    return found


def find_image(video: Path, folder: Path) -> Path | None:
    """The picture in a folder that has the video's name, with or without `-0`, `-1`, … at its end; None if none has.

    VBench numbers the videos that are made of one picture.
    """
    for stem in (video.stem, re.sub(r"-\d+$", "", video.stem)):
        for suffix in PICTURES:
            if (path := folder / f"{stem}{suffix}").is_file():
                return path
    return None
