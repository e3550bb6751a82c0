"""Pages that need no other file: text, tables, and frames as JPEG inside the HTML."""

import base64
import html
import io
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from PIL import Image

STYLE = """
body { font: 14px/1.4 sans-serif; margin: 2em; max-width: 80em }
table { border-collapse: collapse } td, th { padding: .15em .8em .15em 0; text-align: left; vertical-align: top }
figure { display: inline-block; margin: 0 1em 1em 0; width: 26em; vertical-align: top } img { width: 100% }
figcaption { font-size: 12px; overflow-wrap: anywhere } .out { color: #a00 } pre { white-space: pre-wrap }
"""


def page(title: str, parts: Iterable[str]) -> str:
    """A whole HTML document."""
    head = f'<meta charset="utf-8"><title>{html.escape(title)}</title><style>{STYLE}</style>'
    return (
        f"<!doctype html><html><head>{head}</head><body><h1>{html.escape(title)}</h1>{''.join(parts)}</body></html>\n"
    )


def table(rows: Iterable[Sequence[str]], header: Sequence[str] = ()) -> str:
    """Cells are text."""
    cells = [f"<tr>{''.join(f'<th>{html.escape(cell)}</th>' for cell in header)}</tr>"] if header else []
    cells += [f"<tr>{''.join(f'<td>{html.escape(cell)}</td>' for cell in row)}</tr>" for row in rows]
    return f"<table>{''.join(cells)}</table>"


def figure(picture: bytes, lines: Sequence[str], warning: str = "") -> str:
    """A JPEG with lines of text below it, and one in red."""
    source = base64.b64encode(picture).decode()
    below = "<br>".join(map(html.escape, lines)) + (f'<br><b class="out">{html.escape(warning)}</b>' if warning else "")
    return f'<figure><img src="data:image/jpeg;base64,{source}"><figcaption>{below}</figcaption></figure>'


def heading(text: str) -> str:
    """Of a section."""
    return f"<h2>{html.escape(text)}</h2>"


def jpeg(pictures: np.ndarray) -> bytes:
    """Frames uint8 `[n, h, w, 3]` side by side."""
    strip = np.concatenate(list(pictures), axis=1)
    buffer = io.BytesIO()
    Image.fromarray(strip).save(buffer, "JPEG", quality=80)
    return buffer.getvalue()


def scores_line(scores: Mapping[str, float]) -> str:
    """`dynamism 0.042, camera 0.001`."""
    return ", ".join(f"{name} {value:.3g}" for name, value in scores.items())
