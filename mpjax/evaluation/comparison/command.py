"""The verb `report`: folders of `evaluate` side by side."""

import csv
import io
from collections.abc import Callable, Sequence
from pathlib import Path

from mpjax.data.filmstrip import png
from mpjax.errors import InputError
from mpjax.evaluation.comparison.frames import frames_at, strip
from mpjax.evaluation.comparison.gather import System, ratings_of, read_systems, rows_of
from mpjax.evaluation.comparison.page import comparison_page
from mpjax.whole_files import plain, write_file, write_json

COLUMNS = ("system", "metric", "seconds", "videos", "value", "ci95_low", "ci95_high", "drift")


def write_comparison(
    folders: Sequence[Path], out: Path, *, ratings: Path | None = None, strips: int = 12, say: Callable = print
) -> Path:
    """Writes report.html, report.json and report.csv; returns the page.

    Args:
        folders: what `evaluate` wrote, one a system.
        out: folder; files of these names are replaced.
        ratings: `elo.json` of `elo`, or None.
        strips: show the frames of this many videos at most; those of which most systems have one come first.
        say: told of videos that are no longer where they were.

    Raises:
        InputError: folders, ratings or a number of strips that cannot be used.
    """
    if strips < 0:
        raise InputError(f"--strips {strips}: give 0 or more")
    systems = read_systems(folders, ratings)
    rows = plain(rows_of(systems), "rows")
    pictures = _strips(systems, strips, say)
    html = comparison_page(systems, rows, pictures, out)
    flat = [{**row, "ci95_low": row["ci95"][0], "ci95_high": row["ci95"][1]} for row in rows]
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(flat)
    write_json(out / "report.json", {"rows": rows, "ratings": ratings_of(systems)})
    write_file(out / "report.csv", text.getvalue())
    write_file(out / "report.html", html)
    return out / "report.html"


def _strips(systems: Sequence[System], most: int, say: Callable) -> dict[str, bytes]:
    owners: dict[str, list[System]] = {}
    for system in systems:
        for video in system.videos:
            owners.setdefault(video, []).append(system)
    chosen = sorted(owners, key=lambda video: (-len(owners[video]), video))[:most]
    found = {}
    for video in chosen:
        rows = {}
        for system in owners[video]:
            if (path := system.path(video)).is_file():
                rows[system.name] = frames_at(path)
            else:
                say(f"{path}: not there any more; its frames are left out")
        if rows:
            found[video] = png(strip(rows))
    return found
