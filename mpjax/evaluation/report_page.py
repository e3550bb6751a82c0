"""The report as one HTML page that needs nothing from anywhere: style, figures and pictures are inside it.

Only the video stays beside the page, which says the same without it.
"""

import itertools
from html import escape
from urllib.parse import quote

from mpjax import markup
from mpjax.drawing import svg
from mpjax.evaluation.report_figures import DRAWINGS


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
    return markup.document("mpjax report", filter(None, sections), data=report)


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
        text = ", ".join(f"{name} {markup.duration(value)}" for name, value in phases.items())
        rows.append(["time", escape(f"{markup.duration(sum(phases.values()))}: {text}")])
        if "install" in seconds:
            rows.append(["installation", f"{markup.duration(seconds['install'])}, not in the time above"])
    return markup.section("What was run", markup.table([], rows)) if rows else ""


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
                "does not fall" if half_life is None else f"{markup.number(half_life)} segments",
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
    return markup.section(
        "Recall",
        f"<p>{note}</p>",
        _drawing("recall", recall),
        markup.table(heads, rows),
        markup.table(["arm", "one of the two toys", "the toy not asked for"], slots) if slots else "",
        f"<h3>Leak test</h3>\n<p>{rule}</p>\n<ul>{words}</ul>",
        markup.details("Numbers by gap", *_gap_table(recall)),
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
        f"pooled recall {markup.percent(pooled['rate'])} with {100 * test['confidence']:.3g} % interval "
        f"{markup.interval(pooled['ci'], 100)} over {pooled['n']} videos, chance {100 * test['chance']:.3g} %"
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
        parts.append(markup.picture(data, str(captions.get(name, name))))
    return markup.section("Pictures", *parts)


def _schedule(report: dict) -> str:
    """The prompts of the video, runs of equal ones counted."""
    runs = [(prompt, len([*same])) for prompt, same in itertools.groupby(report.get("video_schedule") or [])]
    text = ", ".join(prompt if count == 1 else f"{prompt} × {count}" for prompt, count in runs)
    return escape(f". Prompts by segment: {text}") if runs else ""


def _drift(drift: dict, *, illustration: bool) -> str:
    if not drift:
        return ""
    threshold = ", ".join({markup.number(forcing["survival"]["threshold"]): 0 for forcing in drift.values()})
    rows = []
    for name, forcing in drift.items():
        slope, survival, gap = forcing["slope"], forcing["survival"], forcing.get("exposure_gap")
        median = survival["median_seconds"]
        rows.append(
            [
                escape(name),
                f"{markup.number(slope['per_minute'])} {markup.interval(slope['ci95'])}",
                f"{markup.percent(survival['survived'])} of {markup.number(survival['horizon_seconds'])} s",
                "half or more survive" if median is None else f"{markup.number(median)} s",
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
    return markup.section(
        "Drift over time" + mark,
        f"<p>{note}</p>",
        caution if illustration else "",
        _drawing("drift", drift),
        markup.table(heads, rows),
    )


def _cost(report: dict) -> str:
    ratio, seconds = report.get("step_time_ratio_direct_over_teacher"), report.get("seconds_per_segment")
    memory = report.get("peak_rss_mb")
    parts = []
    if ratio:
        parts.append(
            f"<p>In the median, a Direct Forcing update takes <strong>{markup.number(ratio['ratio'])}</strong> times "
            f"as long as a Teacher Forcing update, 95 % interval {markup.interval(ratio['ci95'])}, "
            f"from {ratio['pairs']} alternating pairs "
            f"({markup.number(ratio['direct_ms'])} ms against {markup.number(ratio['teacher_ms'])} ms).</p>"
        )
    if memory:
        parts.append(
            f"<p>Memory of the process while generating, at its peak so far: {markup.number(memory['quarter'])} MB "
            f"after a quarter of the video, {markup.number(memory['end'])} MB at its end.</p>"
        )
    if seconds:
        first = "" if seconds[0] is None else f", which compiles and took {markup.number(seconds[0])} s"
        parts.append(f"<p>Time to generate each segment of the video but the first{first}:</p>")
        parts.append(_drawing("seconds_per_segment", seconds))
    return markup.section("Cost", *parts) if parts else ""


def _training(training: dict) -> str:
    if not training:
        return ""
    rows = []
    for name, arm in training.items():
        ms = markup.number(arm.get("ms_per_update"))
        if arm.get("ms_per_update") is None and "ms_per_update_with_compile" in arm:
            ms = f"{markup.number(arm['ms_per_update_with_compile'])}, compiling and validation included"
        rows.append([escape(name), markup.count(arm.get("parameters")), markup.count(arm.get("updates")), ms])
    note = "<p>Loss: mean squared error of the velocity. Line: training batches; squares: held-out videos.</p>"
    curves = any(arm.get("loss") or arm.get("held_out") for arm in training.values())
    drawing = note + _drawing("training", training) if curves else ""
    table = markup.table(["arm", "parameters", "updates", "ms an update"], rows)
    return markup.section("Training", drawing, table)


def _drawing(name: str, numbers: object) -> str:
    return f"<figure>{svg(DRAWINGS[name](numbers), name.replace('_', '-'))}</figure>"


def _share(share: dict) -> str:
    """A {rate, ci95} as text; without a row there is none."""
    return "–" if share["rate"] is None else f"{markup.percent(share['rate'])} {markup.interval(share['ci95'], 100)}"


def _mean(value: dict) -> str:
    """A {mean, ci95} as text."""
    return f"{markup.number(value['mean'])} {markup.interval(value['ci95'])}"
