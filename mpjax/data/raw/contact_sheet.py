"""What a scan kept and what it left out, with frames, as one page."""

from collections import Counter
from pathlib import Path

import numpy as np

from mpjax.data.raw.clip import Clip
from mpjax.data.raw.filters import SCORES
from mpjax.data.raw.page import figure, page, scores_line, table
from mpjax.data.raw.scan import Scanned
from mpjax.markup import section
from mpjax.progress import counted
from mpjax.whole_files import write_file

# Of each group: a page with all of 16,000 clips opens in no browser.
SHOWN = 200
# Names of files that cannot be used, listed in full up to here.
LISTED = 2000


class ContactSheet:
    """Takes scanned entries one by one and keeps only what the page shows."""

    def __init__(self):
        self._figures: dict[str, list[str]] = {}
        self._reasons: Counter[str] = Counter()
        self._problems: list[tuple[str, str]] = []
        self._entries = self._kept = self._bad = 0
        self._seconds = self._kept_seconds = self._clip_seconds = 0.0

    def add(self, scanned: Scanned) -> None:
        """Counts an entry, and draws its clips as long as their group has room."""
        self._entries += 1
        self._seconds += scanned.seconds
        if scanned.problem or scanned.note:
            self._bad += bool(scanned.problem)
            if len(self._problems) < LISTED:
                self._problems.append((scanned.entry.name, scanned.problem or scanned.note))
        for clip, views in zip(scanned.clips, scanned.views, strict=True):
            seconds = clip.frames / clip.fps
            self._clip_seconds += seconds
            self._kept += clip.kept
            self._kept_seconds += seconds * clip.kept
            group = clip.reason.partition(" ")[0]
            self._reasons[group] += 1
            shown = self._figures.setdefault(group, [])
            if len(shown) < SHOWN:
                shown.append(_figure(clip, views))

    def summary(self) -> str:
        """One line for the terminal."""
        left = sum(self._reasons.values()) - self._kept
        return (
            f"{counted(self._kept, 'clip')} ({self._kept_seconds / 3600:.2f} h) kept, {left} left out, "
            f"of {counted(self._entries, 'entry', 'entries')} ({self._seconds / 3600:.2f} h), "
            f"{self._bad} of which cannot be used"
        )

    def write(self, path: Path) -> None:
        """The page."""
        hours = ((name, f"{value / 3600:.3f} h") for name, value in self._hours())
        counts = ((SCORES[name], str(count)) for name, count in self._reasons.most_common() if name)
        parts = [f"<p>{self.summary()}</p>", table(hours)]
        if len(self._reasons) > 1:
            parts.append(section("Left out, by the filter that did it", table(counts)))
        if self._problems:
            parts.append(section("Entries that cannot be used, or end early", table(self._problems)))
        for group in sorted(self._figures):
            title = "Kept" if not group else f"Left out: {SCORES[group]}"
            more = self._reasons[group] - len(self._figures[group])
            title += f" (the first {SHOWN}, {more} more)" if more else ""
            parts.append(section(title, *self._figures[group]))
        write_file(path, page("Scan", parts))

    def _hours(self) -> list[tuple[str, float]]:
        return [("read", self._seconds), ("in clips", self._clip_seconds), ("kept", self._kept_seconds)]


def _figure(clip: Clip, views: np.ndarray) -> str:
    place = f"{clip.name}, {clip.start:.2f} to {clip.end:.2f} s, {clip.segments} segments"
    return figure(views, [place, scores_line(clip.scores), clip.caption[:200]], clip.reason)
