"""From a folder of videos to clips: every video from end to end, as far as it can be decoded."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from mpjax.conditioning.cache import content_key
from mpjax.data.clip_encoding import cut
from mpjax.data.clip_sources import Source
from mpjax.data.media import Media
from mpjax.data.raw.clip import Clip
from mpjax.data.video import read_frames
from mpjax.errors import InputError
from mpjax.whole_files import write_json


@dataclass(frozen=True, kw_only=True)
class Video:
    """What became of one video.

    Attributes:
        name: in reports.
        clips: ranges of it; none where it cannot be used.
        reason: why there are none.
        note: where it turned out damaged.
    """

    name: str
    clips: tuple[Clip, ...] = ()
    reason: str = ""
    note: str = ""


def find_clips(
    sources: list[Source],
    memory: Path,
    *,
    fps: float,
    bucket: tuple[int, int],
    segment_pixels: int,
    max_segments: int,
    deadline_seconds: float,
    progress: Callable[[str], None],
) -> Iterator[Video]:
    """Consecutive clips of each video (`clip_encoding.cut`), of segments of `segment_pixels` frames.

    `memory` is a folder that keeps how many frames a video has, by content, for a run that begins again.
    """
    for number, source in enumerate(sources, 1):
        try:
            media = Media(path=source.path)
            sha256 = media.content_hash()
            count, note = _frames(source, sha256, memory, fps, bucket, deadline_seconds)
            if count <= segment_pixels:
                damage = f" ({note})" if note else ""
                raise InputError(f"only {count} of the {1 + segment_pixels} frames one segment needs{damage}")
            whole = Clip(
                media=media,
                name=source.name,
                start=0.0,
                end=count / fps,
                caption=source.caption,
                fps=float(fps),
                frames=count,
                segments=(count - 1) // segment_pixels,
                bucket=bucket,
                source_hash=sha256,
            )
            clips = tuple(cut(whole, segment_pixels=segment_pixels, max_segments=max_segments))
            video = Video(name=source.name, clips=clips, note=note)
        except InputError as error:
            video = Video(name=source.name, reason=str(error).removeprefix(f"{source.path}: "))
        if video.reason:
            progress(f"[{number}/{len(sources)}] {source.name}: skipped: {video.reason}")
        yield video


def _frames(
    source: Source, sha256: str, memory: Path, fps: float, bucket: tuple[int, int], deadline_seconds: float
) -> tuple[int, str]:
    """How many frames a video has, and where it turned out damaged."""
    path = memory / f"{content_key(sha256, float(fps), list(bucket))}.json"
    if not path.is_file():
        notes: list[str] = []
        count = sum(
            1
            for _ in read_frames(
                source.path,
                fps=fps,
                height=bucket[0],
                width=bucket[1],
                deadline_seconds=deadline_seconds,
                note=notes.append,
            )
        )
        write_json(path, {"frames": count, "note": "".join(notes)})
    found = json.loads(path.read_text())
    return found["frames"], found["note"]
