"""Tables of clips as they are published, by their columns: where the video may lie, the caption, and the range.

A dataset's own clips, where the user cut them as its tools do, come first; else the range is that of the source video.

Sources: MiraData's `miradata_v0.csv` and `miradata_v1_*.csv`, Sekai's `sekai-real-*.csv` and `sekai-game-*.csv`.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, ClassVar, Protocol

SEKAI_FPS = 30


@dataclass(frozen=True, kw_only=True)
class Place:
    """A range of a file that holds the clip: path relative to the folder of videos, seconds."""

    path: str
    start: float = 0.0
    end: float | None = None


@dataclass(frozen=True, kw_only=True)
class Row:
    """One clip of a table; the first place that exists holds it."""

    places: tuple[Place, ...]
    caption: str


class Layout(Protocol):
    """A kind of table."""

    kind: ClassVar[str]

    @property
    def columns(self) -> frozenset[str]:
        """Columns that tell it from others."""

    def read(self, values: Mapping[str, Any]) -> Row:
        """One row; raises `ValueError` with what is wrong with it."""


@dataclass(frozen=True)
class MiraDataV1:
    """`clip_id, source, video_url, video_id, ..., timestamp, ..., file_path, short_caption, dense_caption, ...`.

    `timestamp` reads `['00:06:21.300', '00:07:42.133']`. Source videos are called by the number in front of the
    dot of `clip_id`, of 12 digits, or by their `video_id`.
    """

    kind: ClassVar[str] = "MiraData v1"
    columns: frozenset[str] = frozenset({"clip_id", "video_id", "timestamp", "file_path", "dense_caption"})

    def read(self, values: Mapping[str, Any]) -> Row:
        """See `Layout`."""
        start, end = _clock_range(_text(values, "timestamp"))
        number = f"{int(_text(values, 'clip_id').partition('.')[0]):012d}.mp4"
        names = (f"raw_video/{number}", number, f"{values['video_id']}.mp4")
        ranges = (Place(path=name, start=start, end=end) for name in names)
        return Row(places=(Place(path=_text(values, "file_path")), *ranges), caption=_mira_caption(values))


@dataclass(frozen=True)
class MiraDataV0:
    """`index, video_id, start_frame, end_frame, ..., short_caption, dense_caption, fps, ...`.

    `index` reads `000000008783_AJp_ANXoGoM-000114`: the source video and the number of the clip.
    """

    kind: ClassVar[str] = "MiraData v0"
    columns: frozenset[str] = frozenset({"index", "video_id", "start_frame", "end_frame", "fps", "dense_caption"})

    def read(self, values: Mapping[str, Any]) -> Row:
        """See `Layout`."""
        fps = _number(values, "fps")
        if fps == 0:
            raise ValueError("fps is 0")
        start, end = _number(values, "start_frame") / fps, _number(values, "end_frame") / fps
        index = _text(values, "index")
        folder = f"{int(index.partition('_')[0]) // 1000:09d}"
        video = index.rpartition("-")[0]
        names = (f"raw_video/{folder}/{video}.mp4", f"{video}.mp4", f"{values['video_id']}.mp4")
        own = (Place(path=f"clip_video/{folder}/{index}.mp4"), Place(path=f"{index}.mp4"))
        ranges = (Place(path=name, start=start, end=_after(start, end)) for name in names)
        return Row(places=(*own, *ranges), caption=_mira_caption(values))


@dataclass(frozen=True)
class Sekai:
    """`videoFile, cameraFile, caption, location, scene, crowdDensity, weather, timeOfDay`.

    `videoFile` of Sekai-Real reads `au1ts-L8MXQ_0021750_0023550.mp4`: the source video, the first and the last frame at
    30 fps. Sekai-Game's are clips of their own.
    """

    kind: ClassVar[str] = "Sekai"
    columns: frozenset[str] = frozenset({"videoFile", "caption"})

    def read(self, values: Mapping[str, Any]) -> Row:
        """See `Layout`."""
        file = _text(values, "videoFile")
        places = [Place(path=file)]
        if match := re.fullmatch(r"(.+)_(\d{7})_(\d{7})", PurePosixPath(file).stem):
            video, first, last = match[1], int(match[2]) / SEKAI_FPS, int(match[3]) / SEKAI_FPS
            places.append(Place(path=f"{video}/{file}"))
            places += [
                Place(path=f"{video}{suffix}", start=first, end=_after(first, last))
                for suffix in (".mp4", ".webm", ".mkv")
            ]
        return Row(places=tuple(places), caption=str(values["caption"] or "").strip())


@dataclass(frozen=True)
class Plain:
    """`path` or `file`, and where there are such columns `caption`, `start`, `end`, in seconds or as `hh:mm:ss.mmm`."""

    kind: ClassVar[str] = "plain"
    column: str = "path"

    @property
    def columns(self) -> frozenset[str]:
        """See `Layout`."""
        return frozenset({self.column})

    def read(self, values: Mapping[str, Any]) -> Row:
        """See `Layout`."""
        start, end = _moment(values.get("start")) or 0.0, _moment(values.get("end"))
        end = None if end is None else _after(start, end)
        place = Place(path=_text(values, self.column), start=start, end=end)
        return Row(places=(place,), caption=str(values.get("caption") or "").strip())


LAYOUTS: tuple[Layout, ...] = (MiraDataV1(), MiraDataV0(), Sekai(), Plain(), Plain(column="file"))


def _mira_caption(values: Mapping[str, Any]) -> str:
    return str(values["dense_caption"] or values.get("short_caption") or "").strip()


def _text(values: Mapping[str, Any], name: str) -> str:
    value = values.get(name)
    if value is None or not str(value).strip():
        raise ValueError(f"{name} is empty")
    return str(value).strip()


def _number(values: Mapping[str, Any], name: str) -> float:
    text = _text(values, name)
    try:
        number = float(text)
    except ValueError:
        raise ValueError(f"{name} is {text!r}, no number") from None
    if not (math.isfinite(number) and number >= 0):
        raise ValueError(f"{name} is {text!r}, no number of at least 0")
    return number


def _moment(value: Any) -> float | None:
    """Seconds from a number or `hh:mm:ss.mmm`; None for an empty cell."""
    if value is None or not str(value).strip():
        return None
    parts = str(value).strip().split(":")
    try:
        seconds = sum(float(part) * 60**power for power, part in enumerate(reversed(parts)))
    except ValueError:
        raise ValueError(f"{value!r} is no time; give seconds or hh:mm:ss.mmm") from None
    if not (math.isfinite(seconds) and seconds >= 0) or len(parts) > 3:
        raise ValueError(f"{value!r} is no time; give seconds or hh:mm:ss.mmm")
    return seconds


def _clock_range(text: str) -> tuple[float, float]:
    times = [_moment(time) for time in re.findall(r"\d+:\d+:\d+(?:\.\d+)?", text)]
    if len(times) != 2 or times[0] is None or times[1] is None:
        raise ValueError(f"timestamp is {text!r}, not two times")
    return times[0], _after(times[0], times[1])


def _after(start: float, end: float) -> float:
    if end <= start:
        raise ValueError(f"the range from {start:g} to {end:g} s is empty")
    return end
