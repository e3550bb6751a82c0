"""`data scan` and `data inspect` on raw material."""

import hashlib
import json
import shutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from mpjax.data.raw.clip import CLIPS_FILE, Clip, write_clips
from mpjax.data.raw.contact_sheet import ContactSheet
from mpjax.data.raw.entries import Entry, no_table, read_entries
from mpjax.data.raw.filters import Filters
from mpjax.data.raw.geometry import Geometry
from mpjax.data.raw.inspection import inspect_clips, inspect_entries
from mpjax.data.raw.look import state
from mpjax.data.raw.scan import Scanned, scan
from mpjax.data.raw.shots import ShotDetector
from mpjax.data.work_folder import work_folder, work_path
from mpjax.errors import InputError
from mpjax.progress import counted

LEFT_OUT_FILE, REPORT_FILE, SETTINGS_FILE = "left_out.jsonl", "scan.html", "scan.json"
SCAN_FILES = (CLIPS_FILE, LEFT_OUT_FILE, REPORT_FILE, SETTINGS_FILE)


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
    that was interrupted looks again at one entry at most. A finished folder of the same call is left as it is; one of
    another call is replaced where it kept nothing.

    Raises:
        InputError: nothing to read, an `output` that holds anything else or that another run is writing, or not one
            clip; the page is written all the same.
    """
    output = output.absolute()
    settings = {
        "geometry": asdict(geometry),
        "filters": asdict(filters),
        "shots": asdict(shots),
        "deadline_seconds": deadline_seconds,
        "inputs": _digest(read_entries(source, videos)),
    }
    if not _finished(output, settings, progress):
        with work_folder(output, settings, progress) as partial:
            if not _finished(output, settings, progress):  # by another run, meanwhile
                listed = read_entries(source, videos)
                scanned = scan(
                    listed,
                    geometry=geometry,
                    filters=filters,
                    shots=shots,
                    deadline_seconds=deadline_seconds,
                    memory=partial / "memory",
                )
                _write(scanned, partial / "build", output, settings, progress)
    if not (output / CLIPS_FILE).stat().st_size:
        raise InputError(f"{source}: not one clip is kept; {output / REPORT_FILE} says why")


def _write(
    scanned: Iterable[Scanned], build: Path, output: Path, settings: Mapping[str, Any], progress: Callable[[str], None]
) -> None:
    """Builds the folder and moves it into place."""
    sheet, kept, left_out = ContactSheet(), list[Clip](), list[Clip]()
    for one in scanned:
        sheet.add(one)
        for clip in one.clips:
            (kept if clip.kept else left_out).append(clip)
        count = sum(clip.kept for clip in one.clips)
        what = one.problem or f"{count} of {counted(len(one.clips), 'clip')} kept, {counted(len(one.cuts), 'cut')}"
        note = f" ({one.note})" if one.note and not one.problem else ""
        progress(f"{one.entry.name}: {what}{note}")
    shutil.rmtree(build, ignore_errors=True)
    build.mkdir(parents=True)
    write_clips(build / CLIPS_FILE, kept)
    write_clips(build / LEFT_OUT_FILE, left_out)
    sheet.write(build / REPORT_FILE)
    (build / SETTINGS_FILE).write_text(json.dumps(settings, indent=2, sort_keys=True) + "\n")
    if output.exists():  # empty, or a scan that kept nothing
        shutil.rmtree(output)
    build.replace(output)
    progress(f"{sheet.summary()}; see {output / REPORT_FILE}")


def _digest(entries: Iterable[Entry]) -> str:
    """Tells listed material, with the size and time of its files, from other material."""
    digest = hashlib.sha256()
    for entry in entries:
        digest.update(json.dumps(state(entry)).encode())
    return digest.hexdigest()


def _finished(output: Path, settings: Mapping[str, Any], progress: Callable[[str], None]) -> bool:
    """Whether the folder holds the scan of these settings; a scan of others that kept nothing is to be replaced.

    Raises:
        InputError: it holds anything else.
    """
    if not output.exists() or (output.is_dir() and not any(output.iterdir())):
        return False
    path = output / SETTINGS_FILE
    try:
        before = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise InputError(f"{output}: exists already and is no finished scan; choose another output folder") from error
    for name, value in json.loads(json.dumps(settings)).items():
        if before.get(name) != value:
            if _kept_nothing(output):
                return False
            what = "other videos or captions" if name == "inputs" else f"other {name}"
            raise InputError(f"{output}: already holds a scan of {what}; choose another output folder")
    shutil.rmtree(work_path(output), ignore_errors=True)  # a kill came between the two last steps
    progress(f"{output}: finished already")
    return True


def _kept_nothing(output: Path) -> bool:
    """Whether a folder holds a scan without one kept clip, and nothing else."""
    names = {path.name for path in output.iterdir()}
    return names == set(SCAN_FILES) and not (output / CLIPS_FILE).stat().st_size


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
        if videos is not None:
            raise no_table(videos, listed)
        found = inspect_clips(listed)
    else:
        found = inspect_entries(str(place), read_entries(place, videos), geometry)
    return found.write(page)
