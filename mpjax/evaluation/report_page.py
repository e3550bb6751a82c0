"""The report as one HTML page that needs nothing from anywhere: style, figures and pictures are inside it.

Only the video stays beside the page, which says the same without it.
"""

import base64
import itertools
import json
from collections.abc import Iterable
from html import escape
from urllib.parse import quote

from mpjax.evaluation.report_figures import DRAWINGS, SERIES, SERIES_ON_DARK, svg

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


def page(report: dict, pictures: dict[str, bytes]) -> str:
    """The whole page.

    Args:
        report: plain JSON of the schema in `report`.
        pictures: name → PNG bytes.

    Returns:
        HTML5.
    """
    sections = [
        _what_was_run(report),
        _recall(report.get("recall") or {}),
        _pictures(pictures, report.get("captions") or {}, report),
        _drift(report.get("drift") or {}, illustration=bool(report.get("drift_is_illustration"))),
        _cost(report),
        _training(report.get("training") or {}),
    ]
    colours = {
        mark: " ".join(f"--series-{index}: {colour};" for index, colour in enumerate(palette))
        for mark, palette in (("LIGHT", SERIES), ("DARK", SERIES_ON_DARK))
    }
    style = _STYLE.replace("LIGHT", colours["LIGHT"]).replace("DARK", colours["DARK"])
    # "</" would end the script element early.
    island = json.dumps(report, sort_keys=True).replace("</", "<\\/")
    return "\n".join(
        [
            '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>mpjax report</title>\n<style>{style}</style>\n</head>\n<body>\n<h1>mpjax report</h1>",
            *filter(None, sections),
            f'<script type="application/json" id="report">{island}</script>\n</body>\n</html>\n',
        ]
    )


def _what_was_run(report: dict) -> str:
    rows = [
        [escape(name), f"<code>{escape(str(report[name]))}</code>"]
        for name in ("command", "commit")
        if report.get(name)
    ]
    for name in ("seeds", "versions", "machine"):
        if report.get(name):
            rows.append([name, escape(", ".join(f"{key} {value}" for key, value in report[name].items()))])
    seconds = {name: value for name, value in (report.get("seconds") or {}).items() if value is not None}
    if seconds:
        phases = {name: value for name, value in seconds.items() if name != "install"}
        text = ", ".join(f"{name} {_duration(value)}" for name, value in phases.items())
        rows.append(["time", escape(f"{_duration(sum(phases.values()))}: {text}")])
        if "install" in seconds:
            rows.append(["installation", f"{_duration(seconds['install'])}, not in the time above"])
    return _section("What was run", _table([], rows)) if rows else ""


def _recall(recall: dict) -> str:
    if not recall:
        return ""
    rows = []
    for name, arm in recall.items():
        half_life = arm.get("half_life")
        far = arm["beyond_reach"]
        rows.append(
            [
                escape(name),
                _share(far),
                str(far["n"]),
                _share(arm["attributes"]["colour"]),
                _share(arm["attributes"]["shape"]),
                _share(arm["hallucination"]),
                "does not fall" if half_life is None else f"{_number(half_life)} segments",
            ]
        )
    heads = ["arm", "recall beyond reach", "videos", "colour", "shape", "no toy at all", "recall half-life"]
    chance = next(iter(recall.values()))["beyond_reach"]["chance"]
    note = (
        "A toy leaves the picture, stays away for a number of hidden segments, and has to come back as the same toy. "
        f"By chance {100 * chance:.3g} % would be right. Brackets and bars are 95 % Wilson intervals over videos."
    )
    words = "".join(f"<li>{_leak_words(name, arm)}</li>" for name, arm in recall.items())
    rule = (
        "Beyond reach, FramePack's frames say nothing about the toy. A model without long-term memory must therefore "
        "be at chance there; if it is not, the code that builds its context leaks. A model with memory should be above."
    )
    slots = [
        [escape(name), _share(arm["slots"]["either"]), _share(arm["slots"]["swap"])]
        for name, arm in recall.items()
        if arm.get("slots")
    ]
    return _section(
        "Recall",
        f"<p>{note}</p>",
        _drawing("recall", recall),
        _table(heads, rows),
        _table(["arm", "one of the two toys", "the toy not asked for"], slots) if slots else "",
        f"<h3>Leak test</h3>\n<p>{rule}</p>\n<ul>{words}</ul>",
        _details("Numbers by gap", *_gap_table(recall)),
    )


