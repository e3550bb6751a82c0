"""The comparison of systems as one HTML page that needs nothing from anywhere but the videos it links to."""

import os
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from urllib.parse import quote

from mpjax import markup
from mpjax.drawing import svg
from mpjax.evaluation.comparison.figures import curve_figure, scatter_figure
from mpjax.evaluation.comparison.gather import (
    TABLE_1,
    TABLE_1_DRIFT,
    System,
    is_won_by_standing_still,
    metrics_of,
    motion_metric,
    ratings_of,
    stands_still,
)
from mpjax.evaluation.metrics.companions import COMPANIONS

_STYLE = """
body { max-width: 72rem; } figure img { image-rendering: auto; }
.grid { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(26rem, 100%), 1fr)); gap: 0 1.5rem; }
"""


_CURVE_NOTE = '<p class="note">Means over videos; bands hold the middle half of the videos.</p>'


def comparison_page(systems: Sequence[System], rows: Sequence[dict], strips: Mapping[str, bytes], folder: Path) -> str:
    """The whole page.

    Args:
        systems: in the order of the rows of the tables.
        rows: of `gather.rows_of`.
        strips: video → PNG bytes.
        folder: where the page will lie; links to videos start there.
    """
    sections = [
        markup.section("VBench", _table_1(systems), *_missing(systems), _caution(systems), *_rating_note(systems)),
        _without_networks(systems),
        _videos(systems, strips, folder),
        _figures("Over the course of the video", _curves(systems), _CURVE_NOTE),
        _figures("Against motion", _scatters(systems), _scatter_note(systems)),
        markup.section("All numbers", _numbers(rows)),
    ]
    data = {"rows": [*rows], "ratings": ratings_of(systems)}
    return markup.document("Videos compared", filter(None, sections), data=data, style=_STYLE)


def _table_1(systems: Sequence[System]) -> str:
    kind = _rating_kind(systems)
    still, motion = stands_still(systems), motion_metric(systems)
    rows = []
    for system in systems:
        cells = [_name(system, still)]
        for metric in TABLE_1.values():
            cells.append(_score(system.value(metric), 100) + _beside(system, metric, motion))
        cells += [_score(system.drift(metric), 100) for metric in TABLE_1_DRIFT.values()]
        rows.append([*cells, *([_rating(system)] if kind else [])])
    heads = ["", *TABLE_1, *TABLE_1_DRIFT, *([kind] if kind else [])]
    return markup.table(heads, rows)


def _rating_kind(systems: Sequence[System]) -> str | None:
    return next((system.rating.kind for system in systems if system.rating is not None), None)


def _rating(system: System) -> str:
    if system.rating is None:
        return "–"
    low, high = (_score(end, 1, 0) for end in system.rating.ci95)
    return f"{_score(system.rating.value, 1, 0)} [{low},\N{NO-BREAK SPACE}{high}]"


def _rating_note(systems: Sequence[System]) -> list[str]:
    kind = _rating_kind(systems)
    if kind is None:
        return []
    words = "Bradley-Terry ratings by people's votes: the maximum-likelihood fit to all of them"
    if kind == "Elo":
        words = (
            "Elo ratings (K = 32) by people's votes in the order in which they were cast, for some system of the study "
            "won or lost everything and has no Bradley-Terry rating"
        )
    return [f'<p class="note">{words}; in brackets the 95 % interval. 1500 is the mean of the study.</p>']


def _beside(system: System, metric: str, motion: str | None) -> str:
    """What must stand beside a number that a frozen video wins."""
    if motion is None or not is_won_by_standing_still(metric) or system.value(metric) is None:
        return ""
    value = system.value(motion)
    words = f"dynamic {_score(value, 100)}" if motion == "dynamic_degree" else f"motion {markup.number(value)}"
    return f' <span class="mark">{words}</span>'


def _name(system: System, still: Mapping[str, bool]) -> str:
    mark = ' <span class="mark">stands still</span>' if still.get(system.name) else ""
    return escape(system.name) + mark


def _missing(systems: Sequence[System]) -> list[str]:
    missing = [name for name in TABLE_1.values() if not any(name in system.scores for system in systems)]
    if not missing:
        return []
    names = ", ".join(name.replace("_", " ") for name in missing)
    return [f'<p class="note">Not computed, since they were not asked for or need files of weights: {names}.</p>']


