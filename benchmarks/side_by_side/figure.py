"""Drawing of a record of `mpjax bench`: each rival's time over ours, case by case."""

from typing import Any

from mpjax.drawing import INK, blank_figure, legend, png, series_colour

BAR = 0.36  # of the distance of two cases


def ratios(cases: dict[str, Any]) -> dict[str, dict[str, dict[str, Any]]]:
    """Rival → case → {median, ci95} of its seconds over ours."""
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for case, record in cases.items():
        for name, row in record.get("sides", {}).items():
            if row["ratio"] is not None:
                found.setdefault(name, {})[case] = row["ratio"]
    return found


def figure(cases: dict[str, Any]) -> bytes:
    """Bars with intervals, as PNG; a line where both are as fast. Some case must have a rival."""
    found = ratios(cases)
    names = [case for case in cases if any(case in rows for rows in found.values())]
    drawing, axes = blank_figure("", "time of the rival ÷ ours")
    for index, (rival, rows) in enumerate(found.items()):
        shift = (index - (len(found) - 1) / 2) * BAR
        places = [names.index(case) + shift for case in rows]
        heights = [row["median"] for row in rows.values()]
        below = [row["median"] - row["ci95"][0] for row in rows.values()]
        above = [row["ci95"][1] - row["median"] for row in rows.values()]
        style: dict[str, Any] = {"width": 0.9 * BAR, "color": series_colour(index), "ecolor": INK, "capsize": 3}
        axes.bar(places, heights, yerr=[below, above], label=rival, **style)
    axes.axhline(1.0, color=INK, linewidth=1)
    axes.set_xticks(range(len(names)), [name.replace("_", " ") for name in names])
    legend(axes)
    return png(drawing)
