"""A clip: a range of a video that is one training sample. What readers and filters hand to `encode`."""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mpjax.data.media import Media
from mpjax.errors import InputError
from mpjax.whole_files import whole_file

CLIPS_FILE = "clips.jsonl"


@dataclass(frozen=True, kw_only=True)
class Clip:
    """A range of a video that holds a whole number of segments.

    `read_frames(clip.media, fps=clip.fps, height=clip.bucket[0], width=clip.bucket[1], start=clip.start, end=clip.end)`
    gives its `clip.frames` frames.

    Attributes:
        media: the video.
        name: the video's name in reports: its path inside the folder, index or tar it was found in.
        start: seconds from the video's first frame to the clip's first frame.
        end: start + frames / fps.
        caption: text, or empty.
        fps: frames per second after resampling.
        frames: segments · n + 1 frames after resampling, n those of a segment.
        segments: whole segments after the first frame, at least 1.
        bucket: (height, width) after scaling and centre crop.
        scores: what the filters measured, by name (`filters.SCORES` says which there are); finite numbers.
        source_hash: SHA-256 of the video's bytes in hexadecimal.
        reason: why the filters left it out; empty where they kept it.
    """

    media: Media
    name: str
    start: float
    end: float
    caption: str
    fps: float
    frames: int
    segments: int
    bucket: tuple[int, int]
    scores: Mapping[str, float] = field(default_factory=dict)
    source_hash: str
    reason: str = ""

    @property
    def kept(self) -> bool:
        """Whether no filter left it out."""
        return not self.reason

    @property
    def id(self) -> str:
        """Names the clip by its content: the hash of the video, start and end in milliseconds, height and width."""
        start, end = (round(1000 * time) for time in (self.start, self.end))
        return f"{self.source_hash[:16]}-{start:09d}-{end:09d}-{self.bucket[0]}x{self.bucket[1]}"


def write_clips(path: Path, clips: Iterable[Clip]) -> None:
    """One JSON object a line, in the order given, with absolute paths; the file appears at once."""
    with whole_file(path) as file:
        file.writelines(f"{json.dumps(clip_to_json(clip), sort_keys=True)}\n".encode() for clip in clips)


def read_clips(path: Path) -> Iterator[Clip]:
    """The clips of a file that `write_clips` wrote, one at a time.

    Raises:
        InputError: no such file, or a line that `write_clips` did not write.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file; write it with `python -m mpjax data scan`")
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            try:
                yield clip_from_json(json.loads(line))
            except (ValueError, KeyError, TypeError) as error:
                raise InputError(
                    f"{path}: line {number} is no clip; write the file anew with `python -m mpjax data scan`"
                ) from error


def clip_to_json(clip: Clip) -> dict[str, Any]:
    """A clip as JSON holds it."""
    values = {name: getattr(clip, name) for name in Clip.__dataclass_fields__ if name not in ("media", "scores")}
    media: dict[str, Any] = {"path": str(clip.media.path.absolute())}
    if clip.media.member:
        media |= {"member": clip.media.member, "offset": clip.media.offset, "size": clip.media.size}
    return values | {"media": media, "scores": dict(clip.scores)}


def clip_from_json(values: dict[str, Any]) -> Clip:
    """The inverse of `clip_to_json`."""
    media = values["media"]
    return Clip(
        **values
        | {
            "media": Media(**media | {"path": Path(media["path"])}),
            "bucket": (values["bucket"][0], values["bucket"][1]),
        }
    )
