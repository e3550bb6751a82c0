"""Votes as the page of a study writes them, and what its key says of them."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mpjax.errors import InputError
from mpjax.evaluation.study.ratings import Votes

SCORES = {"left": 1.0, "right": 0.0, "tie": 0.5}
CLUSTERS = ("votes", "raters", "videos")


@dataclass(frozen=True, kw_only=True)
class Ballot:
    """One vote.

    Attributes:
        rater: who.
        video: name of the video that the two systems made.
        left, right: the systems.
        choice: `left`, `right` or `tie`.
        at: time of day, ISO 8601.
    """

    rater: str
    video: str
    left: str
    right: str
    choice: str
    at: str


def read_ballots(files: Sequence[Path], key_file: Path) -> tuple[list[Ballot], list[str]]:
    """Votes of all files in the order of their times, and the systems.

    A pair on which a rater has voted more than once (a file that was downloaded twice) counts once, as voted last.

    Raises:
        InputError: a file that cannot be read, or a line that is no vote of this study.
    """
    key = _json(key_file, _text(key_file), "a key of `study`")
    try:
        study, clips = key["study"], {token: (clip["system"], clip["video"]) for token, clip in key["clips"].items()}
        systems = list(key["systems"])
    except (KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{key_file}: not a key of `study`; give the .key.json that was written beside it") from error
    found: dict[tuple[str, str], Ballot] = {}
    for file in files:
        for number, line in enumerate(_text(file).splitlines(), 1):
            if not line.strip():
                continue
            place = f"{file}: line {number}"
            row = _json(place, line, "a vote")
            try:
                if row["study"] != study:
                    raise InputError(f"{place} is of study {row['study']}, the key of {study}: give files of one study")
                two = [clips[row[side]] for side in ("left", "right")]
                ballot = Ballot(
                    rater=str(row["rater"]),
                    video=two[0][1],
                    left=two[0][0],
                    right=two[1][0],
                    choice=str(row["choice"]),
                    at=str(row["at"]),
                )
                same = ballot.rater, "\0".join(sorted((row["left"], row["right"])))
            except (KeyError, TypeError) as error:
                raise InputError(f"{place} is no vote of this study: leave it out") from error
            if ballot.choice not in SCORES or two[0][1] != two[1][1] or ballot.left == ballot.right:
                raise InputError(f"{place} is no vote of this study: leave it out")
            if same not in found or found[same].at <= ballot.at:
                found[same] = ballot
    if not found:
        raise InputError(f"{', '.join(map(str, files))}: no votes; give the files that the page's download wrote")
    return sorted(found.values(), key=lambda ballot: (ballot.at, ballot.rater, ballot.video)), systems


def as_votes(ballots: Sequence[Ballot], systems: Sequence[str], clusters: str) -> Votes:
    """Votes as arrays.

    Args:
        ballots: in order.
        systems: names.
        clusters: what a resample of the bootstrap draws: `votes`, `raters` or `videos`.
    """
    if clusters not in CLUSTERS:
        raise InputError(f"--resample {clusters}: choose one of {', '.join(CLUSTERS)}")
    groups = {"votes": range(len(ballots)), "raters": [b.rater for b in ballots], "videos": [b.video for b in ballots]}
    places = {name: place for place, name in enumerate(systems)}
    return Votes(
        first=np.asarray([places[ballot.left] for ballot in ballots]),
        second=np.asarray([places[ballot.right] for ballot in ballots]),
        score=np.asarray([SCORES[ballot.choice] for ballot in ballots]),
        cluster=np.unique(np.asarray(groups[clusters]), return_inverse=True)[1],
        systems=len(systems),
    )


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read as text; check the path") from error


def _json(place: object, text: str, what: str) -> dict:
    try:
        return json.loads(text)
    except ValueError as error:
        raise InputError(f"{place}: not JSON, so not {what}; give the file as it was written") from error
