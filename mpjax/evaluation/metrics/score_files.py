"""Scores on disk: `scores.json` with everything, `scores.csv` with a row for each video and metric."""

import csv
import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from mpjax.errors import InputError
from mpjax.evaluation.metrics.metric import Score
from mpjax.evaluation.metrics.pool import pool

NAME = "scores.json"
COLUMNS = ("video", "seconds", "metric", "value", "start", "end", "drift", "reason")


def write_scores(folder: Path, scores: Sequence[Score], left_out: Mapping[str, str]) -> None:
    """Writes both files.

    Args:
        folder: made if it is not there.
        scores: of all videos.
        left_out: metrics that were asked for by `all` and need files that are not there, and which.
    """
    folder.mkdir(parents=True, exist_ok=True)
    rows = [{**dataclasses.asdict(score), "drift": score.drift} for score in scores]
    report = {
        "scores": rows,
        "pooled": [dataclasses.asdict(each) for each in pool(scores)],
        "left_out": dict(left_out),
    }
    (folder / NAME).write_text(json.dumps(report, indent=1) + "\n")
    with (folder / "scores.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=COLUMNS, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)


def read_scores(folder: Path) -> list[Score]:
    """The scores that `write_scores` wrote.

    Raises:
        InputError: they are not there, or not whole.
    """
    path = folder / NAME
    fields = [field.name for field in dataclasses.fields(Score)]
    try:
        rows = json.loads(path.read_text())["scores"]
        return [
            Score(**{**{name: row[name] for name in fields}, "values": tuple(row["values"]), "at": tuple(row["at"])})
            for row in rows
        ]
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; run `evaluate` with --out={folder}") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} is no file of `evaluate`: run it again") from error