def _leak_words(name: str, arm: dict) -> str:
    test = arm["leak_test"]
    title = f"<strong>{escape(name)}</strong>: "
    if test is None:
        return title + "has long-term memory, to which the test does not apply."
    if test["passed"] is None:
        return title + "no video goes beyond reach, so there is nothing to test."
    pooled, off = test["pooled"], [row["gap"] for row in test["gaps"] if not row["contains_chance"]]
    numbers = (
        f"pooled recall {_percent(pooled['rate'])} with {100 * test['confidence']:.3g} % interval "
        f"{_interval(pooled['ci'], 100)} over {pooled['n']} videos, chance {100 * test['chance']:.3g} %"
    )
    if test["passed"]:
        verdict = "at chance, pooled and at every gap"
    else:
        places = [] if pooled["contains_chance"] else ["pooled"]
        places += [f"at gap {', '.join(map(str, off))}"] if off else []
        side = "above" if pooled["rate"] > test["chance"] else "off"
        verdict = f"{side} chance, {' and '.join(places)}"
    if arm.get("long_term_memory") is False:
        verdict = f"leak test {'passed' if test['passed'] else 'FAILED'}: {verdict}"
    return f"{title}{verdict}; {numbers}."


def _gap_table(recall: dict) -> tuple[list[str], list[list[str]]]:
    gaps = sorted({row["gap"] for arm in recall.values() for row in arm["gaps"]})
    rows = []
    for gap in gaps:
        found = {name: row for name, arm in recall.items() for row in arm["gaps"] if row["gap"] == gap}
        beyond = any(row["beyond_reach"] for row in found.values())
        cells = [_share(found[name]) + f" of {found[name]['n']}" if name in found else "–" for name in recall]
        rows.append([str(gap), "beyond" if beyond else "within", *cells])
    return ["gap", "reach", *(escape(name) for name in recall)], rows


def _pictures(pictures: dict[str, bytes], captions: dict, report: dict) -> str:
    video = report.get("video")
    if not pictures and not video:
        return ""
    parts = []
    if video:
        source = escape(quote(video), quote=True)
        parts.append(
            f'<figure><video controls loop muted playsinline src="{source}"></video>'
            f'<figcaption><a href="{source}">{escape(video)}</a>{_schedule(report)}</figcaption></figure>'
        )
    for name, data in pictures.items():
        caption = escape(str(captions.get(name, name)), quote=True)
        encoded = base64.b64encode(data).decode()
        picture = f'<img alt="{caption}" src="data:image/png;base64,{encoded}">'
        parts.append(f"<figure>{picture}<figcaption>{caption}</figcaption></figure>")
    return _section("Pictures", *parts)


def _schedule(report: dict) -> str:
    """The prompts of the video, runs of equal ones counted."""
    runs = [(prompt, len([*same])) for prompt, same in itertools.groupby(report.get("video_schedule") or [])]
    text = ", ".join(prompt if count == 1 else f"{prompt} × {count}" for prompt, count in runs)
    return escape(f". Prompts by segment: {text}") if runs else ""


def _drift(drift: dict, *, illustration: bool) -> str:
    if not drift:
        return ""
    threshold = ", ".join({_number(forcing["survival"]["threshold"]): 0 for forcing in drift.values()})
    rows = []
    for name, forcing in drift.items():
        slope, survival, gap = forcing["slope"], forcing["survival"], forcing.get("exposure_gap")
        median = survival["median_seconds"]
        rows.append(
            [
                escape(name),
                f"{_number(slope['per_minute'])} {_interval(slope['ci95'])}",
                f"{_percent(survival['survived'])} of {_number(survival['horizon_seconds'])} s",
                "half or more survive" if median is None else f"{_number(median)} s",
                "–" if not gap else _mean(gap[-1]),
                _mean(forcing["motion"]["speed_ratio"]) if "motion" in forcing else "–",
            ]
        )
    heads = ["forcing", "slope of R a minute", "R stays small", "median survival", "exposure gap at the end", "speed"]
    note = (
        "R is the mean squared difference of a frame to the nearest frame that RecallWorld could show, in units of the "
        f"data range [−1, 1]; 0 is a perfect frame, and a clip survives while R is at most {threshold}. The exposure "
        "gap is the RMS difference to frames with the clip's own toy, on own history minus on true history; speed is "
        "that of the ball over the prompted one. "
        "Brackets and bands are 95 % bootstrap intervals over clips."
    )
    mark = ' <span class="mark">illustration</span>' if illustration else ""
    caution = '<p class="note">An illustration of the measurement, not evidence that one forcing is better.</p>'
    return _section(
        "Drift over time" + mark,
        f"<p>{note}</p>",
        caution if illustration else "",
        _drawing("drift", drift),
        _table(heads, rows),
    )


