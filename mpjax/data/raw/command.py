"""`data scan` and `data inspect` on raw material."""

import hashlib
import json
import shutil
from collections.abc import Callable, Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from mpjax.data.raw.clip import CLIPS_FILE, Clip, write_clips
from mpjax.data.raw.contact_sheet import ContactSheet
from mpjax.data.raw.entries import Entry, read_entries
from mpjax.data.raw.filters import Filters
from mpjax.data.raw.geometry import Geometry
from mpjax.data.raw.inspection import inspect_clips, inspect_entries
from mpjax.data.raw.look import state
from mpjax.data.raw.scan import scan
from mpjax.data.raw.shots import ShotDetector
from mpjax.errors import InputError

LEFT_OUT_FILE, REPORT_FILE, SETTINGS_FILE = "left_out.jsonl", "scan.html", "scan.json"


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

    What an entry shows stays in `<output>.partial/` until the folder is complete and moved into place at once, so a run
    that was interrupted looks again at one entry at most. A finished folder of the same call is left as it is.

    Raises:
        InputError: nothing to read, an `output` that holds anything else, or not one clip; the page is written all the
            same.
    """
    output = output.absolute()
    settings = {
        "geometry": asdict(geometry),
        "filters": asdict(filters),
        "shots": asdict(shots),
        "deadline_seconds": deadline_seconds,
        "inputs": _digest(read_entries(source, videos)),
    }
    partial = output.with_name(output.name + ".partial")
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        _check_same(output, settings)
        progress(f"{output}: finished already")
    else:
        sheet, kept, left_out = ContactSheet(), list[Clip](), list[Clip]()
        for scanned in scan(
            read_entries(source, videos),
            geometry=geometry,
            filters=filters,
            shots=shots,
            deadline_seconds=deadline_seconds,
            memory=partial / "memory",
        ):
            sheet.add(scanned)
            for clip in scanned.clips:
                (kept if clip.kept else left_out).append(clip)
            count = sum(clip.kept for clip in scanned.clips)
            what = scanned.problem or f"{count} of {len(scanned.clips)} clips kept, {len(scanned.cuts)} cuts"
            note = f" ({scanned.note})" if scanned.note and not scanned.problem else ""
            progress(f"{scanned.entry.name}: {what}{note}")
        build = partial / "build"
        shutil.rmtree(build, ignore_errors=True)
        build.mkdir(parents=True)
        write_clips(build / CLIPS_FILE, kept)
        write_clips(build / LEFT_OUT_FILE, left_out)
        sheet.write(build / REPORT_FILE)
        (build / SETTINGS_FILE).write_text(json.dumps(settings, indent=2, sort_keys=True) + "\n")
        build.replace(output)
        progress(f"{sheet.summary()}; see {output / REPORT_FILE}")
    shutil.rmtree(partial, ignore_errors=True)
    if not (output / CLIPS_FILE).stat().st_size:
        raise InputError(f"{source}: not one clip is kept; {output / REPORT_FILE} says why")


def _digest(entries: Iterable[Entry]) -> str:
    """Tells listed material, with the size and time of its files, from other material."""
    digest = hashlib.sha256()
    for entry in entries:
        digest.update(json.dumps(state(entry)).encode())
    return digest.hexdigest()


def _check_same(output: Path, settings: dict[str, Any]) -> None:
    path = output / SETTINGS_FILE
    try:
        before = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise InputError(f"{output}: exists already and is no finished scan; choose another output folder") from error
    for name, value in json.loads(json.dumps(settings)).items():
        if before.get(name) != value:
            what = "other videos or captions" if name == "inputs" else f"other {name}"
            raise InputError(f"{output}: already holds a scan of {what}; choose another output folder")


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
