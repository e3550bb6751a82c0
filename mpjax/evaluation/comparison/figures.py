"""Curves over the course of a video, and every metric against how much the videos move."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from mpjax.drawing import blank_figure, legend, series_colour, series_style
from mpjax.evaluation.comparison.gather import System
from mpjax.evaluation.metrics.metric import Score

BINS = 20
LEAST_POINTS = 5  # a curve of fewer points per video is none


def curve_of(scores: Sequence[Score]) -> np.ndarray:
    """A metric over the course of a video, the mean over videos.

    Args:
        scores: of one metric.

    Returns:
        float64 `[videos, BINS]`: each video's mean in each twentieth of its length, straight lines over empty ones;
        no rows where no video has a curve.
    """
    rows = []
    for score in scores:
        at, values = np.asarray(score.at, float), np.asarray(score.values)
        if values.size < LEAST_POINTS:
            continue
        places = np.minimum((at / (at.max() + 1) * BINS).astype(int), BINS - 1)
        count = np.bincount(places, minlength=BINS)
        full = count > 0
        means = np.bincount(places, values, BINS)[full] / count[full]
        rows.append(np.interp(np.arange(BINS), np.flatnonzero(full), means))
    return np.asarray(rows).reshape(-1, BINS)


def curve_figure(metric: str, systems: Sequence[System]) -> Figure | None:
    """A metric over the course of the videos, a system a series; None where there are no curves."""
    curves = {system.name: curve_of([*system.scores.get(metric, {}).values()]) for system in systems}
    if not any(len(curve) for curve in curves.values()):
        return None
    figure, axes = blank_figure("share of the video [%]", metric.replace("_", " "), height=2.8)
    places = (np.arange(BINS) + 0.5) * 100 / BINS
    for index, (name, curve) in enumerate(curves.items()):
        if not len(curve):
            continue
        low, high = np.quantile(curve, [0.25, 0.75], axis=0)
        if len(curve) > 2:
            axes.fill_between(
                places, low, high, color=series_colour(index), alpha=0.15, linewidth=0, gid=f"band-{index}"
            )
        style = series_style(index, markersize=4, markevery=2)
        axes.plot(places, curve.mean(0), label=name, gid=f"series-{index}", **style)
    legend(axes)
    return figure


def scatter_figure(metric: str, motion: str, systems: Sequence[System]) -> Figure:
    """A point for each video: how much it moves, and its value of a metric."""
    figure, axes = blank_figure(
        "length of RAFT's flow over VBench's threshold" if motion == "dynamic_degree" else motion.replace("_", " "),
        metric.replace("_", " "),
        height=2.8,
    )
    for index, system in enumerate(systems):
        points = [
            (moves, score.value)
            for video, score in system.scores.get(metric, {}).items()
            if (moves := system.motion(motion, video)) is not None and score.value is not None
        ]
        style = series_style(index, linestyle="none", alpha=0.75)
        axes.plot([x for x, _ in points], [y for _, y in points], label=system.name, gid=f"series-{index}", **style)
    axes.set_xlim(left=0)
    legend(axes)
    return figure
