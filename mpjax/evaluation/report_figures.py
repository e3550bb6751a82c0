"""The figures of the report, in the style of `drawing`."""

from collections.abc import Callable

from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator

from mpjax.drawing import INK, WIDTH, blank_figure, legend, prepare_axes, series_colour, series_style
from mpjax.markup import SERIES


def recall_figure(recall: dict) -> Figure:
    """Recall in percent against the gap, an arm a series, with 95 % intervals, chance, and where reach ends.

    Args:
        recall: arm → what `recall_metrics.recall_report` returns.
    """
    figure, axes = blank_figure("hidden segments between leaving and returning (gap)", "recall [%]")
    gaps = sorted({row["gap"] for arm in recall.values() for row in arm["gaps"]})
    beyond = {row["gap"]: row["beyond_reach"] for arm in recall.values() for row in arm["gaps"]}
    chances = {row["chance"] for arm in recall.values() for row in arm["gaps"]}
    far = [place for place, gap in enumerate(gaps) if beyond[gap]]
    if far:
        axes.axvspan(far[0] - 0.5, len(gaps) - 0.5, color=INK, alpha=0.07, linewidth=0, gid="reach")
        axes.text(far[0] - 0.46, 104, "beyond FramePack's reach →", color=INK, fontsize=9)
    for chance in sorted(chances):
        axes.axhline(100 * chance, color=INK, linestyle=(0, (4, 3)), linewidth=1, gid="chance")
        axes.text(-0.47, 100 * chance + 1.5, f"chance {100 * chance:.3g} %", color=INK, fontsize=9)
    for index, (name, arm) in enumerate(recall.items()):
        rows = [row for row in arm["gaps"] if row["rate"] is not None]
        # Side by side, so that intervals of equal arms stay apart.
        shift = 0.12 * (index - (len(recall) - 1) / 2)
        places = [gaps.index(row["gap"]) + shift for row in rows]
        rates = [100 * row["rate"] for row in rows]
        low, high = ([100 * row["ci95"][end] for row in rows] for end in (0, 1))
        axes.vlines(places, low, high, color=series_colour(index), linewidth=1.5, gid=f"interval-{index}")
        axes.plot(places * 2, low + high, **series_style(index, marker="_", linestyle="none"))
        axes.plot(places, rates, label=name, gid=f"series-{index}", **series_style(index))
    axes.set_xticks(range(len(gaps)), [str(gap) for gap in gaps])
    axes.set_xlim(-0.5, max(len(gaps), 1) - 0.5)
    axes.set_ylim(0, 112)
    axes.set_yticks(range(0, 101, 20))
    legend(axes)
    return figure


def drift_figure(drift: dict) -> Figure:
    """Off-manifold energy by segment with its 95 % band, a forcing a series.

    Args:
        drift: forcing → what `drift_metrics.drift_report` returns.
    """
    figure, axes = blank_figure("generated segment", "off-manifold energy R")
    for index, (name, forcing) in enumerate(drift.items()):
        rows = [row for row in forcing["off_manifold_by_segment"] if row["mean"] is not None]
        places = [row["segment"] for row in rows]
        low, high = [row["ci95"][0] for row in rows], [row["ci95"][1] for row in rows]
        axes.fill_between(places, low, high, color=series_colour(index), alpha=0.2, linewidth=0, gid=f"band-{index}")
        style = series_style(index, markersize=4, markevery=max(1, len(rows) // 12))
        axes.plot(places, [row["mean"] for row in rows], label=name, gid=f"series-{index}", **style)
    axes.set_ylim(bottom=0)
    legend(axes)
    return figure


def segment_seconds_figure(seconds: list) -> Figure:
    """Wall time of each generated segment but the first one, which compiles.

    Args:
        seconds: one number a segment; None leaves a hole.
    """
    figure, axes = blank_figure("generated segment", "time [s]", height=2.6)
    places = [place for place, value in enumerate(seconds) if place and value is not None]
    axes.plot(places, [seconds[x] for x in places], gid="series-0", **series_style(0, markersize=3, linewidth=1))
    axes.set_ylim(bottom=0)
    return figure


def training_figure(training: dict) -> Figure:
    """Loss by update, an arm a panel on one logarithmic scale: trained on as a line, held out as markers.

    Args:
        training: arm → {loss: [[update, loss], …], held_out: [[update, loss], …]}; either may be missing.
    """
    arms = {
        name: {key: [(x, y) for x, y in arm.get(key) or [] if y is not None] for key in ("loss", "held_out")}
        for name, arm in training.items()
        if arm.get("loss") or arm.get("held_out")
    }
    columns = min(3, len(arms))
    rows = -(-len(arms) // columns)
    figure = Figure(figsize=(WIDTH, 0.5 + 2.4 * rows), layout="constrained")
    panels = figure.subplots(rows, columns, sharey=True, squeeze=False).flat
    for index, (name, arm) in enumerate(arms.items()):
        axes = panels[index]
        line = {"color": SERIES[0], "linewidth": 1.4}
        for key, style in (("loss", line), ("held_out", series_style(1, linestyle="none"))):
            axes.plot([x for x, _ in arm[key]], [y for _, y in arm[key]], gid=f"{key}-{index}", **style)
        axes.set_title(name, color=INK, fontsize=11)
        prepare_axes(axes, "update", "loss" if index % columns == 0 else "")
        axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
    values = [y for arm in arms.values() for key in arm for _, y in arm[key]]
    if min(values, default=0) > 0:
        panels[0].set_yscale("log")
        panels[0].yaxis.set_minor_locator(LogLocator(subs=(2, 5)))
        panels[0].yaxis.set_major_formatter("{x:g}")
        panels[0].yaxis.set_minor_formatter("{x:g}")
    for axes in panels[len(arms) :]:
        axes.set_visible(False)
    return figure


DRAWINGS: dict[str, Callable[..., Figure]] = {
    "recall": recall_figure,
    "drift": drift_figure,
    "seconds_per_segment": segment_seconds_figure,
    "training": training_figure,
}
"""Key of the report → what draws it."""
