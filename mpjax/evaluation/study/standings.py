"""The verb `elo`: ratings of the systems of a study, as a page, a table and JSON."""

import csv
import io
import itertools
import math
from collections.abc import Sequence
from html import escape
from pathlib import Path

import numpy as np

from mpjax import markup
from mpjax.drawing import blank_figure, series_style, svg
from mpjax.errors import InputError
from mpjax.evaluation.statistics import wilson_interval
from mpjax.evaluation.study.ballots import Ballot, as_votes, read_ballots
from mpjax.evaluation.study.ratings import (
    bradley_terry,
    bradley_terry_samples,
    elo_samples,
    expected_share,
    percentile_interval,
    sequential_elo,
    votes_needed,
)
from mpjax.whole_files import plain, write_file, write_json

POWER = 0.8


def standings(ballots: Sequence[Ballot], systems: Sequence[str], *, clusters: str = "votes", seed: int = 0) -> dict:
    """Ratings, pairs and checks of a study.

    Args:
        ballots: in the order in which they were cast.
        systems: names.
        clusters: what the bootstrap draws, `votes`, `raters` or `videos`.
        seed: of the bootstrap.

    Returns:
        `votes`, `raters`, `ties`, `resample`, `left` (share of the left side among votes that are no ties),
        `systems` (a row each, best first) and `pairs` (a row for every two, the better one first). A rating or an end
        of an interval that does not exist is None.
    """
    votes = as_votes(ballots, systems, clusters)
    wins = votes.wins().sum(0)
    fitted = bradley_terry(wins)
    fitted_samples = bradley_terry_samples(votes, seed=seed)
    elo = sequential_elo(votes.first, votes.second, votes.score, votes.systems)[0]
    shuffled = elo_samples(votes, seed=seed)
    games = (wins + wins.T).sum(1)
    rows = [
        {
            "system": name,
            "votes": int(games[i]),
            "share": wins[i].sum() / games[i] if games[i] else None,
            "bradley_terry": fitted[i],
            "bradley_terry_ci95": percentile_interval(fitted_samples[:, i]),
            "elo": elo[i],
            "elo_ci95": percentile_interval(shuffled[:, i]),
        }
        for i, name in enumerate(systems)
    ]
    order = sorted(range(len(rows)), key=lambda i: (-_or_share(float(fitted[i]), rows[i]["share"]), -elo[i]))
    chosen = [ballot.choice for ballot in ballots if ballot.choice != "tie"]
    pairs = []
    for i, j in itertools.combinations(order, 2):
        if not (met := wins[i, j] + wins[j, i]):
            continue
        lead = fitted[i] - fitted[j]
        pairs.append(
            {
                "better": systems[i],
                "other": systems[j],
                "votes": int(met),
                "share": wins[i, j] / met,
                "lead": lead,
                "lead_ci95": percentile_interval(fitted_samples[:, i] - fitted_samples[:, j]),
                "votes_needed": votes_needed(lead) if math.isfinite(lead) and abs(lead) >= 0.5 else None,
            }
        )
    left = chosen.count("left")
    return plain(
        {
            "votes": len(ballots),
            "raters": len({ballot.rater for ballot in ballots}),
            "ties": len(ballots) - len(chosen),
            "resample": clusters,
            "left": {"share": left / len(chosen), "ci95": wilson_interval(left, len(chosen))} if chosen else None,
            "systems": [{"rank": rank, **rows[i]} for rank, i in enumerate(order, 1)],
            "pairs": pairs,
        },
        "standings",
    )


def lead_words(lead: float) -> str:
    """What a lead means and takes, in one sentence.

    Raises:
        InputError: it is not above 0.
    """
    if not (math.isfinite(lead) and lead > 0):
        raise InputError(f"--lead {lead:g}: give the points of a lead, more than 0")
    return (
        f"A lead of {lead:g} points is an expected share of {100 * expected_share(lead):.1f} %: {votes_needed(lead)} "
        f"independent votes make the half width of its 95 % interval equal to the lead, and "
        f"{votes_needed(lead, power=POWER)} find it with a chance of {100 * POWER:.0f} %."
    )


