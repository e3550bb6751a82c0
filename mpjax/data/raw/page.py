"""What the pages of raw material share: frames as JPEG with lines below them, side by side."""

import io
from collections.abc import Iterable, Mapping, Sequence
from html import escape

import numpy as np
from PIL import Image

from mpjax import markup

STYLE = """
body { max-width: 80rem; } figure { display: inline-block; width: 23em; margin: 0 1em 1em 0; vertical-align: top; }
figure img { image-rendering: auto; width: 100%; } figcaption { overflow-wrap: anywhere; } .out { color: #c33; }
"""


def page(title: str, parts: Iterable[str]) -> str:
    """A whole HTML document; the title is text."""
    return markup.document(title, parts, style=STYLE)


def table(rows: Iterable[Sequence[str]]) -> str:
    """Cells are text."""
    return markup.table([], [[escape(cell) for cell in row] for row in rows])


def figure(pictures: np.ndarray, lines: Sequence[str], warning: str = "") -> str:
    """Frames uint8 `[n, h, w, 3]` side by side, with lines of text below them, and one in red."""
    more = [escape(line) for line in lines[1:]]
    if warning:
        more.append(f'<b class="out">{escape(warning)}</b>')
    return markup.picture(_jpeg(pictures), lines[0], *more, kind="jpeg")


def scores_line(scores: Mapping[str, float]) -> str:
    """`dynamism 0.042, camera 0.001`."""
    return ", ".join(f"{name} {value:.3g}" for name, value in scores.items())


def _jpeg(pictures: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.concatenate(list(pictures), axis=1)).save(buffer, "JPEG", quality=80)
    return buffer.getvalue()
