"""From a folder of videos to clips: every video whole, as far as it can be decoded."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from mpjax.conditioning.cache import content_key
from mpjax.data.clip_sources import Source
from mpjax.data.media import Media
from mpjax.data.raw.clip import Clip
from mpjax.data.video import read_frames
from mpjax.errors import InputError


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
    deadline_seconds: float,
    progress: Callable[[str], None],
) -> Iterator[Video]:
    """One clip a video, of as many whole segments of `segment_pixels` frames as it holds.

    `memory` is a folder that keeps how many frames a video has, by content, for a run that begins again.
    """
    for number, source in enumerate(sources, 1):
        try:
            video = _find(source, memory, fps, bucket, segment_pixels, deadline_seconds)
        except InputError as error:
            video = Video(name=source.name, reason=str(error).removeprefix(f"{source.path}: "))
        if video.reason:
            progress(f"[{number}/{len(sources)}] {source.name}: skipped: {video.reason}")
        yield video


def _find(
    source: Source, memory: Path, fps: float, bucket: tuple[int, int], segment_pixels: int, deadline_seconds: float
) -> Video:
    sha256 = source.content_hash()
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
        memory.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".partial")
        partial.write_text(json.dumps({"frames": count, "note": "".join(notes)}))
        partial.replace(path)
    found = json.loads(path.read_text())
    count, note = found["frames"], found["note"]
    segments = (count - 1) // segment_pixels
    if segments < 1:
        damage = f" ({note})" if note else ""
        raise InputError(f"{source.path}: only {count} of the {1 + segment_pixels} frames one segment needs{damage}")
    frames = 1 + segments * segment_pixels
    clip = Clip(
        media=Media(path=source.path),
        name=source.name,
        start=0.0,
        end=frames / fps,
        caption=source.caption,
        fps=float(fps),
        frames=frames,
        segments=segments,
        bucket=bucket,
        source_hash=sha256,
    )
    return Video(name=source.name, clips=(clip,), note=note)