def write_standings(files: Sequence[Path], key: Path, out: Path, *, clusters: str = "votes") -> list[str]:
    """Writes elo.html, elo.json and elo.csv into a folder and returns what to tell.

    Raises:
        InputError: as `read_ballots`.
    """
    ballots, systems = read_ballots(files, key)
    found = standings(ballots, systems, clusters=clusters)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    head = [*found["systems"][0]]
    writer.writerow([part for name in head for part in _columns(name)])
    for row in found["systems"]:
        writer.writerow([part for name in head for part in (row[name] if name.endswith("_ci95") else [row[name]])])
    page = _page(found)
    write_json(out / "elo.json", found)
    write_file(out / "elo.csv", text.getvalue())
    write_file(out / "elo.html", page)
    lines = [
        f"{row['rank']}. {row['system']}: Bradley-Terry {_rating(row['bradley_terry'])} "
        f"{_ends(row['bradley_terry_ci95'])}, Elo {_rating(row['elo'])} {_ends(row['elo_ci95'])}, "
        f"{markup.counted(row['votes'], 'vote')}"
        for row in found["systems"]
    ]
    return [*lines, f"page: {out / 'elo.html'}"]


def _page(found: dict) -> str:
    rows = [
        [
            str(row["rank"]),
            escape(row["system"]),
            f"{_rating(row['bradley_terry'])} {_ends(row['bradley_terry_ci95'])}",
            f"{_rating(row['elo'])} {_ends(row['elo_ci95'])}",
            markup.percent(row["share"]),
            str(row["votes"]),
        ]
        for row in found["systems"]
    ]
    pairs = [
        [
            f"{escape(pair['better'])} over {escape(pair['other'])}",
            markup.percent(pair["share"]),
            str(pair["votes"]),
            f"{_rating(pair['lead'])} {_ends(pair['lead_ci95'])}",
            _separated(pair["lead_ci95"]),
            markup.count(pair["votes_needed"]),
        ]
        for pair in found["pairs"]
    ]
    left = found["left"]
    side = (
        ""
        if left is None
        else f" The left side won {markup.percent(left['share'])} {markup.interval(left['ci95'], 100)} of the others; "
        "without a preference for a side it is half."
    )
    note = (
        f"<p>{markup.counted(found['votes'], 'vote')} of {markup.counted(found['raters'], 'rater')}; ties: "
        f"{found['ties']}, which count half for "
        f"each side.{side}</p>"
    )
    words = (
        '<p class="note">Bradley-Terry is the maximum-likelihood fit to all votes; Elo (K = 32) goes through them in '
        "the order in which they were cast, and its interval also holds other orders. Both have the mean 1500. "
        f"Brackets are 95 % bootstrap intervals that draw {found['resample']}. – stands where no finite number "
        "exists: a system won or lost all its votes, or too many resamples had such a system.</p>"
    )
    more = (
        '<p class="note">Votes needed: independent votes on this pair until the half width of a 95 % interval equals '
        "the lead. Half of all such studies then find the lead; "
        f"a chance of {100 * POWER:.0f} % takes about twice as many.</p>"
    )
    heads = ["", "system", "Bradley-Terry", "Elo", "share won", "votes"]
    pair_heads = ["pair", "share won", "votes", "lead", "separated", "votes needed"]
    sections = [
        note,
        markup.section("Ratings", _drawing(found), markup.table(heads, rows), words),
        markup.section("Pairs", markup.table(pair_heads, pairs), more),
    ]
    return markup.document("Ratings by votes", sections, data=found)


def _drawing(found: dict) -> str:
    rows = [row for row in found["systems"] if row["bradley_terry"] is not None]
    if not rows:
        return ""
    figure, axes = blank_figure("Bradley-Terry rating", "", height=0.9 + 0.4 * len(rows))
    for place, row in enumerate(rows):
        low, high = (row["bradley_terry"] if end is None else end for end in row["bradley_terry_ci95"])
        axes.plot([low, high], [place, place], gid=f"interval-{place}", **series_style(0, marker=None))
        axes.plot([row["bradley_terry"]], [place], gid=f"rating-{place}", **series_style(0))
    axes.set_yticks(range(len(rows)), [row["system"] for row in rows])
    axes.set_ylim(len(rows) - 0.5, -0.5)
    return f"<figure>{svg(figure, 'ratings')}</figure>"


def _or_share(rating: float, share: float | None) -> float:
    """What to sort by where no rating exists: then none has one."""
    return rating if np.isfinite(rating) else share or 0.0


def _separated(ends: Sequence[float | None]) -> str:
    low, high = ends
    return "yes" if (low is not None and low > 0) or (high is not None and high < 0) else "no"


def _rating(value: float | None) -> str:
    return "–" if value is None else f"{value:.0f}"


def _ends(ends: Sequence[float | None]) -> str:
    return f"[{', '.join(map(_rating, ends))}]"


def _columns(name: str) -> list[str]:
    return [f"{name}_low", f"{name}_high"] if name.endswith("_ci95") else [name]
