"""Result files, written at once or not at all, and JSON of what NumPy counted."""

import json
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from mpjax.errors import InputError


def write_json(path: Path, value: Any) -> None:
    """Writes JSON at once or not at all; equal values give equal bytes."""
    write_file(path, json.dumps(value, indent=1, sort_keys=True) + "\n")


def write_file(path: Path, content: str | bytes) -> None:
    """Writes a file at once or not at all, and its folder where that is missing."""
    with whole_file(path) as file:
        file.write(content.encode() if isinstance(content, str) else content)


def unfinished(path: Path) -> Path:
    """What a kill in the middle of writing `path` leaves."""
    return path.with_name(path.name + ".tmp")


def check_folder(path: Path, remedy: str = "give --out a folder") -> None:
    """Raises `InputError` where a folder for results cannot be made, since a file lies there or above."""
    for place in (path, *path.parents):
        if place.is_dir():
            return
        if place.exists() or place.is_symlink():
            raise InputError(f"{place} is a file: {remedy}")


@contextmanager
def whole_file(path: Path) -> Iterator[BinaryIO]:
    """A file to write piece by piece, which appears when all is written; its folder is made where that is missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = unfinished(path)
    with temporary.open("wb") as file:
        yield file
    temporary.replace(path)


def plain(value: Any, place: str) -> Any:
    """Nested JSON types: Python numbers for NumPy's, None for what is not finite.

    Raises:
        InputError: something that JSON cannot hold, at `place`.
    """
    if isinstance(value, Mapping):
        return {str(key): plain(item, f"{place}.{key}") for key, item in value.items()}
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, (list, tuple)):
        return [plain(item, f"{place}[{index}]") for index, item in enumerate(value)]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, (str, int)):
        return value
    if isinstance(value, Path):
        return str(value)
    raise InputError(f"{place} is a {type(value).__name__}: give text, numbers, lists and dicts")
