"""Figures in one style: drawn blank and with series that stay apart, given as SVG for a page or as PNG.

The colours of a drawing are replaced by CSS variables and `currentColor`, so that one figure reads on a light and on a
dark page (`markup` defines them). Text stays text. The same numbers give the same bytes.
"""

import io
import re

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mpjax.markup import SERIES

INK = "#1b1f24"
WIDTH = 7.6  # inches
_MARKERS = "os^Dv*"


def svg(figure: Figure, name: str) -> str:
    """A figure as an `<svg>` element.

    Args:
        figure: what to draw.
        name: goes before every id, so that several figures can share a page; letters and hyphens.
    """
    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": name}):
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    text = buffer.getvalue()
    # An element inside a page needs no prolog, namespaces or metadata.
    text = re.sub(r"<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.DOTALL)
    text = re.sub(r' xmlns(:\w+)?="[^"]*"', "", text).replace("xlink:href", "href")
    text = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{name}-", text)
    text = re.sub(r'<svg width="[^"]*" height="[^"]*"', f'<svg role="img" aria-label="{name}"', text)
    for index, colour in enumerate(SERIES):
        text = text.replace(colour, f"var(--series-{index})")
    return text.replace(INK, "currentColor").strip()


def png(figure: Figure, dots_per_inch: int = 120) -> bytes:
    """A figure as PNG bytes on white, for documents."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dots_per_inch, facecolor="white")
    return buffer.getvalue()


def blank_figure(x: str, y: str, height: float = 3.8) -> tuple[Figure, Axes]:
    """An empty drawing with named axes, `height` inches high."""
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    axes = figure.add_subplot()
    prepare_axes(axes, x, y)
    return figure, axes


def prepare_axes(axes: Axes, x: str, y: str) -> None:
    """Names and colours of the axes, and quiet lines."""
    axes.set_xlabel(x, color=INK)
    axes.set_ylabel(y, color=INK)
    axes.tick_params(colors=INK, which="both")
    axes.grid(axis="y", color=INK, alpha=0.15, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(INK)


def legend(axes: Axes, columns: int = 4) -> None:
    """Names of the series above the drawing."""
    if axes.get_legend_handles_labels()[1]:
        axes.legend(
            loc="lower left",
            bbox_to_anchor=(0, 1.01),
            ncols=columns,
            frameon=False,
            labelcolor=INK,
            borderaxespad=0,
        )


def series_colour(index: int) -> str:
    """Of series `index`; they repeat after the sixth."""
    return SERIES[index % len(SERIES)]


def series_style(index: int, **changes) -> dict:
    """Keywords of a line with markers for series `index`, with changes."""
    marker = _MARKERS[index % len(_MARKERS)]
    return {"color": series_colour(index), "marker": marker, "linewidth": 1.6, "markersize": 6, **changes}
