"""What `evaluate` has measured already, so that a second call measures only what is new.

    OUT/settings.json        what all scores in the folder were measured with
    OUT/videos.json          which content each video's name stands for
    OUT/videos/CONTENT.json  the scores of one video; CONTENT is SHA-256 of the video's bytes and its picture's

Nothing is ever removed: a video that was written anew gets a new file, and its name then stands for that one.
"""

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePath
from typing import Any

from mpjax.data.media import Media
from mpjax.errors import InputError
from mpjax.evaluation.metrics.metric import Score
from mpjax.evaluation.metrics.score_files import as_row, from_row
from mpjax.whole_files import unfinished, write_json

SETTINGS = "settings.json"


def content_of(video: Path, image: Path | None) -> str:
    """SHA-256 in hexadecimal of what is measured: a video, and the picture that it began with.

    Raises:
        InputError: one of them cannot be read.
    """
    parts = [Media(path=path).content_hash() for path in (video, image) if path is not None]
    return parts[0] if len(parts) == 1 else hashlib.sha256("".join(parts).encode()).hexdigest()


class KeptScores:
    """The scores in an output folder."""

    def __init__(self, folder: Path, settings: Mapping[str, Any], files: Mapping[str, str]):
        """Reads what is there; writes nothing.

        Args:
            folder: of the results; need not be there.
            settings: plain JSON, by the words that a message calls it by.
            files: metric → digest of the files that it reads.

        Raises:
            InputError: the folder's scores were measured with other settings or files, or are damaged, or it holds
                something else.
        """
        self._folder = folder
        path = folder / SETTINGS
        before = _read(path, {"settings": settings, "files": {}})
        if not path.exists() and folder.exists():
            others = sorted(each.name for each in folder.iterdir() if each != unfinished(path))
            if others:
                raise InputError(f"{folder} holds something else ({others[0]}): give --out a new folder")
        try:
            settings_before, files_before = {**before["settings"]}, {**before["files"]}
        except (KeyError, TypeError) as error:
            raise _damaged(path) from error
        for name, value in settings.items():
            if (was := settings_before.get(name)) != value:
                if not name.startswith("--"):
                    raise InputError(f"{folder}: measured with {name} {was}, not {value}; give another --out")
                raise InputError(
                    f"{folder}: measured {_given(name, was)}, now {_given(name, value)}; give the same flags, or "
                    "another --out"
                )
        for metric, digest in files.items():
            if files_before.get(metric, digest) != digest:
                raise InputError(f"{folder}: {metric} was measured with other weights; give another --out")
        self._settings = {"settings": dict(settings), "files": {**files_before, **files}}
        self._names: dict[str, str] = _read(folder / "videos.json", {})

    def of(self, content: str) -> dict[str, Score]:
        """Metric → score of a video; empty where it was not measured yet."""
        path = self._folder / "videos" / f"{content}.json"
        try:
            rows = json.loads(path.read_text(encoding="utf-8")) if path.exists() else []
            return {row["metric"]: from_row(row) for row in rows}
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise _lost(path) from error

    def add(self, content: str, scores: Sequence[Score]) -> None:
        """Keeps further scores of a video."""
        write_json(self._folder / SETTINGS, self._settings)
        found = {**self.of(content), **{score.metric: score for score in scores}}
        write_json(self._folder / "videos" / f"{content}.json", [as_row(score) for score in found.values()])

    def check_names(self, contents: Mapping[str, str]) -> None:
        """Refuses two videos of one name, for the name is what a comparison of systems knows them by.

        Args:
            contents: path → content of the videos that are to be measured.

        Raises:
            InputError: two among them and those in the folder, unless one is the old path or content of the other.
        """
        paths: dict[str, str] = {}
        for path in [*self._others(contents), *contents]:
            if (other := paths.setdefault(PurePath(path).stem, path)) != path:
                raise InputError(f"{path} has the name of {other}: evaluate it into another --out, or rename it")

    def name(self, contents: Mapping[str, str]) -> None:
        """Says which content names stand for; other names keep theirs, unless it is a file's old path."""
        self._names = {**self._others(contents), **contents}
        write_json(self._folder / "videos.json", self._names)

    def _others(self, contents: Mapping[str, str]) -> dict[str, str]:
        """The names in the folder that are no old path and no old content of these videos."""
        moved = {(PurePath(name).name, content) for name, content in contents.items()}
        places = {Path(name).resolve() for name in contents}
        return {
            name: content
            for name, content in self._names.items()
            if (PurePath(name).name, content) not in moved and Path(name).resolve() not in places
        }

    def by_video(self) -> dict[str, dict[str, Score]]:
        """Name → metric → score of all videos that have a name, in order of the names."""
        return {
            name: {metric: dataclasses.replace(score, video=name) for metric, score in self.of(content).items()}
            for name, content in sorted(self._names.items())
        }


def _read(path: Path, default: Any) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return default
    except (OSError, ValueError) as error:
        raise _damaged(path) from error


def _given(flag: str, value: Any) -> str:
    if value is None or value is False:
        return f"without {flag}"
    return f"with {flag}" if value is True else f"with {flag}={value}"


def _lost(path: Path) -> InputError:
    return InputError(f"{path} is damaged: delete it, and its video is measured again")


def _damaged(path: Path) -> InputError:
    return InputError(f"{path} is no file of `evaluate`: give another --out")
