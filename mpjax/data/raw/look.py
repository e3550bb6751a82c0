"""One entry, looked at once: whole segments of its shots, and what it takes to judge them. No entry needs another."""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np

from mpjax.conditioning.cache import ArrayCache, Arrays, content_key
from mpjax.data.raw.clip import Clip, clip_from_json, clip_to_json
from mpjax.data.raw.duplicates import SIGNATURE_BYTES, signature
from mpjax.data.raw.entries import Entry
from mpjax.data.raw.geometry import Geometry
from mpjax.data.raw.measure import Measured, measure
from mpjax.data.raw.shots import Cut, ShotDetector
from mpjax.errors import InputError

# Part of what is remembered: raise it when the same settings would show something else.
LOOK_VERSION = 1
# Of a clip, for the report: at equal parts of its length.
VIEWS = 3


@dataclass(frozen=True, kw_only=True)
class Look:
    """What an entry shows.

    Attributes:
        clips: in order of time, not judged yet.
        signatures: of each clip its `duplicates.signature`, uint8 `[n, 48]`.
        views: of each clip three frames, uint8 `[n, 3, h, w, 3]`.
        cuts: changes of shot, times from the video's first frame.
        seconds: how much of it could be read.
        problem: why there is no clip; empty where there is one.
        note: where the stream is damaged.
    """

    clips: tuple[Clip, ...] = ()
    signatures: np.ndarray
    views: np.ndarray
    cuts: tuple[Cut, ...] = ()
    seconds: float = 0.0
    problem: str = ""
    note: str = ""


def nothing(problem: str) -> Look:
    """An entry that cannot be used."""
    signatures, views = np.zeros((0, SIGNATURE_BYTES), np.uint8), np.zeros((0, VIEWS, 1, 1, 3), np.uint8)
    return Look(signatures=signatures, views=views, problem=problem)


def look(entry: Entry, *, geometry: Geometry, shots: ShotDetector, deadline_seconds: float) -> Look:
    """Reads an entry; arguments as of `scan.scan`. One that cannot be read is given with its problem."""
    try:
        measured = measure(
            entry.media, fps=geometry.fps, start=entry.start, end=entry.end, deadline_seconds=deadline_seconds
        )
        source_hash = entry.media.content_hash()
    except InputError as error:
        return nothing(str(error).removeprefix(f"{entry.media}: "))
    cuts = shots.cuts(measured.pictures, geometry.fps)
    clips = tuple(_clips(entry, measured, cuts, source_hash, geometry))
    if not clips:
        needed = geometry.frames(1) / geometry.fps
        damage = f" ({measured.note})" if measured.note else ""
        found = nothing(f"no shot of the {needed:.3g} s that one segment needs, of {measured.seconds:.3g} s{damage}")
    else:
        times = [(clip.start - entry.start, clip.end - entry.start) for clip in clips]
        ranges = [slice(round(start * geometry.fps), round(end * geometry.fps)) for start, end in times]
        found = Look(
            clips=clips,
            signatures=np.stack([signature(measured.pictures[frames]) for frames in ranges]),
            views=np.stack([_views(measured, start, end) for start, end in times]),
        )
    shown = tuple(replace(cut, time=cut.time + entry.start) for cut in cuts)
    return replace(found, cuts=shown, seconds=measured.seconds, note=measured.note)


def remembered(
    entry: Entry, *, memory: ArrayCache, geometry: Geometry, shots: ShotDetector, deadline_seconds: float
) -> Look:
    """As `look`, which is asked only for what `memory` does not hold of this entry, file and settings."""
    settings = [asdict(geometry), asdict(shots), deadline_seconds]

    def make() -> Arrays:
        return _to_arrays(look(entry, geometry=geometry, shots=shots, deadline_seconds=deadline_seconds))

    return _from_arrays(memory.get(content_key("look", LOOK_VERSION, state(entry), settings), make))


def state(entry: Entry) -> list[Any]:
    """What an entry is, as JSON: what is listed, and its file's size and time of change, if there is a file."""
    media = entry.media
    listed = [entry.name, entry.caption, entry.start, entry.end, entry.problem]
    place = [str(media.path.absolute()), media.member, media.offset, media.size]
    try:
        file = media.path.stat()
    except OSError:
        return [*listed, *place]
    return [*listed, *place, file.st_size, file.st_mtime_ns]


def _to_arrays(found: Look) -> Arrays:
    values = {
        "clips": [clip_to_json(clip) for clip in found.clips],
        "cuts": [asdict(cut) for cut in found.cuts],
        "seconds": found.seconds,
        "problem": found.problem,
        "note": found.note,
    }
    text = np.frombuffer(json.dumps(values).encode(), np.uint8)
    return {"signatures": found.signatures, "views": found.views, "json": text}


def _from_arrays(arrays: Arrays) -> Look:
    values = json.loads(arrays["json"].tobytes())
    clips = tuple(clip_from_json(clip) for clip in values.pop("clips"))
    cuts = tuple(Cut(**cut) for cut in values.pop("cuts"))
    return Look(clips=clips, cuts=cuts, signatures=arrays["signatures"], views=arrays["views"], **values)


def _clips(entry: Entry, measured: Measured, cuts: list[Cut], source_hash: str, geometry: Geometry) -> Iterator[Clip]:
    """Whole segments of every shot, without black at its ends, not judged yet."""
    bucket = geometry.bucket(measured.height, measured.width)
    enlargement = geometry.enlargement(measured.height, measured.width)
    for first, last in _shots(measured, cuts):
        for start, segments in geometry.windows(first / measured.fps, last / measured.fps):
            frames = geometry.frames(segments)
            end = start + frames / geometry.fps
            scores = measured.scores(start, end) | {
                "seconds": frames / geometry.fps,
                "enlargement": enlargement,
                "shots": float(len(cuts) + 1),
            }
            yield Clip(
                media=entry.media,
                name=entry.name,
                start=entry.start + start,
                end=entry.start + end,
                caption=entry.caption,
                fps=geometry.fps,
                frames=frames,
                segments=segments,
                bucket=bucket,
                scores=scores,
                source_hash=source_hash,
            )


def _shots(measured: Measured, cuts: list[Cut]) -> Iterator[tuple[int, int]]:
    """Ranges of frames between the cuts; a dissolve belongs to neither side."""
    fps, count = measured.fps, len(measured.pictures)
    bounds = [(0, 0)]
    for cut in cuts:
        middle, half = round(cut.time * fps), int(np.ceil(cut.length * fps / 2))
        bounds.append((middle - half - 1, middle + half + 1) if half else (middle, middle))
    bounds.append((count, count))
    for (_, first), (last, _) in pairwise(bounds):
        lit = np.flatnonzero(~measured.black[first : max(first, last)])
        if len(lit):
            yield first + int(lit[0]), first + int(lit[-1]) + 1


def _views(measured: Measured, start: float, end: float) -> np.ndarray:
    return np.stack([measured.view(start + (end - start) * (i + 0.5) / VIEWS) for i in range(VIEWS)])
