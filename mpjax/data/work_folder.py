"""The folder beside an output where a command works until the output is complete: for one run at a time.

A run that was interrupted leaves it, and the same command goes on with what lies there.
"""

import contextlib
import fcntl
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mpjax.errors import InputError
from mpjax.whole_files import write_json

LOCK_FILE, SETTINGS_FILE = "lock", "settings.json"


def work_path(output: Path) -> Path:
    """Where a command works that writes `output`."""
    return output.with_name(output.name + ".partial")


@contextmanager
def work_folder(output: Path, settings: Mapping[str, Any], say: Callable[[str], None]) -> Iterator[Path]:
    """The folder, locked; it is gone when the block ends, or fails before it wrote anything.

    Args:
        output: what the command writes.
        settings: what decides the output, as JSON; what lies in the folder by other `inputs` is used all the same, as
            far as it is of the same videos.
        say: receives a line where `inputs` are others.

    Raises:
        InputError: another run works there, or an interrupted one had other settings.
    """
    folder = work_path(output)
    with _lock(folder, output):
        _check(folder, settings, say)
        try:
            yield folder
        except BaseException:
            if {path.name for path in folder.glob("*")} <= {LOCK_FILE, SETTINGS_FILE}:
                _remove(folder)
            raise
        _remove(folder)


@contextmanager
def _lock(folder: Path, output: Path) -> Iterator[None]:
    """Holds the lock, which the kernel takes back from a process that is killed."""
    path = folder / LOCK_FILE
    while True:
        folder.mkdir(parents=True, exist_ok=True)
        try:
            file = path.open("a")
        except FileNotFoundError:
            continue  # a run that ends has just removed the folder
        with file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise InputError(f"another run is writing {output}: wait for it") from None
            except OSError:
                pass  # some network file systems have no locks
            if not _is(path, file.fileno()):
                continue  # the run that held it has ended and removed it
            yield
            return


def _is(path: Path, descriptor: int) -> bool:
    """Whether an open file is still the one of that path."""
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def _check(folder: Path, settings: Mapping[str, Any], say: Callable[[str], None]) -> None:
    """Compares the settings with those of an interrupted run, and writes them down."""
    path, asked = folder / SETTINGS_FILE, json.loads(json.dumps(settings))
    before = json.loads(path.read_text()) if path.is_file() else asked
    for name, value in asked.items():
        if before.get(name) == value:
            continue
        if name != "inputs":
            raise InputError(
                f"{folder}: an interrupted run with other {name} left this: give its command again to finish it, "
                "choose another output folder, or delete this one"
            )
        say(f"{folder}: an interrupted run of other videos or captions left this; what is the same is not done again")
    write_json(path, asked)


def _remove(folder: Path) -> None:
    """The lock goes last: who comes before that finds it held, and who comes later begins a new one.

    A run that finds the output finished may be removing the folder, too.
    """
    for path in folder.glob("*"):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        elif path.name != LOCK_FILE:
            path.unlink(missing_ok=True)
    (folder / LOCK_FILE).unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        folder.rmdir()  # unless a new one has come
