"""How a step scales with the slice, as a figure: from rows of one step on several slices."""

from collections.abc import Sequence

from matplotlib.figure import Figure

from mpjax.evaluation.report_figures import blank_figure, legend, series_style
from mpjax.plan.row import Row


def scaling_figures(rows: Sequence[Row]) -> dict[str, Figure]:
    """Name → figure: what a chip sends in a step, and its efficiency by the data sheet; a step a series.

    Rows that did not compile are left out, as are steps with a single slice left.
    """
    by_step: dict[str, list[Row]] = {}
    for row in sorted(rows, key=lambda row: row.chips):
        if not row.error:
            by_step.setdefault(row.step, []).append(row)
    series = {step: found for step, found in by_step.items() if len({row.chips for row in found}) > 1}
    if not series:
        return {}
    sent, axes = blank_figure("chips", "sent by a chip in a step [GB]")
    for index, (step, found) in enumerate(series.items()):
        places = [row.chips for row in found]
        axes.plot(places, [sum(row.moved.values()) / 1e9 for row in found], label=step, **series_style(index))
    _chips(axes, series)
    axes.set_ylim(bottom=0)
    efficiency, axes = blank_figure("chips", "useful share of the chips' peak, at most [%]")
    for index, (step, found) in enumerate(series.items()):
        places = [row.chips for row in found]
        together = [100 * row.mfu for row in found]
        apart = [100 * row.mfu * row.seconds / row.seconds_apart for row in found]
        axes.plot(places, together, label=f"{step}, all overlapped", **series_style(index))
        style = series_style(index, linestyle="--", markerfacecolor="white")
        axes.plot(places, apart, label=f"{step}, nothing overlapped", **style)
    _chips(axes, series)
    axes.set_ylim(0, 100)
    return {"sent": sent, "efficiency": efficiency}


def _chips(axes, series: dict[str, list[Row]]) -> None:
    places = sorted({row.chips for found in series.values() for row in found})
    axes.set_xscale("log", base=2)
    axes.set_xticks(places, [str(place) for place in places])
    axes.minorticks_off()
    legend(axes)
