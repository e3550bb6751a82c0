"""The video files of a folder and what is said about them."""

import json
import os
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from mpjax.errors import InputError

MANIFEST_FILE = "manifest.jsonl"
VIDEO_SUFFIXES = (
    *(".3gp", ".avi", ".flv", ".gif", ".m2ts", ".m4v", ".mkv", ".mov"),
    *(".mp4", ".mpeg", ".mpg", ".mts", ".ogv", ".ts", ".webm", ".wmv"),
)


@dataclass(frozen=True, kw_only=True)
class Source:
    """One file that looks like a video.

    Attributes:
        path: where it is.
        name: its path inside the folder with forward slashes; bytes of a file name that are no UTF-8 read `\\xNN`.
        caption: text, or empty.
        bytes: its size; 0 where it cannot be told.
    """

    path: Path
    name: str
    caption: str
    bytes: int


def find_sources(folder: Path) -> list[Source]:
    """All files under `folder` with a video's suffix, sorted by name.

    A caption comes from `manifest.jsonl` in the folder, one JSON object `{"file": name, "caption": text}` a line (both
    are needed, other keys are ignored), or else from a text file beside the video with its name and the suffix `.txt`,
    or is empty. Names that start with a dot are left out. Files of any suffix that the manifest names are listed too,
    found or not.

    Raises:
        InputError: no such folder, no video in it, or a manifest that cannot be read.
    """
    if not (sources := list_sources(folder)):
        raise InputError(f"{folder}: no video files; known suffixes are {' '.join(VIDEO_SUFFIXES)}")
    return sources


def list_sources(folder: Path) -> list[Source]:
    """As `find_sources`, but a folder without videos gives an empty list."""
    if folder.is_file():
        raise InputError(f"{folder}: a file; give the folder that it lies in")
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; give a folder of videos")
    captions = _read_manifest(folder / MANIFEST_FILE)
    names = captions.keys() | {
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.suffix.lower() in VIDEO_SUFFIXES
        and not path.is_dir()
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    }
    sources = []
    for name in sorted(names):
        path = folder / name
        sources.append(
            Source(
                path=path,
                name=os.fsencode(name).decode("utf-8", "backslashreplace"),
                caption=captions[name] if name in captions else _read_caption(path.with_suffix(".txt")),
                bytes=path.stat().st_size if path.is_file() else 0,
            )
        )
    return sources


def _read_caption(path: Path) -> str:
    if not path.is_file():
        return ""
    return path.read_text(encoding="utf-8", errors="replace").strip()


def _read_manifest(path: Path) -> dict[str, str]:
    if not path.is_file():
        return {}
    captions = {}
    for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), 1):
        if not line.strip():
            continue
        try:
            entry = json.loads(line)
            name, caption = PurePosixPath(entry["file"]), entry["caption"]
            if not isinstance(caption, str):
                raise TypeError(caption)
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(
                f'{path}: line {number} is no JSON object like {{"file": "a.mp4", "caption": "..."}}; correct that line'
            ) from error
        if name.is_absolute() or ".." in name.parts:
            raise InputError(f"{path}: line {number} names {name}, outside the folder; give paths inside it")
        captions[name.as_posix()] = caption
    return captions
