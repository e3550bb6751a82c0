"""The tables of an ablation as Markdown: arms as rows, mean over seeds with its 95 % interval, the best in bold."""

from collections.abc import Sequence

from mpjax.ablation.design import Ablation
from mpjax.ablation.rows import Interval, Row, metrics_of, over_seeds

HIGHER, LOWER, NEITHER = 1, -1, 0
DRIFT_COLUMNS = {
    "error slope": LOWER,
    "early error": LOWER,
    "late error": LOWER,
    "gap at the end": LOWER,
    "Δ R": LOWER,
    "Δ gain": LOWER,
    "Δ PSNR": LOWER,
    "identity at the end": HIGHER,
    "dead motion": LOWER,
    "speed": NEITHER,
}
NOTE = (
    "Mean over seeds; in brackets the 95 % interval of Student's t over seeds, or over clips where there is one seed. "
    "Bold: best mean, whether or not it differs from the next."
)


def summary(ablation: Ablation, rows: Sequence[Row], step_times: dict[str, dict]) -> str:
    """All tables of an ablation."""
    names = [arm.name for arm in ablation.arms]
    seeds = ", ".join(str(seed) for seed in ablation.seeds)
    budget = {"updates": "equal updates", "wall_clock": "equal time"}[ablation.budget]
    parts = [f"Seeds {seeds}; {budget}. {NOTE}"]
    for recall in ablation.recall:
        gaps = [metric for metric in metrics_of(rows, recall.name) if metric.startswith("recall@")]
        columns = dict.fromkeys([*gaps, "recall beyond reach"], HIGHER) | {"no toy": LOWER}
        if "swap" in metrics_of(rows, recall.name):
            columns["swap"] = LOWER
        if recall.expects:
            columns = dict.fromkeys(columns, NEITHER)
        parts += [f"## Recall: {recall.name}", _table(rows, names, recall.name, columns)]
    for drift in ablation.drift:
        note = (
            "Error: RMS difference to the nearest frame with the clip's own toy, its slope a minute; early and late: "
            "the first and last four generated segments. Gap: error on own history minus error on true history, in "
            "the last segment. Δ: first against last 15 % of the frames."
        )
        parts += [f"## Drift: {drift.name}", note, _table(rows, names, drift.name, DRIFT_COLUMNS)]
    parts += ["## Cost", _cost(rows, names, step_times, ablation.reference)]
    return "\n\n".join(parts) + "\n"


def _table(rows: Sequence[Row], names: Sequence[str], group: str, columns: dict[str, int]) -> str:
    measured = [name for name in names if any(row.arm == name and row.group == group for row in rows)]
    cells = {(name, metric): over_seeds(rows, name, group, metric) for name in measured for metric in columns}
    best = {}
    for metric, direction in columns.items():
        values = [interval[0] for name in measured if (interval := cells[name, metric]) is not None]
        if direction != NEITHER and len(values) > 1:
            best[metric] = max(values) if direction == HIGHER else min(values)
    lines = [f"| arm | {' | '.join(columns)} |", "|---" * (len(columns) + 1) + "|"]
    for name in measured:
        texts = [_cell(cells[name, metric], best.get(metric)) for metric in columns]
        lines.append(f"| {name} | {' | '.join(texts)} |")
    return "\n".join(lines)


def _cost(rows: Sequence[Row], names: Sequence[str], step_times: dict[str, dict], reference: str) -> str:
    heads = ["updates", "forwards an update", f"time of an update over {reference}", "parameters", "bytes of ψ"]
    heads += ["held-out loss"]
    lines = [f"| arm | {' | '.join(heads)} |", "|---" * (len(heads) + 1) + "|"]
    for name in names:
        texts = [_whole(over_seeds(rows, name, "training", metric)) for metric in ("updates", "forwards_per_update")]
        time = step_times.get(name)
        texts.append("1" if name == reference else "–" if time is None else _cell((time["ratio"], *time["ci95"]), None))
        texts += [_whole(over_seeds(rows, name, "training", metric)) for metric in ("parameters", "memory_bytes")]
        texts.append(_cell(over_seeds(rows, name, "training", "held_out_loss"), None))
        lines.append(f"| {name} | {' | '.join(texts)} |")
    return "\n".join(lines)


def _cell(interval: Interval | None, best: float | None) -> str:
    if interval is None:
        return "–"
    value, low, high = interval
    text = f"**{value:.3g}**" if value == best else f"{value:.3g}"
    return text if low == high else f"{text} [{low:.3g}, {high:.3g}]"


def _whole(interval: Interval | None) -> str:
    return "–" if interval is None else f"{interval[0]:,.6g}"
