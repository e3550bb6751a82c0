"""From the rounds of a race to the numbers of a table."""

from typing import Any

import numpy as np

from mpjax.evaluation.statistics import median_interval


def summarise(found: dict[str, dict[str, Any]], flops: int) -> dict[str, Any]:
    """What the rounds say.

    Args:
        found: of `race`, ours first.
        flops: operations of one run.

    Returns:
        matmul_flops_per_second, by side, and sides: for each {median, iqr, cpu_seconds (median), flops_per_second,
        share of the fastest matrix product of all sides, bytes, device_bytes, ratio, cpu_ratio}. A ratio is that
        side's seconds over ours, the median of the rounds' ratios with its interval, as {median, ci95}; None of ours.
    """
    peaks = {name: float(np.median(row["multiply_flops_per_second"])) for name, row in found.items()}
    peak, (ours, *_) = max(peaks.values()), found
    sides = {}
    for name, row in found.items():
        seconds = np.asarray(row["seconds"])
        low, median, high = np.quantile(seconds, [0.25, 0.5, 0.75])
        sides[name] = {
            "median": float(median),
            "iqr": [float(low), float(high)],
            "cpu_seconds": float(np.median(row["cpu_seconds"])),
            "flops_per_second": flops / float(median),
            "share": flops / float(median) / peak,
            **row["memory"],
            "ratio": None if name == ours else _ratio(row["seconds"], found[ours]["seconds"]),
            "cpu_ratio": None if name == ours else _ratio(row["cpu_seconds"], found[ours]["cpu_seconds"]),
        }
    return {"matmul_flops_per_second": peaks, "sides": sides}


def _ratio(theirs: list[float], ours: list[float]) -> dict[str, Any]:
    median, least, most = median_interval(np.asarray(theirs) / np.asarray(ours))
    return {"median": median, "ci95": [least, most]}
