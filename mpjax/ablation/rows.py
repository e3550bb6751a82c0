"""From the nested result of a cell to flat rows, and from rows of several seeds to one interval."""

import csv
import dataclasses
import io
import math
from collections.abc import Sequence

import numpy as np

from mpjax.evaluation.statistics import seed_interval

Interval = tuple[float, float, float]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Row:
    """One number of one cell.

    Attributes:
        arm, seed: of the cell.
        group: name of the evaluation, or "training".
        metric: what it is.
        value: the number; None where it does not exist.
        low, high: 95 % interval over clips; None where there is none.
        clips: how many there were.
    """

    arm: str
    seed: int
    group: str
    metric: str
    value: float | None
    low: float | None = None
    high: float | None = None
    clips: int | None = None


def rows_of(cell: dict) -> list[Row]:
    """Every number of a cell that a table or a figure may want."""
    rows: list[Row] = []

    def add(group: str, metric: str, value: float | None, ci: Sequence[float] | None = None, n: int | None = None):
        low, high = ci or (None, None)
        fields = {"arm": cell["arm"], "seed": cell["seed"], "group": group, "metric": metric}
        rows.append(Row(**fields, value=value, low=low, high=high, clips=n))

    for name in ("updates", "parameters", "memory_bytes", "forwards_per_update", "held_out_loss"):
        add("training", name, cell[name])
    add("training", "seconds_per_update_with_compile", cell["seconds_per_update_with_compile"])
    add("training", "peak_rss_mb_of_process", cell["peak_rss_mb_of_process"])
    for group, report in cell["recall"].items():
        for row in report["gaps"]:
            add(group, f"recall@{row['gap']}", row["rate"], row["ci95"], row["n"])
        far = report["beyond_reach"]
        add(group, "recall beyond reach", far["rate"], far["ci95"], far["n"])
        for name, share in report["attributes"].items():
            add(group, name, share["rate"], share["ci95"], share["n"])
        missed = report["hallucination"]
        add(group, "no toy", missed["rate"], missed["ci95"], missed["n"])
        add(group, "half-life", report["half_life"])
        if report["slots"] is not None:
            add(group, "swap", report["slots"]["rate"], report["slots"]["ci95"], report["slots"]["n"])
    for group, report in cell["drift"].items():
        n = report["clips"]
        error = report["error"]
        add(group, "error slope", error["slope"]["per_minute"], error["slope"]["ci95"], n)
        means = {
            "early error": error["early"],
            "late error": error["late"],
            "gap at the end": report["exposure_gap"][-1],
            "Δ R": report["contrast"]["off_manifold"],
            "Δ gain": report["contrast"]["gain"],
            "Δ PSNR": report["contrast"]["psnr"],
            "identity at the end": report["identity"][-1],
            "speed": report["motion"]["speed_ratio"],
            "dead motion": report["motion"]["dead_motion"],
        }
        for metric, mean in means.items():
            if mean is not None:  # some do not exist in every world
                add(group, metric, mean["mean"], mean["ci95"], n)
        add(group, "R slope", report["slope"]["per_minute"], report["slope"]["ci95"], n)
        add(group, "survived", report["survival"]["survived"], None, n)
        for row in report["off_manifold_by_segment"]:
            add(group, f"R@{row['segment']}", row["mean"], row["ci95"], n)
    return rows


def over_seeds(rows: Sequence[Row], arm: str, group: str, metric: str) -> Interval | None:
    """Mean over seeds and its t interval, or, of one seed, its value and interval over clips; None without a value."""
    found = [row for row in rows if (row.arm, row.group, row.metric) == (arm, group, metric) and row.value is not None]
    if not found:
        return None
    if len(found) == 1:
        low, high = found[0].low, found[0].high
        value = float(found[0].value or 0)
        return value, value if low is None else low, value if high is None else high
    return seed_interval(np.asarray([row.value for row in found], float))


def metrics_of(rows: Sequence[Row], group: str) -> list[str]:
    """Metrics of a group, in the order in which they were found."""
    return list(dict.fromkeys(row.metric for row in rows if row.group == group))


def as_csv(rows: Sequence[Row]) -> str:
    """A line a row, six significant digits."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow([field.name for field in dataclasses.fields(Row)])
    for row in rows:
        writer.writerow([_text(value) for value in dataclasses.astuple(row)])
    return buffer.getvalue()


def _text(value: object) -> str:
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return ""
    return f"{value:.6g}" if isinstance(value, float) else str(value)
