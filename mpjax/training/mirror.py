"""The second tier of checkpoints: finished steps of a run folder, copied to an object store and back.

Orbax writes to `gs://` but not to `s3://` (0.12 normalises the path and refuses it), and no object store renames a
folder at once. So a step is written to the run folder, where a rename finishes it, and then copied by fsspec:

    REMOTE/run.json, log.jsonl      as in the run folder
    REMOTE/checkpoints/N/…          the files of step N
    REMOTE/checkpoints/N.json       size and SHA-256 of each, written last: without it there is no step N
"""

import hashlib
import json
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fsspec

from mpjax.errors import InputError
from mpjax.training.retention import Retention
from mpjax.weights import steps_of
from mpjax.whole_files import unfinished, write_file

Say = Callable[[str], None]
LOOK_EVERY = 1.0  # seconds
TRIES, PAUSE = 3, 2.0  # at the end, and seconds between them


class Mirror:
    """A remote copy of one run folder; as a context manager it copies in the background and ends when all is there.

    Args:
        folder: run folder.
        remote: URL of a folder of an object store that fsspec knows, `s3://bucket/run`.
        retention: of the steps in the store, and that object which the run's `Checkpoints` have: what is being sent is
            held there.
        say: receives warnings.

    Raises:
        InputError: the URL has no protocol, or the package that speaks it is missing.
    """

    def __init__(self, folder: Path, remote: str, retention: Retention, say: Say = print):
        if "://" not in remote:
            raise InputError(f"--mirror={remote} is no URL: give one as s3://bucket/run")
        try:
            self._store, self._root = fsspec.core.url_to_fs(remote.rstrip("/"))
        except (ImportError, ValueError) as error:
            raise InputError(f"--mirror={remote}: {error}; pip install s3fs or gcsfs") from error
        self._folder, self._remote, self._say = folder, remote, say
        self._retention = retention
        self._warned_slow = False
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work, daemon=True, name="mpjax mirror")

    # -- Back: remote → run folder ------------------------------------------------------------------------------------

    def fetch_description(self) -> None:
        """Copies `run.json` and the log into a run folder that lacks them; whoever goes on there checks them.

        Raises:
            InputError: the store cannot be reached, or holds another run than the folder.
        """
        stored = self._read(f"{self._root}/run.json")
        path = self._folder / "run.json"
        if stored is None:
            return
        if path.is_file():
            mine, other = json.loads(path.read_bytes()), json.loads(stored)
            if any(mine[name] != other[name] for name in ("fingerprint", "init")):
                raise InputError(f"{self._remote} mirrors another run than {self._folder}: give another --mirror")
            return
        if self._folder.exists() and any(p != unfinished(path) for p in self._folder.iterdir()):
            return  # no run folder, which is refused by name
        log = self._read(f"{self._root}/log.jsonl")
        write_file(path, stored)
        if log is not None:
            (self._folder / "log.jsonl").write_bytes(log)

    def fetch_newest(self, newest: int | None = None, above: int | None = None) -> int | None:
        """Copies the newest remote step that is whole into the run folder; a damaged one is struck off the store.

        Args:
            newest: the last step to look at (default: any).
            above: only steps after this one (default: after those of the run folder).

        Returns:
            The step, None for none. A step of the run folder in its place is set aside as `damaged-N`.

        Raises:
            InputError: the store cannot be read, or the run folder cannot be written.
        """
        if above is None:
            above = max(steps_of(self._folder), default=-1)
        for left in (self._folder / "checkpoints").glob("fetched-*"):
            shutil.rmtree(left)  # by a fetch that was killed
        try:
            for step in reversed(self._complete()):
                if step <= above:
                    return None
                if newest is not None and step > newest:
                    continue
                problem = self._fetch(step)
                if problem is None:
                    self._say(f"checkpoint {step} fetched from {self._remote}")
                    return step
                self._say(f"warning: checkpoint {step} of {self._remote} is damaged and left out: {problem}")
                self._store.rm_file(self._manifest(step))  # it neither counts nor stands in the way of a whole one
        except InputError:
            raise
        except Exception as error:  # every store has errors of its own
            raise self._unreadable(error) from error
        return None

    def _fetch(self, step: int) -> str | None:
        """Copies one step; what was wrong with it, None for nothing."""
        place = self._folder / "checkpoints" / str(step)
        target = place.with_name(f"fetched-{step}")
        try:
            for name, (size, digest) in json.loads(self._read(self._manifest(step)) or b"")["files"].items():
                path = target / name
                path.parent.mkdir(parents=True, exist_ok=True)
                self._store.get_file(f"{self._root}/checkpoints/{step}/{name}", str(path))
                if path.stat().st_size != size or _digest(path) != digest:
                    raise ValueError(f"{name} is not what was copied there")
        except (FileNotFoundError, ValueError, KeyError, TypeError, AttributeError) as error:
            shutil.rmtree(target, ignore_errors=True)
            return f"{type(error).__name__}: {error}"
        if place.exists():
            aside = place.with_name(f"damaged-{step}")
            shutil.rmtree(aside, ignore_errors=True)
            place.rename(aside)
        target.rename(place)
        return None

    # -- There: run folder → remote -----------------------------------------------------------------------------------

    def __enter__(self) -> "Mirror":
        self._thread.start()
        return self

    def __exit__(self, kind: Any, *error: object) -> None:
        self._stop.set()
        self._thread.join()
        if kind is not None and not issubclass(kind, KeyboardInterrupt):
            return
        for left in reversed(range(TRIES)):
            problem = self._send_all()
            if problem is None:
                return
            if left:
                threading.Event().wait(PAUSE)
        raise InputError(
            f"the newest checkpoint of {self._folder} is not in {self._remote}: {problem}; the same command again "
            "copies it"
        )

    def _work(self) -> None:
        warned = None
        while not self._stop.wait(LOOK_EVERY):
            problem = self._send_all()
            if problem is not None and problem != warned:
                self._say(f"warning: {self._remote} cannot be written, and is tried again: {problem}")
            warned = problem

    def _send_all(self) -> str | None:
        """Copies the steps that are kept and not there yet, the newest first; what went wrong."""
        try:
            there = set(self._complete())
            for step in reversed(self._kept_here()):
                with self._retention.held(step) as stays:
                    if step in there or not stays:
                        continue
                    self._send(step)
                if not self._warned_slow and step not in self._kept_here():
                    self._warned_slow = True
                    self._say(
                        f"warning: {self._remote} takes a checkpoint more slowly than the run makes new ones, so not "
                        "every one gets there: raise training.checkpoint_every"
                    )
        except Exception as error:  # every store has errors of its own
            return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
        return None

    def _send(self, step: int) -> None:
        source = self._folder / "checkpoints" / str(step)
        files = {}
        try:
            for path in sorted(p for p in source.rglob("*") if p.is_file()):
                name = path.relative_to(source).as_posix()
                self._store.put_file(str(path), f"{self._root}/checkpoints/{step}/{name}")
                files[name] = [path.stat().st_size, _digest(path)]
        except FileNotFoundError:
            if source.exists():
                raise
            return  # a newer one took its place meanwhile
        for name in ("run.json", "log.jsonl"):
            if (self._folder / name).is_file():
                self._store.put_file(str(self._folder / name), f"{self._root}/{name}")
        self._store.pipe_file(self._manifest(step), json.dumps({"files": files}, indent=1).encode())
        self._prune()

    def _prune(self) -> None:
        complete = self._complete()
        kept = set(self._retention.kept(complete))
        for step in set(complete) - kept:
            self._store.rm_file(self._manifest(step))  # first, so that no step is ever half there
        for name in self._listed():
            if name.isdigit() and int(name) not in kept:  # or what was never sent to its end
                self._store.rm(f"{self._root}/checkpoints/{name}", recursive=True)

    # -- Both ---------------------------------------------------------------------------------------------------------

    def _kept_here(self) -> list[int]:
        return self._retention.kept(steps_of(self._folder))

    def _complete(self) -> list[int]:
        """The steps of the store, rising."""
        stems = (name.removesuffix(".json") for name in self._listed() if name.endswith(".json"))
        return sorted(int(stem) for stem in stems if stem.isdigit())

    def _listed(self) -> list[str]:
        self._store.invalidate_cache()
        try:
            names = self._store.ls(f"{self._root}/checkpoints", detail=False)
        except FileNotFoundError:
            return []
        return [str(name).rstrip("/").rsplit("/", 1)[-1] for name in names]

    def _manifest(self, step: int) -> str:
        return f"{self._root}/checkpoints/{step}.json"

    def _read(self, path: str) -> bytes | None:
        try:
            return self._store.cat_file(path)
        except FileNotFoundError:
            return None
        except Exception as error:  # no credentials, no network, no bucket: every store has errors of its own
            raise self._unreadable(error) from error

    def _unreadable(self, error: Exception) -> InputError:
        return InputError(f"--mirror={self._remote} cannot be read: {' '.join(str(error).split())[:300]}")


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
