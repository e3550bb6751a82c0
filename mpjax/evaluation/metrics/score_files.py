"""Scores on disk: `scores.json` with everything, `scores.csv` with a row for each video and metric."""

import csv
import dataclasses
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mpjax.errors import InputError
from mpjax.evaluation.metrics.metric import Score
from mpjax.evaluation.metrics.pool import pool
from mpjax.whole_files import write_file, write_json

NAME = "scores.json"
COLUMNS = ("video", "seconds", "metric", "value", "start", "end", "drift", "reason")


def write_scores(folder: Path, scores: Sequence[Score], left_out: Mapping[str, Sequence[str]]) -> None:
    """Writes both files, each at once or not at all.

    Args:
        folder: made if it is not there.
        scores: of all videos.
        left_out: metrics that were asked for by `all`, and the files and flags that they lack.
    """
    rows = [as_row(score) for score in scores]
    report = {
        "scores": rows,
        "pooled": [dataclasses.asdict(each) for each in pool(scores)],
        "left_out": {name: f"needs {' and '.join(lacks)}" for name, lacks in left_out.items()},
    }
    write_json(folder / NAME, report)
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, fieldnames=COLUMNS, extrasaction="ignore")
    writer.writeheader()
    writer.writerows(rows)
    write_file(folder / "scores.csv", text.getvalue())


def as_row(score: Score) -> dict[str, Any]:
    """A score as plain JSON, with its Δdrift."""
    return {**dataclasses.asdict(score), "drift": score.drift}


def from_row(row: Mapping[str, Any]) -> Score:
    """The score of `as_row`. Raises `KeyError` or `TypeError` where something is missing or of another kind."""
    fields = {field.name: row[field.name] for field in dataclasses.fields(Score)}
    return Score(**{**fields, "values": tuple(row["values"]), "at": tuple(row["at"])})


def read_scores(folder: Path) -> list[Score]:
    """The scores that `write_scores` wrote.

    Raises:
        InputError: they are not there, or not whole.
    """
    if folder.is_file():
        raise InputError(f"{folder} is a file: give the folder that it lies in")
    path = folder / NAME
    try:
        return [from_row(row) for row in json.loads(path.read_text())["scores"]]
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; run `evaluate` with --out={folder}") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} is no file of `evaluate`: run it again") from error
