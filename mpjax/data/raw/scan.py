"""Raw material to clips: every listed range is looked at once, split into shots and into whole segments, and judged."""

import functools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from mpjax.conditioning.cache import ArrayCache
from mpjax.data.raw.clip import Clip
from mpjax.data.raw.duplicates import Seen
from mpjax.data.raw.entries import Entry
from mpjax.data.raw.filters import Filters
from mpjax.data.raw.geometry import Geometry
from mpjax.data.raw.look import Look, look, nothing, remembered
from mpjax.data.raw.shots import Cut, ShotDetector


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
    memory: Path | None = None,
) -> Iterator[Scanned]:
    """Looks at entries one after another; each that cannot be used is given with its problem.

    Args:
        entries: see `entries.read_entries`.
        geometry: of the clips.
        filters: which clips are kept.
        shots: finds the cuts.
        deadline_seconds: decoding time allowed for an entry.
        memory: folder that keeps what an entry shows, about 70 kB for a clip, for a run that begins again, also with
            other filters; None keeps nothing.
    """
    seen = Seen()
    view = functools.partial(look, geometry=geometry, shots=shots, deadline_seconds=deadline_seconds)
    if memory is not None:
        view = functools.partial(remembered, memory=ArrayCache(memory), **view.keywords)
    for entry in entries:
        found = nothing(entry.problem) if entry.problem else view(entry)
        yield _judged(entry, found, seen, filters)


def _judged(entry: Entry, found: Look, seen: Seen, filters: Filters) -> Scanned:
    clips = []
    for clip, bits in zip(found.clips, found.signatures, strict=True):
        shown = (bits, clip.source_hash, clip.start, clip.end)
        scores = {**clip.scores, "duplicate": seen.likeness(*shown)}
        clips.append(replace(clip, scores=scores, reason=filters.reason(scores)))
        # Only what is kept: a sharp copy of a clip that was left out for its size is welcome.
        if clips[-1].kept:
            seen.add(*shown)
    return Scanned(
        entry=entry,
        clips=tuple(clips),
        views=tuple(found.views),
        cuts=found.cuts,
        seconds=found.seconds,
        problem=found.problem,
        note=found.note,
    )
