"""How a step scales with the slice, as a figure: from rows of one step on several slices."""

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mpjax.drawing import blank_figure, legend, series_style
from mpjax.plan.row import Row


def scaling_figures(rows: Sequence[Row]) -> dict[str, Figure]:
    """Name → figure: what a chip sends in a step, and its efficiency by the data sheet.

    A step on a kind of chip is a series. Rows that did not compile are left out, as are series of a single size.
    """
    found: dict[str, list[Row]] = {}
    for row in sorted(rows, key=lambda row: row.chips):
        if not row.error:
            found.setdefault(f"{row.step}, {row.topology.partition(':')[0]}", []).append(row)
    series = {name: points for name, points in found.items() if len({row.chips for row in points}) > 1}
    if not series:
        return {}
    sent, axes = blank_figure("chips", "sent by a chip in a step [GB]")
    for index, (name, points) in enumerate(series.items()):
        places = [row.chips for row in points]
        axes.plot(places, [sum(row.moved.values()) / 1e9 for row in points], label=name, **series_style(index))
    _chip_axis(axes, series)
    axes.set_ylim(bottom=0)
    efficiency, axes = blank_figure("chips", "useful share of the chips' peak, at most [%]")
    for index, (name, points) in enumerate(series.items()):
        places = [row.chips for row in points]
        together = [100 * row.mfu for row in points]
        apart = [100 * row.mfu * row.seconds / row.seconds_apart for row in points]
        axes.plot(places, together, label=f"{name}, all overlapped", **series_style(index))
        style = series_style(index, linestyle="--", markerfacecolor="white")
        axes.plot(places, apart, label=f"{name}, nothing overlapped", **style)
    _chip_axis(axes, series)
    axes.set_ylim(0, 105)
    return {"sent": sent, "efficiency": efficiency}


def _chip_axis(axes: Axes, series: dict[str, list[Row]]) -> None:
    places = sorted({row.chips for points in series.values() for row in points})
    axes.set_xscale("log", base=2)
    axes.set_xticks(places, [str(place) for place in places])
    axes.minorticks_off()
    legend(axes, columns=2)