def _caution(systems: Sequence[System]) -> str:
    words = (
        "Values and Δdrift × 100, as in the paper: Δ is the absolute difference between the 15 % of the frames "
        "generated first and last. A video that stands still wins smoothness, flickering, every consistency and every "
        "Δdrift: read them with the motion that stands beside them."
    )
    lazy = [escape(name) for name, still in stands_still(systems).items() if still]
    if lazy:
        words += (
            f" <strong>{', '.join(lazy)}: less than half the motion of the most lively system, or hardly any.</strong>"
        )
    return f'<p class="note">{words}</p>'


def _without_networks(systems: Sequence[System]) -> str:
    names = [offer.name for offer in COMPANIONS] + ["temporal_flickering"]
    found = [name for name in names if any(name in system.scores for system in systems)]
    if not found:
        return ""
    still, motion = stands_still(systems), motion_metric(systems)
    rows = [
        [
            name.replace("_", " "),
            *(
                f"{markup.number(system.value(name))}{_beside(system, name, motion)}<br>"
                f'<span class="note">Δ {markup.number(system.drift(name))}</span>'
                for system in systems
            ),
        ]
        for name in found
    ]
    note = '<p class="note">Definitions: mpjax/evaluation/metrics/appearance.py and change.py.</p>'
    heads = ["", *(_name(system, still) for system in systems)]
    return markup.section("Without networks", markup.table(heads, rows), note)


def _videos(systems: Sequence[System], strips: Mapping[str, bytes], folder: Path) -> str:
    parts = []
    for video in sorted({video for system in systems for video in system.videos}):
        if video in strips:
            parts.append(markup.picture(strips[video], f"{video}: 0, 25, 50, 75, 100 %"))
        links = [
            f'<a href="{escape(_link(system.path(video), folder), quote=True)}">{escape(system.name)}</a>'
            for system in systems
            if video in system.videos
        ]
        parts.append(f"<p>{escape(video)}: {', '.join(links)}</p>")
    return markup.section("Videos", *parts)


def _link(path: Path, folder: Path) -> str:
    relative = os.path.relpath(path.resolve(), folder.resolve())
    return quote(Path(relative).as_posix())


def _curves(systems: Sequence[System]) -> list[str]:
    found = [
        (metric, curve_figure(metric, systems)) for metric in metrics_of(systems) if not metric.startswith("long_")
    ]
    return [svg(figure, f"curve-{metric.replace('_', '-')}") for metric, figure in found if figure is not None]


def _scatters(systems: Sequence[System]) -> list[str]:
    motion = motion_metric(systems)
    if motion is None:
        return []
    return [
        svg(scatter_figure(metric, motion, systems), f"scatter-{metric.replace('_', '-')}")
        for metric in metrics_of(systems)
        if metric != motion and not metric.startswith("long_")
    ]


def _scatter_note(systems: Sequence[System]) -> str:
    stand_in = motion_metric(systems) == "motion_energy"
    words = "A point a video. A metric whose points rise to the left can be won by standing still."
    if stand_in:
        words += " Motion energy stands in for dynamic degree, which not all systems have."
    return f'<p class="note">{words}</p>'


def _figures(title: str, drawings: Sequence[str], note: str = "") -> str:
    if not drawings:
        return ""
    return markup.section(
        title, note, f'<div class="grid">{"".join(f"<figure>{each}</figure>" for each in drawings)}</div>'
    )


def _numbers(rows: Sequence[dict]) -> str:
    cells = [
        [
            escape(row["system"]),
            row["metric"].replace("_", " "),
            "all" if row["seconds"] is None else f"{row['seconds']} s",
            str(row["videos"]),
            f"{markup.number(row['value'])} {markup.interval(row['ci95'])}",
            markup.number(row["drift"]),
        ]
        for row in rows
    ]
    heads = ["system", "metric", "length", "videos", "value, 95 % interval of the mean over videos", "Δdrift"]
    return markup.details("By system, metric and length", heads, cells)


def _score(value: float | None, scale: float, digits: int = 2) -> str:
    return "–" if value is None else f"{scale * value:.{digits}f}"
