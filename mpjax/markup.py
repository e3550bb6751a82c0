"""Pieces of an HTML page that needs nothing from anywhere: its style, tables, pictures, numbers.

Arguments are HTML where the docstring does not say text.
"""

import base64
import json
from collections.abc import Iterable
from html import escape
from typing import Any

SERIES = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#8c6d00", "#5d5d5d")
"""Okabe and Ito's colours, which stay apart under every colour blindness; on white."""

SERIES_ON_DARK = ("#56b4e9", "#ff9a4d", "#3fd0a5", "#eeaccf", "#f0e442", "#c0c0c0")
"""The same series on a dark page."""

_STYLE = """
:root { color-scheme: light dark; --paper: #ffffff; --ink: #1b1f24; --quiet: #59636e; --line: #d5dae0; LIGHT }
@media (prefers-color-scheme: dark) {
  :root { --paper: #14171b; --ink: #e8eaed; --quiet: #a3acb6; --line: #39414a; DARK }
}
body { background: var(--paper); color: var(--ink); font: 16px/1.5 system-ui, sans-serif; margin: 0 auto;
  padding: 1.5rem; max-width: 54rem; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.25rem; margin-top: 2.2rem; border-bottom: 1px solid var(--line); }
.table, figure { overflow-x: auto; } table { border-collapse: collapse; font-size: .9rem; }
th, td { text-align: left; padding: .2rem .9rem .2rem 0; border-bottom: 1px solid var(--line); vertical-align: top; }
figure { margin: 1rem 0; } figure svg { width: 100%; height: auto; color: var(--ink); }
figure img { image-rendering: pixelated; max-width: 100%; height: auto; }
figcaption, .note { color: var(--quiet); font-size: .9rem; }
.mark { border: 1px solid var(--line); border-radius: .3rem; padding: 0 .4rem; font-size: .8rem; font-weight: normal; }
video { image-rendering: pixelated; max-width: 100%; } code { overflow-wrap: anywhere; }
"""


def document(title: str, sections: Iterable[str], *, data: Any = None, style: str = "") -> str:
    """The whole page, HTML5.

    Args:
        title: text.
        sections: below one another.
        data: plain JSON, kept in the page as a script element with the id `report`.
        style: CSS after that of every page.
    """
    colours = {
        mark: " ".join(f"--series-{index}: {colour};" for index, colour in enumerate(palette))
        for mark, palette in (("LIGHT", SERIES), ("DARK", SERIES_ON_DARK))
    }
    rules = _STYLE.replace("LIGHT", colours["LIGHT"]).replace("DARK", colours["DARK"]) + style
    title = escape(title)
    return "\n".join(
        [
            '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{title}</title>\n<style>{rules}</style>\n</head>\n<body>\n<h1>{title}</h1>",
            *sections,
            "" if data is None else island("report", data),
            "</body>\n</html>\n",
        ]
    )


def island(name: str, data: Any) -> str:
    """JSON inside the page, for scripts and readers: a script element with that id."""
    # "</" would end the script element early.
    text = json.dumps(data, sort_keys=True).replace("</", "<\\/")
    return f'<script type="application/json" id="{name}">{text}</script>'


def picture(image: bytes, caption: str, *more: str, kind: str = "png") -> str:
    """A figure with a picture inside it, a PNG or a JPEG (`kind="jpeg"`); the caption is text, what follows it HTML."""
    words = escape(caption, quote=True)
    source = f"data:image/{kind};base64,{base64.b64encode(image).decode()}"
    below = "<br>".join((words, *more))
    return f'<figure><img alt="{words}" src="{source}"><figcaption>{below}</figcaption></figure>'


def section(title: str, *parts: str) -> str:
    """`title` and parts are HTML."""
    return "\n".join([f"<section>\n<h2>{title}</h2>", *filter(None, parts), "</section>"])


def table(heads: list[str], rows: Iterable[list[str]]) -> str:
    """Cells are HTML."""
    head = f"<tr>{''.join(f'<th>{cell}</th>' for cell in heads)}</tr>" if heads else ""
    body = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in rows)
    return f'<div class="table"><table>{head}{body}</table></div>'


def details(title: str, heads: list[str], rows: list[list[str]]) -> str:
    """A table that is shown by a click on its title."""
    return f"<details><summary>{title}</summary>{table(heads, rows)}</details>"


def interval(ends: list, scale: float = 1) -> str:
    """Low and high on one line; a scale of 100 gives percent."""
    low, high = (f"{scale * value:.1f}" if scale == 100 else number(value) for value in ends)
    return f"[{low},\N{NO-BREAK SPACE}{high}]"


def percent(value: float | None) -> str:
    """A share, 0..1, with one decimal."""
    return "–" if value is None else f"{100 * value:.1f}\N{NO-BREAK SPACE}%"


def number(value: float | None) -> str:
    """Three significant digits, never in powers of ten between a thousandth and a million."""
    if value is None:
        return "–"
    return f"{value:,.0f}" if 1000 <= abs(value) < 1e6 else f"{value:.3g}"


def counted(number: int, thing: str) -> str:
    """`1 video`, `3 videos`."""
    return f"{number} {thing}{'' if number == 1 else 's'}"


def count(value: int | None) -> str:
    """A whole number with separators."""
    return "–" if value is None else f"{value:,}"


def duration(seconds: float) -> str:
    """Minutes and seconds."""
    return f"{seconds:.1f} s" if seconds < 60 else f"{int(seconds // 60)} min {int(seconds % 60)} s"
