"""`data scan` and `data inspect` on raw material."""

from collections.abc import Callable
from pathlib import Path

from mpjax.data.raw.clip import CLIPS_FILE, Clip, write_clips
from mpjax.data.raw.contact_sheet import ContactSheet
from mpjax.data.raw.entries import read_entries
from mpjax.data.raw.filters import Filters
from mpjax.data.raw.geometry import Geometry
from mpjax.data.raw.inspection import inspect_clips, inspect_entries
from mpjax.data.raw.scan import scan
from mpjax.data.raw.shots import ShotDetector
from mpjax.errors import InputError

LEFT_OUT_FILE, REPORT_FILE = "left_out.jsonl", "scan.html"


def scan_to_folder(
    source: Path,
    output: Path,
    *,
    videos: Path | None = None,
    geometry: Geometry,
    filters: Filters,
    shots: ShotDetector,
    deadline_seconds: float = 600.0,
    progress: Callable[[str], None] = print,
) -> None:
    """Writes `clips.jsonl` (what is kept, for `encode`), `left_out.jsonl` (with reasons) and `scan.html` into a folder.

    Raises:
        InputError: nothing to read, or not one clip; the page is written all the same.
    """
    entries = read_entries(source, videos)
    sheet, kept, left_out = ContactSheet(), list[Clip](), list[Clip]()
    for scanned in scan(entries, geometry=geometry, filters=filters, shots=shots, deadline_seconds=deadline_seconds):
        sheet.add(scanned)
        for clip in scanned.clips:
            (kept if clip.kept else left_out).append(clip)
        count = sum(clip.kept for clip in scanned.clips)
        what = scanned.problem or f"{count} of {len(scanned.clips)} clips kept, {len(scanned.cuts)} cuts"
        note = f" ({scanned.note})" if scanned.note and not scanned.problem else ""
        progress(f"{scanned.entry.name}: {what}{note}")
    output.mkdir(parents=True, exist_ok=True)
    write_clips(output / CLIPS_FILE, kept)
    write_clips(output / LEFT_OUT_FILE, left_out)
    sheet.write(output / REPORT_FILE)
    progress(f"{sheet.summary()}; see {output / REPORT_FILE}")
    if not kept:
        raise InputError(f"{source}: not one clip is kept; {output / REPORT_FILE} says why")


def inspect_raw(place: Path, *, videos: Path | None, geometry: Geometry, page: Path | None) -> str:
    """What lies in a place as text, and as a page where a path for one is given.

    Args:
        place: as `entries.read_entries` takes it, or a `clips.jsonl` or its folder.
        videos: see `entries.read_entries`.
        geometry: of the clips that raw material would give.
        page: HTML to write.
    """
    listed = place / CLIPS_FILE if (place / CLIPS_FILE).is_file() else place
    if listed.name == CLIPS_FILE:
        found = inspect_clips(listed)
    else:
        found = inspect_entries(str(place), read_entries(place, videos), geometry)
    return found.write(page)
