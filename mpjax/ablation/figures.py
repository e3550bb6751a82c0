"""The figures of an ablation, in the style of `drawing`."""

import re
from collections.abc import Sequence

from matplotlib.figure import Figure

from mpjax.ablation.design import Ablation
from mpjax.ablation.rows import Interval, Row, metrics_of, over_seeds
from mpjax.drawing import blank_figure, legend, series_colour, series_style
from mpjax.evaluation.report_figures import drift_figure, recall_figure
from mpjax.markup import SERIES


def figures(ablation: Ablation, rows: Sequence[Row], results: Sequence[dict]) -> dict[str, Figure]:
    """Name → figure: recall by gap and R by segment for each panel of arms, slopes, and curves of arms with an x."""
    drawn: dict[str, Figure] = {}
    panels = _panels(ablation)
    for evaluation in ablation.recall:
        measured = {row.arm for row in rows if row.group == evaluation.name}
        reports = {result["arm"]: result["recall"].get(evaluation.name) for result in results}
        for panel, arms in panels.items():
            recall = {arm: _recall(rows, arm, evaluation.name, reports[arm]) for arm in arms if arm in measured}
            if recall:
                drawn[f"recall_{evaluation.name}_{panel}"] = recall_figure(recall)
        drawn |= _curves(ablation, rows, evaluation.name, "recall beyond reach")
    for drift in ablation.drift:
        measured = {row.arm for row in rows if row.group == drift.name}
        for panel, arms in panels.items():
            curves = {arm: _by_segment(rows, arm, drift.name) for arm in arms if arm in measured}
            if curves:
                drawn[f"drift_{drift.name}_{panel}"] = drift_figure(curves)
        names = [arm.name for arm in ablation.arms if arm.name in measured]
        slopes = {name: over_seeds(rows, name, drift.name, "error slope") for name in names}
        drawn[f"slopes_{drift.name}"] = interval_figure(slopes, "slope of the RMS error a minute")
        drawn |= _curves(ablation, rows, drift.name, "error slope")
    return drawn


def interval_figure(values: dict[str, Interval | None], label: str) -> Figure:
    """A bar with its interval for each arm.

    Args:
        values: arm → (value, low, high); None is left out.
        label: of the values.
    """
    shown = {name: value for name, value in values.items() if value is not None}
    figure, axes = blank_figure(label, "", height=0.9 + 0.32 * len(shown))
    for place, (value, low, high) in enumerate(shown.values()):
        axes.barh(place, value, color=series_colour(0), alpha=0.35, gid=f"bar-{place}")
        axes.hlines(place, low, high, color=series_colour(0), linewidth=1.6, gid=f"interval-{place}")
    axes.set_yticks(range(len(shown)), list(shown))
    axes.invert_yaxis()
    axes.grid(visible=False, axis="y")
    return figure


def curve_figure(points: Sequence[tuple[float, Interval]], x: str, y: str) -> Figure:
    """A quantity against a number that arms differ in.

    Args:
        points: (x, (value, low, high)).
        x, y: labels.
    """
    figure, axes = blank_figure(x, y)
    places = [place for place, _ in sorted(points)]
    value, low, high = zip(*(interval for _, interval in sorted(points)), strict=True)
    axes.vlines(places, low, high, color=series_colour(0), linewidth=1.5)
    axes.plot(places, value, gid="series-0", **series_style(0))
    axes.set_xticks(places, [f"{place:g}" for place in places])
    legend(axes)
    return figure


def _panels(ablation: Ablation) -> dict[str, list[str]]:
    """Panel → arms: those of every panel first, then as many as there are colours; more go on in a panel NAME_2."""
    everywhere = [arm.name for arm in ablation.arms if arm.panel == "*" or arm.name == ablation.reference]
    members: dict[str, list[str]] = {}
    for arm in ablation.arms:
        if arm.name not in everywhere:
            members.setdefault(arm.panel or "arms", []).append(arm.name)
    panels = {}
    size = max(len(SERIES) - len(everywhere), 1)
    for panel, arms in (members or {"arms": []}).items():
        for start in range(0, max(len(arms), 1), size):
            name = panel if start == 0 else f"{panel}_{start // size + 1}"
            panels[name] = [*everywhere, *arms[start : start + size]]
    return panels


def _recall(rows: Sequence[Row], arm: str, group: str, report: dict) -> dict:
    """As `recall_figure` wants it, over seeds."""
    gaps = []
    for row in report["gaps"]:
        interval = over_seeds(rows, arm, group, f"recall@{row['gap']}")
        if interval is not None:
            value, low, high = interval
            gaps.append({**row, "rate": value, "ci95": [max(low, 0.0), min(high, 1.0)]})
    return {"gaps": gaps}


def _by_segment(rows: Sequence[Row], arm: str, group: str) -> dict:
    """As `drift_figure` wants it, over seeds."""
    segments = []
    for metric in metrics_of(rows, group):
        interval = over_seeds(rows, arm, group, metric) if metric.startswith("R@") else None
        if interval is not None:
            value, low, high = interval
            segments.append({"segment": int(metric[2:]), "mean": value, "ci95": [max(low, 0.0), high]})
    return {"off_manifold_by_segment": segments}


def _curves(ablation: Ablation, rows: Sequence[Row], group: str, metric: str) -> dict[str, Figure]:
    drawn = {}
    for curve in dict.fromkeys(curve for arm in ablation.arms for curve in arm.x):
        points = []
        for arm in ablation.arms:
            interval = over_seeds(rows, arm.name, group, metric) if curve in arm.x else None
            if interval is not None:
                points.append((float(arm.x[curve]), interval))
        if len(points) > 1:
            drawn[f"{group}_by_{re.sub('[^a-z0-9]+', '_', curve.lower())}"] = curve_figure(points, curve, metric)
    return drawn
