"""Records of `mpjax bench` as tables of Markdown."""

from typing import Any


def lines_of_case(case: str, found: dict[str, Any]) -> list[str]:
    """The table of a case."""
    if case in _TABLES:
        return _TABLES[case](found)
    return _sides(case, found)


def page(record: dict[str, Any]) -> str:
    """All tables of a record, below what it says of itself."""
    machine = record["machine"]
    lines = [f"`{record['command']}`", "", f"{machine['device']}, {machine['cores']} cores, commit {record['commit']}"]
    for case, found in record["cases"].items():
        lines += ["", *lines_of_case(case, found)]
    return "\n".join(lines) + "\n"


def _sides(case: str, found: dict[str, Any]) -> list[str]:
    """A row a side."""
    lines = _head(
        case, "median [s]", "IQR [s]", "÷ ours (95 %)", "CPU [s]", "CPU ÷ ours", "GFLOP/s", "of matmul", "memory [GB]"
    )
    for name, row in found["sides"].items():
        held = row["bytes"] if row["device_bytes"] is None else row["device_bytes"]
        low, high = row["iqr"]
        ratio, cpu_ratio = (_interval(row[key]) for key in ("ratio", "cpu_ratio"))
        lines.append(
            f"| {name} | {row['median']:.4g} | {low:.4g} to {high:.4g} | {ratio} | {row['cpu_seconds']:.4g} "
            f"| {cpu_ratio} | {row['flops_per_second'] / 1e9:.4g} | {row['share']:.0%} | {held / 1e9:.2f} |"
        )
    return lines


def _steps(found: dict[str, Any]) -> list[str]:
    """A row a pair of forcings."""
    lines = _head("update", "÷", "ratio (95 %)", "ms", "forward passes")
    for row in found["pairs"]:
        ratio = _interval({"median": row["ratio"], "ci95": row["ci95"]}, 3)
        lines.append(
            f"| {row['forcing']} | {row['reference']} | {ratio} | {row['other_ms']:.1f} / {row['reference_ms']:.1f} "
            f"| {row['other_forwards']:g} / {row['reference_forwards']:g} |"
        )
    return lines


def _length(found: dict[str, Any]) -> list[str]:
    """One row: the first and the last tenth of a video."""
    row = found["summary"]
    return [
        *_head("generation", "segments", "s/segment, first tenth", "last tenth", "ratio"),
        f"| {found['weights']} | {found['segments']} | {row['seconds_first_tenth']:.4g} "
        f"| {row['seconds_last_tenth']:.4g} | {row['ratio']:.3f} |",
    ]


def _data(found: dict[str, Any]) -> list[str]:
    """A row a reader."""
    lines = _head("reader", "latent frames/s", "of what an H200 trains on")
    for name, rate in found["latent_frames_per_second"].items():
        lines.append(f"| {name} | {rate:.4g} | {found['headroom'][name]:.0f}× |")
    return lines


_TABLES = {"train_step": _steps, "length": _length, "data": _data}


def _head(*titles: str) -> list[str]:
    return [f"| {' | '.join(titles)} |", "|" + "---|" * len(titles)]


def _interval(ratio: dict[str, Any] | None, digits: int = 2) -> str:
    if ratio is None:
        return ""
    low, high = ratio["ci95"]
    return f"{ratio['median']:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"