def _cost(report: dict) -> str:
    ratio, seconds = report.get("step_time_ratio_direct_over_teacher"), report.get("seconds_per_segment")
    memory = report.get("peak_rss_mb")
    parts = []
    if ratio:
        parts.append(
            f"<p>In the median, a Direct Forcing update takes <strong>{_number(ratio['ratio'])}</strong> times as long "
            f"as a Teacher Forcing update, 95 % interval {_interval(ratio['ci95'])}, from {ratio['pairs']} alternating "
            f"pairs ({_number(ratio['direct_ms'])} ms against {_number(ratio['teacher_ms'])} ms).</p>"
        )
    if memory:
        parts.append(
            f"<p>Memory of the process while generating, at its peak so far: {_number(memory['quarter'])} MB after a "
            f"quarter of the video, {_number(memory['end'])} MB at its end.</p>"
        )
    if seconds:
        first = "" if seconds[0] is None else f", which compiles and took {_number(seconds[0])} s"
        parts.append(f"<p>Time to generate each segment of the video but the first{first}:</p>")
        parts.append(_drawing("seconds_per_segment", seconds))
    return _section("Cost", *parts) if parts else ""


def _training(training: dict) -> str:
    if not training:
        return ""
    rows = []
    for name, arm in training.items():
        ms = _number(arm.get("ms_per_update"))
        if arm.get("ms_per_update") is None and "ms_per_update_with_compile" in arm:
            ms = f"{_number(arm['ms_per_update_with_compile'])}, compiling and validation included"
        rows.append([escape(name), _count(arm.get("parameters")), _count(arm.get("updates")), ms])
    note = "<p>Loss: mean squared error of the velocity. Line: training batches; squares: held-out videos.</p>"
    curves = any(arm.get("loss") or arm.get("held_out") for arm in training.values())
    drawing = note + _drawing("training", training) if curves else ""
    table = _table(["arm", "parameters", "updates", "ms an update"], rows)
    return _section("Training", drawing, table)


def _drawing(name: str, numbers: object) -> str:
    return f"<figure>{svg(DRAWINGS[name](numbers), name.replace('_', '-'))}</figure>"


def _section(title: str, *parts: str) -> str:
    """`title` and parts are HTML."""
    return "\n".join([f"<section>\n<h2>{title}</h2>", *filter(None, parts), "</section>"])


def _table(heads: list[str], rows: Iterable[list[str]]) -> str:
    """Cells are HTML."""
    head = f"<tr>{''.join(f'<th>{cell}</th>' for cell in heads)}</tr>" if heads else ""
    body = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in rows)
    return f'<div class="table"><table>{head}{body}</table></div>'


def _details(title: str, heads: list[str], rows: list[list[str]]) -> str:
    return f"<details><summary>{title}</summary>{_table(heads, rows)}</details>"


def _share(share: dict) -> str:
    """A {rate, ci95} as text; without a row there is none."""
    return "–" if share["rate"] is None else f"{_percent(share['rate'])} {_interval(share['ci95'], 100)}"


def _mean(value: dict) -> str:
    """A {mean, ci95} as text."""
    return f"{_number(value['mean'])} {_interval(value['ci95'])}"


def _interval(interval: list, scale: float = 1) -> str:
    """Low and high on one line; a scale of 100 gives percent."""
    low, high = (f"{scale * value:.1f}" if scale == 100 else _number(value) for value in interval)
    return f"[{low},\N{NO-BREAK SPACE}{high}]"


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f}\N{NO-BREAK SPACE}%"


def _number(value: float | None) -> str:
    """Three significant digits, never in powers of ten between a thousandth and a million."""
    if value is None:
        return "–"
    return f"{value:,.0f}" if 1000 <= abs(value) < 1e6 else f"{value:.3g}"


def _count(value: int | None) -> str:
    return "–" if value is None else f"{value:,}"


def _duration(seconds: float) -> str:
    """Minutes and seconds."""
    return f"{seconds:.1f} s" if seconds < 60 else f"{int(seconds // 60)} min {int(seconds % 60)} s"
