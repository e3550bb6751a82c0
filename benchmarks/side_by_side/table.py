"""Records of `mpjax bench` as tables of text."""

from typing import Any


def lines_of_case(case: str, found: dict[str, Any]) -> list[str]:
    """Markdown: a row a side."""
    lines = [
        f"| {case} | median [s] | IQR [s] | ÷ ours (95 %) | CPU [s] | CPU ÷ ours | GFLOP/s | of matmul | memory [GB] |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name, row in found["sides"].items():
        held = row["bytes"] if row["device_bytes"] is None else row["device_bytes"]
        low, high = row["iqr"]
        ratio, cpu_ratio = (_interval(row[name]) for name in ("ratio", "cpu_ratio"))
        lines.append(
            f"| {name} | {row['median']:.4g} | {low:.4g} to {high:.4g} | {ratio} | {row['cpu_seconds']:.4g} "
            f"| {cpu_ratio} | {row['flops_per_second'] / 1e9:.4g} | {row['share']:.0%} | {held / 1e9:.2f} |"
        )
    return lines


def _interval(ratio: dict[str, Any] | None) -> str:
    return "" if ratio is None else "{:.2f} ({:.2f} to {:.2f})".format(ratio["median"], *ratio["ci95"])
