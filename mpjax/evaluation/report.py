"""report.json and report.html of a run.

Every key may be missing; its section is then left out. {…} is an object, […] a list:

    command, commit: text
    seeds, versions, machine: {name: value}
    seconds: {"install": seconds, phase: seconds, …}
    recall: {arm: what `recall_metrics.recall_report` returns; and, if known, "long_term_memory": bool;
             "leak_test" is null for an arm with such a memory, to which it does not apply}
    captions: {picture: text}
    video: file name of an mp4 beside the page
    video_schedule: [prompt of each of its segments, …]
    drift: {forcing: what `drift_metrics.drift_report` returns; and, if measured, "motion" of `drift_metrics.motion`}
    drift_is_illustration: bool, marks the section as such
    step_time_ratio_direct_over_teacher: {ratio, ci95: [low, high], pairs, teacher_ms, direct_ms}
    seconds_per_segment: [seconds, …], of which the first compiles
    peak_rss_mb: {quarter, end}
    training: {arm: {parameters, updates, ms_per_update or ms_per_update_with_compile,
                     loss: [[update, loss], …], held_out: [[update, loss], …]}}

`report_figures` draws, `report_page` writes the HTML.
"""

from pathlib import Path

from mpjax.errors import InputError
from mpjax.evaluation.report_page import page
from mpjax.whole_files import plain, write_file, write_json


def write_report(report: dict, pictures: dict[str, bytes], folder: Path) -> Path:
    """Writes report.json and report.html, each at once; existing ones are replaced.

    Args:
        report: the schema above; NumPy numbers and arrays are taken too, and a number that is not finite becomes null.
        pictures: name → PNG bytes, shown in this order.
        folder: where to; made if missing.

    Returns:
        The path of report.html.

    Raises:
        InputError: a picture is no PNG, or `report` holds something that JSON cannot.
    """
    for name, data in pictures.items():
        if not data.startswith(b"\x89PNG\r\n\x1a\n"):
            raise InputError(f"picture {name!r} is no PNG: give PNG bytes")
    values = plain(report, "report")
    # Drawn before anything is written, so that a failure leaves the old files together.
    html = page(values, pictures)
    write_json(folder / "report.json", values)
    write_file(folder / "report.html", html)
    return folder / "report.html"
