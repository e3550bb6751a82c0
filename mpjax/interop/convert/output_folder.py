"""A folder that is complete or absent: built beside its place, moved there at the end."""

import contextlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mpjax.errors import InputError


def is_finished(output: Path, description: dict[str, Any], file: str) -> bool:
    """Whether `output` holds the result of this very call already.

    Args:
        output: the folder to write.
        description: what its `file` would say, JSON-able.
        file: the file that describes the folder.

    Raises:
        InputError: it holds anything else.
    """
    if not output.exists() or (output.is_dir() and not any(output.iterdir())):
        return False
    with contextlib.suppress(OSError, ValueError):
        if json.loads((output / file).read_text(encoding="utf-8")) == json.loads(json.dumps(description)):
            return True
    raise InputError(f"{output} exists and holds something else: give another --output, or remove it")


@contextlib.contextmanager
def building(output: Path) -> Iterator[Path]:
    """A fresh folder that becomes `output` when the block ends, and vanishes when it fails.

    Raises:
        InputError: it cannot be made there.
    """
    partial = output.with_name(output.name + ".partial")
    try:
        shutil.rmtree(partial, ignore_errors=True)  # of a call that was killed
        partial.mkdir(parents=True)
    except OSError as error:
        raise InputError(f"{partial} cannot be made ({error.strerror}): give another --output") from error
    try:
        yield partial
        if output.exists():
            output.rmdir()  # is_finished let only an empty one pass
        partial.replace(output)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def write_description(folder: Path, description: dict[str, Any], file: str) -> None:
    """Writes the file that describes a folder."""
    (folder / file).write_text(json.dumps(description, indent=1) + "\n", encoding="utf-8")
