"""What lies in a place, at a glance: counts, hours, buckets, segments, captions and frames, as text and as a page."""

import itertools
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from mpjax.data.raw.clip import Clip, read_clips
from mpjax.data.raw.entries import Entry
from mpjax.data.raw.geometry import Geometry
from mpjax.data.raw.page import figure, page, table
from mpjax.data.video import probe, read_frames
from mpjax.errors import InputError
from mpjax.markup import section
from mpjax.progress import counted
from mpjax.whole_files import write_file

SAMPLES, THUMBNAILS, THUMBNAIL_HEIGHT = 5, 24, 144


@dataclass(kw_only=True)
class Inspection:
    """Counts of a place; `add` and `fail` fill it.

    Attributes:
        place: what was looked at.
        videos: different files.
        items: ranges or clips that are listed.
        seconds: their length together.
        buckets: (height, width) → items.
        segments: segments in an item → items.
        captioned: items with a caption.
        captions: of the first items that have one, each once.
        thumbnails: frame uint8 `[h, w, 3]` and what it is of, of the first items.
        problems: (name, reason) of what cannot be used.
    """

    place: str
    videos: set[str] = field(default_factory=set)
    items: int = 0
    seconds: float = 0.0
    buckets: Counter[tuple[int, int]] = field(default_factory=Counter)
    segments: Counter[int] = field(default_factory=Counter)
    captioned: int = 0
    captions: list[str] = field(default_factory=list)
    thumbnails: list[tuple[np.ndarray, str]] = field(default_factory=list)
    problems: list[tuple[str, str]] = field(default_factory=list)

    def add(self, video: str, seconds: float, caption: str, bucket: tuple[int, int], segments: list[int]) -> None:
        """An item of so many segments, or several where it is longer than a clip may be."""
        self.videos.add(video)
        self.items += 1
        self.seconds += seconds
        self.buckets[bucket] += 1
        self.segments.update(segments or [0])
        if caption:
            self.captioned += 1
            if len(self.captions) < SAMPLES and caption not in self.captions:
                self.captions.append(caption)

    def fail(self, name: str, reason: str) -> None:
        """What cannot be used."""
        self.problems.append((name, reason))

    def text(self) -> str:
        """For the terminal."""
        rest = [f"{value} {name}" for name, value in self._counts()[2:]]
        counts = [counted(len(self.videos), "video"), counted(self.items, "item"), *rest]
        lines = [f"{self.place}: {', '.join(counts)}"]
        for title, rows in self._tables():
            lines += ["", title, *(f"  {'  '.join(cells)}" for cells in rows)]
        return "\n".join(lines)

    def html(self) -> str:
        """A page with frames."""
        parts = [table([(value, name) for name, value in self._counts()])]
        parts += [section(title, table(rows)) for title, rows in self._tables()]
        if self.thumbnails:
            parts.append(section("Frames", *(figure(frame[None], [name]) for frame, name in self.thumbnails)))
        return page(self.place, parts)

    def write(self, page: Path | None) -> str:
        """Its text; also writes it as a page where a path for one is given."""
        if page is not None:
            write_file(page, self.html())
        return self.text()

    def _counts(self) -> list[tuple[str, str]]:
        return [
            ("videos", str(len(self.videos))),
            ("items", str(self.items)),
            ("hours", f"{self.seconds / 3600:.3f}"),
            ("with captions", str(self.captioned)),
            ("not usable", str(len(self.problems))),
        ]

    def _tables(self) -> Iterable[tuple[str, list[tuple[str, ...]]]]:
        if self.buckets:
            yield "Buckets (height × width)", [(f"{h} × {w}", str(n)) for (h, w), n in sorted(self.buckets.items())]
        if self.segments:
            most = max(self.segments.values())
            bars = [(n, count, "#" * -(-40 * count // most)) for n, count in sorted(self.segments.items())]
            yield "Segments of a clip", [(f"{n:4d}", f"{count:6d}", bar) for n, count, bar in bars]
        if self.captions:
            yield "Captions", [(caption[:300],) for caption in self.captions]
        if self.problems:
            yield "Not usable", list(self.problems)


def inspect_entries(
    place: str, entries: Iterable[Entry], geometry: Geometry, *, deadline_seconds: float = 60.0
) -> Inspection:
    """Raw material, at the cost of one frame a video: lengths are those that headers claim, cuts are not looked for."""
    found = Inspection(place=place)
    for entry in entries:
        if entry.problem:
            found.fail(entry.name, entry.problem)
            continue
        try:
            shown = probe(entry.media, deadline_seconds=deadline_seconds)
            end = min(entry.end or shown.seconds, shown.seconds or entry.end or 0.0)
            if end <= entry.start:
                raise InputError(f"no length is known, or it ends at {shown.seconds:g} s, before its range begins")
            bucket = geometry.bucket(shown.height, shown.width)
            segments = [n for _, n in geometry.windows(entry.start, end)]
            if len(found.thumbnails) < THUMBNAILS:
                width = round(THUMBNAIL_HEIGHT * bucket[1] / bucket[0])
                frames = read_frames(
                    entry.media,
                    fps=geometry.fps,
                    height=THUMBNAIL_HEIGHT,
                    width=width,
                    start=entry.start,
                    deadline_seconds=deadline_seconds,
                )
                found.thumbnails += [(frame, entry.name) for frame in itertools.islice(frames, 1)]
        except InputError as error:
            found.fail(entry.name, str(error).removeprefix(f"{entry.media}: "))
            continue
        found.add(str(entry.media), end - entry.start, entry.caption, bucket, segments)
    return found


def inspect_clips(path: Path) -> Inspection:
    """The list of clips that a scan wrote."""
    found = Inspection(place=str(path))
    for clip in read_clips(path):
        found.add(clip.source_hash, clip.frames / clip.fps, clip.caption, clip.bucket, [clip.segments])
        if len(found.thumbnails) < THUMBNAILS:
            _thumbnail(found, clip)
    return found


def _thumbnail(found: Inspection, clip: Clip) -> None:
    width = round(THUMBNAIL_HEIGHT * clip.bucket[1] / clip.bucket[0])
    frames = read_frames(clip.media, fps=clip.fps, height=THUMBNAIL_HEIGHT, width=width, start=clip.start, end=clip.end)
    try:
        found.thumbnails += [(frame, f"{clip.name}, {clip.start:.2f} s") for frame in itertools.islice(frames, 1)]
    except InputError as error:
        found.fail(clip.name, str(error).removeprefix(f"{clip.media}: "))
