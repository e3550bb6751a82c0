"""What a user has: a folder, a table or a tar, read into entries, one for each range of a video that is listed.

Nothing is decoded here. A list is read row by row, so its length does not matter; a row that cannot be used becomes an
entry with a problem, so that every one is named.
"""

import csv
import itertools
import json
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from mpjax.data.clip_sources import VIDEO_SUFFIXES, list_sources
from mpjax.data.media import Media
from mpjax.data.raw.layouts import LAYOUTS, Row
from mpjax.errors import InputError

TABLE_SUFFIXES = (".csv", ".jsonl", ".parquet")
# Sekai's longest descriptions are above the csv module's 128 KiB.
LONGEST_FIELD = 1 << 24
# Bytes in which a binary file shows.
BEGINNING = 1 << 16


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A video, or a range of it, and what is said about it.

    Attributes:
        media: the video; it need not exist.
        name: for reports.
        caption: text, or empty.
        start: seconds from the first frame.
        end: seconds; None: the video's end.
        problem: why it cannot be used; empty where nothing is known against it.
    """

    media: Media
    name: str
    caption: str = ""
    start: float = 0.0
    end: float | None = None
    problem: str = ""


def read_entries(path: Path, videos: Path | None = None) -> Iterator[Entry]:
    """Lists raw material.

    Args:
        path: a folder of videos (captions as in `clip_sources.find_sources`), of WebDataset tars, or of both; a video;
            a tar; or a table, `.csv`, `.jsonl` or `.parquet`, of a layout in `layouts.LAYOUTS`.
        videos: folder that paths of a table are relative to; None: the table's own.

    Raises:
        InputError: nothing of the kind, a table of no known layout, or a folder `videos` without a table, or that is
            not there.
    """
    suffix = path.suffix.lower()
    if not path.is_dir() and not path.is_file():
        raise InputError(f"{path}: no such file or folder; check the path")
    if videos is not None and (path.is_dir() or suffix not in TABLE_SUFFIXES):
        raise no_table(videos, path)
    if videos is not None and not videos.is_dir():
        raise InputError(f"--videos {videos}: no such folder; give the one that the paths of {path} are relative to")
    if path.is_dir():
        return _read_folder(path)
    if suffix in TABLE_SUFFIXES:
        return _read_table(path, videos or path.parent)
    if suffix == ".tar":
        return _read_tar(path)
    if suffix in VIDEO_SUFFIXES:
        return iter([Entry(media=Media(path=path), name=path.name)])
    known = " ".join((*TABLE_SUFFIXES, ".tar"))
    raise InputError(f"{path}: neither a folder nor a video, and no list of videos; known lists are {known}")


def no_table(videos: Path, path: Path) -> InputError:
    """A folder of videos was given, and what lies at `path` has no paths that are relative to it."""
    return InputError(f"--videos {videos}: says what a table's paths are relative to, and {path} is none: leave it out")


def _read_folder(folder: Path) -> Iterator[Entry]:
    sources, tars = list_sources(folder), sorted(folder.rglob("*.tar"))
    if not sources and not tars:
        raise InputError(f"{folder}: no video files and no tars; known suffixes are {' '.join(VIDEO_SUFFIXES)} .tar")
    for source in sources:
        yield Entry(media=Media(path=source.path), name=source.name, caption=source.caption)
    for tar in tars:
        yield from _read_tar(tar, tar.relative_to(folder).as_posix())


def _read_table(path: Path, videos: Path) -> Iterator[Entry]:
    suffix = path.suffix.lower()
    if suffix != ".parquet":
        _check_text(path)
    rows = _ROWS[suffix](path)
    first = next(rows, None)
    if first is None:
        raise InputError(f"{path}: empty; give a table with a row for each clip")
    columns = {name for name in first[1] if name}
    layout = next((layout for layout in LAYOUTS if layout.columns <= columns), None)
    if layout is None:
        known = "; ".join(f"{layout.kind}: {', '.join(sorted(layout.columns))}" for layout in LAYOUTS)
        raise InputError(
            f"{path}: its columns {', '.join(sorted(columns)) or '(none)'} are of no known layout; "
            f"rename them to one of ({known})"
        )
    for line, values in itertools.chain([first], rows):
        try:
            if None in values:  # where the csv module puts them
                raise ValueError("more values than columns; put text with commas in quotes")
            row = layout.read(values)
        except (ValueError, KeyError, TypeError) as error:
            yield Entry(media=Media(path=path), name=f"{path.name}, row {line}", problem=str(error))
            continue
        yield _from_row(row, videos)


def _from_row(row: Row, videos: Path) -> Entry:
    """The first of the places where the video may be that exists; else the first, whose absence is then reported."""
    for place in row.places:
        if (videos / place.path).is_file():
            return Entry(
                media=Media(path=videos / place.path),
                name=place.path,
                caption=row.caption,
                start=place.start,
                end=place.end,
            )
    place = row.places[0]
    return Entry(
        media=Media(path=videos / place.path),
        name=place.path,
        caption=row.caption,
        problem="no such file; check the path",
    )


def _check_text(path: Path) -> None:
    with path.open("rb") as file:
        if b"\0" in file.read(BEGINNING):
            raise InputError(f"{path}: no UTF-8 text but a binary file, or UTF-16; export the table again, as UTF-8")


def _csv_rows(path: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    csv.field_size_limit(LONGEST_FIELD)
    with path.open(encoding="utf-8-sig", errors="replace", newline="") as file:
        try:
            yield from enumerate(csv.DictReader(file), 1)
        except csv.Error as error:
            raise InputError(f"{path}: no table of comma-separated values ({error}); export it again") from error


def _json_rows(path: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    with path.open(encoding="utf-8", errors="replace") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                values = json.loads(line)
            except ValueError as error:
                raise InputError(f"{path}: line {number} is no JSON; correct that line") from error
            if not isinstance(values, dict):
                raise InputError(f"{path}: line {number} is no JSON object; correct that line")
            yield number, values


def _parquet_rows(path: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    number = 0
    try:
        for batch in pq.ParquetFile(path).iter_batches(batch_size=1024):
            for values in batch.to_pylist():
                number += 1
                yield number, values
    except (OSError, ValueError, pa.ArrowException) as error:
        what = f"damaged after row {number}" if number else "no Parquet file, or a damaged one"
        raise InputError(f"{path}: {what}; export it again") from error


_ROWS = {".csv": _csv_rows, ".jsonl": _json_rows, ".parquet": _parquet_rows}


def _read_tar(path: Path, name: str | None = None) -> Iterator[Entry]:
    """The videos of a WebDataset tar: files that share a name up to the first dot are one sample."""
    name = name or path.name
    media: dict[str, Media] = {}
    captions: dict[str, str] = {}
    held = ""
    try:
        with tarfile.open(path, "r:") as tar:
            for member in tar:
                if not member.isfile():
                    continue
                folder, _, file = member.name.rpartition("/")
                stem, _, extension = file.partition(".")
                key = f"{folder}/{stem}"
                if key != held:
                    yield from _samples(name, media, captions)
                    media, captions, held = {}, {}, key
                if PurePosixPath(file).suffix.lower() in VIDEO_SUFFIXES:
                    place = Media(path=path, offset=member.offset_data, size=member.size, member=member.name)
                    media[member.name] = place
                elif extension.lower() in ("txt", "json") and (text := tar.extractfile(member)) is not None:
                    captions[extension.lower()] = text.read(LONGEST_FIELD).decode("utf-8", "replace")
    except (tarfile.TarError, OSError) as error:
        problem = f"no uncompressed tar, or damaged ({error}); unpack and pack it again"
        yield Entry(media=Media(path=path), name=name, problem=problem)
    yield from _samples(name, media, captions)


def _samples(tar: str, media: Mapping[str, Media], captions: Mapping[str, str]) -> Iterator[Entry]:
    caption = captions.get("txt", "")
    if not caption and "json" in captions:
        try:
            values = json.loads(captions["json"])
            caption = str(values.get("caption") or values.get("text") or "")
        except (ValueError, AttributeError):
            caption = ""
    for member, place in media.items():
        # A member beyond the end of the tar was cut off with it.
        missing = place.offset + (place.size or 0) > place.path.stat().st_size
        problem = "the tar ends before it; copy the tar again" if missing else ""
        yield Entry(media=place, name=f"{tar}:{member}", caption=caption.strip(), problem=problem)
