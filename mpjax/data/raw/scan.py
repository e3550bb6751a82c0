"""Raw material to clips: every listed range is looked at once, split into shots and into whole segments, and judged."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from mpjax.data.raw.clip import Clip
from mpjax.data.raw.duplicates import Seen
from mpjax.data.raw.entries import Entry
from mpjax.data.raw.filters import Filters
from mpjax.data.raw.geometry import Geometry
from mpjax.data.raw.measure import Measured, measure
from mpjax.data.raw.shots import Cut, ShotDetector
from mpjax.errors import InputError

# Of a clip, for the report: at equal parts of its length.
VIEWS = 3


@dataclass(frozen=True, kw_only=True)
class Scanned:
    """What became of an entry.

    Attributes:
        entry: as it was listed.
        clips: kept and left out, in order of time.
        views: of each clip three frames, uint8 `[3, h, w, 3]`.
        cuts: changes of shot, times from the video's first frame.
        seconds: how much of it could be read.
        problem: why there is no clip; empty where there is one.
        note: where the stream is damaged.
    """

    entry: Entry
    clips: tuple[Clip, ...] = ()
    views: tuple[np.ndarray, ...] = ()
    cuts: tuple[Cut, ...] = ()
    seconds: float = 0.0
    problem: str = ""
    note: str = ""


def scan(
    entries: Iterable[Entry],
    *,
    geometry: Geometry,
    filters: Filters,
    shots: ShotDetector,
    deadline_seconds: float = 600.0,
) -> Iterator[Scanned]:
    """Looks at entries one after another; each that cannot be used is given with its problem.

    Args:
        entries: see `entries.read_entries`.
        geometry: of the clips.
        filters: which clips are kept.
        shots: finds the cuts.
        deadline_seconds: decoding time allowed for an entry.
    """
    seen = Seen()
    for entry in entries:
        if entry.problem:
            yield Scanned(entry=entry, problem=entry.problem)
            continue
        try:
            measured = measure(
                entry.media, fps=geometry.fps, start=entry.start, end=entry.end, deadline_seconds=deadline_seconds
            )
            source_hash = entry.media.content_hash()
        except InputError as error:
            yield Scanned(entry=entry, problem=str(error).removeprefix(f"{entry.media}: "))
            continue
        cuts = shots.cuts(measured.pictures, geometry.fps)
        clips = list(_clips(entry, measured, cuts, source_hash, geometry))
        judged = []
        for clip in clips:
            first, last = (round((t - entry.start) * geometry.fps) for t in (clip.start, clip.end))
            shown = (measured.pictures[first:last], source_hash, clip.start, clip.end)
            scores = {**clip.scores, "duplicate": seen.likeness(*shown)}
            judged.append(replace(clip, scores=scores, reason=filters.reason(scores)))
            # Only what is kept: a sharp copy of a clip that was left out for its size is welcome.
            if judged[-1].kept:
                seen.add(*shown)
        problem = ""
        if not judged:
            needed = geometry.frames(1) / geometry.fps
            damage = f" ({measured.note})" if measured.note else ""
            problem = f"no shot of the {needed:.3g} s that one segment needs, of {measured.seconds:.3g} s{damage}"
        yield Scanned(
            entry=entry,
            clips=tuple(judged),
            views=tuple(_views(measured, clip.start - entry.start, clip.end - entry.start) for clip in judged),
            cuts=tuple(replace(cut, time=cut.time + entry.start) for cut in cuts),
            seconds=measured.seconds,
            problem=problem,
            note=measured.note,
        )


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
