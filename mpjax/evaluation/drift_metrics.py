"""How a long rollout decays: from per-frame numbers of n clips, `[n, t]` in generation order.

*Own history* means that every segment was generated after the model's own frames, *true history* after the true ones.
Every result is plain JSON; intervals are 95 % percentile bootstraps over clips (`statistics`).
"""

import numpy as np

from mpjax.errors import InputError
from mpjax.evaluation.statistics import mean_interval, mean_intervals, theil_sen_interval

DEAD_SPEED = 0.25
"""Below this part of the prompted speed a segment counts as dead."""

WINDOW_SEGMENTS = 4
"""Generated segments that count as early, and as late."""

_PSNR_FLOOR = 1e-10


def psnr(frames: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Peak signal-to-noise ratio of each frame in dB for the range [-1, 1], float64 `[...]`.

    Args:
        frames, truth: `[..., h, w, 3]`.

    Returns:
        At most 106 dB: a mean squared error below 1e-10 counts as 1e-10.

    Raises:
        InputError: the shapes differ.
    """
    if np.shape(frames) != np.shape(truth):
        raise InputError(f"frames {np.shape(frames)} and truth {np.shape(truth)} differ: give equal shapes")
    error = ((np.asarray(frames, float) - np.asarray(truth, float)) ** 2).mean(axis=(-3, -2, -1))
    return 10 * np.log10(4 / np.maximum(error, _PSNR_FLOOR))


def drift_slope(values: np.ndarray, *, fps: float, seed: int = 0) -> dict:
    """Theil-Sen slope of the mean curve per minute of video: {per_minute, ci95, method}.

    Args:
        values: `[n, t]`.
        fps: frames a second.
        seed: of the bootstrap.

    Raises:
        InputError: the shape is wrong, or fewer than two frames.
    """
    values = _curves(values)
    minutes = np.arange(values.shape[1]) / (60 * fps)
    slope, low, high = theil_sen_interval(minutes, values, seed=seed)
    method = "Theil-Sen slope of the mean over clips, percentile bootstrap over clips"
    return {"per_minute": slope, "ci95": [low, high], "method": method}


def start_end_contrast(values: np.ndarray, *, fraction: float = 0.15, seed: int = 0) -> dict:
    """|mean of the first frames - mean of the last|, averaged over clips: {mean, ci95, fraction}.

    The form of FramePack (2504.12626) and of Eq. 8 of the MemoryPack paper.

    Args:
        values: `[n, t]` or `[n, t, c]`; channels are contrasted apart, then averaged.
        fraction: part of the frames at each end; max(1, int(fraction · t)) frames.
        seed: of the bootstrap.

    Raises:
        InputError: the shape is wrong, or the fraction is outside (0, 0.5].
    """
    values = np.asarray(values, float)
    if values.ndim == 2:
        values = values[..., None]
    if values.ndim != 3 or not values.size:
        raise InputError(f"values has shape {values.shape}: give [clips, frames] or [clips, frames, channels]")
    if not 0 < fraction <= 0.5:
        raise InputError(f"fraction is {fraction}: use a value above 0, up to 0.5")
    frames = max(1, int(fraction * values.shape[1]))
    contrast = np.abs(values[:, :frames].mean(axis=1) - values[:, -frames:].mean(axis=1)).mean(axis=-1)
    mean, low, high = mean_interval(contrast, seed=seed)
    return {"mean": mean, "ci95": [low, high], "fraction": fraction}


def manifold_error(own_toy: np.ndarray, *, fps: float, segment_frames: int, seed: int = 0) -> dict:
    """The RMS error of a frame to the nearest valid one of its clip, and how it grows.

    Args:
        own_toy: mean squared difference to the nearest frame that shows the clip's own toy
            (`decode.off_manifold_of_toy`), `[n, t]`, from the first generated frame on.
        fps: frames a second.
        segment_frames: f; t is a multiple of it.
        seed: of the bootstrap.

    Returns:
        {early, late: {mean, ci95}, slope: as of `drift_slope`, window_segments}: over the first and over the last
        WINDOW_SEGMENTS segments, or all where there are fewer.

    Raises:
        InputError: the shape is wrong, or t is no multiple of f.
    """
    error = np.sqrt(_curves(own_toy))
    segments = _segments(error, segment_frames)
    window = min(WINDOW_SEGMENTS, segments)
    frames = window * segment_frames
    return {
        "early": _mean(error[:, :frames].mean(axis=1), seed),
        "late": _mean(error[:, -frames:].mean(axis=1), seed),
        "slope": drift_slope(error, fps=fps, seed=seed),
        "window_segments": window,
    }


def survival_time(off_manifold: np.ndarray, *, threshold: float, fps: float) -> dict:
    """How long a clip stays near the valid frames, R <= threshold.

    Args:
        off_manifold: R, `[n, t]`.
        threshold: tau.
        fps: frames a second.

    Returns:
        {threshold, survived, median_seconds, mean_seconds, horizon_seconds}: the part of the clips that never leave;
        the median time of leaving, None if half or more survive; the mean time, with survivors counted to the horizon.

    Raises:
        InputError: the shape is wrong.
    """
    values = _curves(off_manifold)
    left = values > threshold
    survived = ~left.any(axis=1)
    seconds = np.where(survived, values.shape[1], left.argmax(axis=1)) / fps
    # The middle clip, or the upper of the two middle ones, must have left.
    median = np.sort(seconds)[seconds.size // 2] if survived.mean() < 0.5 else None
    return {
        "threshold": float(threshold),
        "survived": float(survived.mean()),
        "median_seconds": None if median is None else float(median),
        "mean_seconds": float(seconds.mean()),
        "horizon_seconds": values.shape[1] / fps,
    }


def exposure_gap(own: np.ndarray, true: np.ndarray, *, segment_frames: int, seed: int = 0) -> list[dict]:
    """EG(n) = error on own history - error on true history, segment by segment: the definition of exposure bias.

    Args:
        own, true: the same error of the same clips and frames, `[n, t]`.
        segment_frames: f; t is a multiple of it.
        seed: of the bootstrap.

    Returns:
        One {segment, mean, ci95} per segment, counted from 0; clips are paired.

    Raises:
        InputError: the shapes differ, or t is no multiple of f.
    """
    own, true = _curves(own), _curves(true)
    if own.shape != true.shape:
        raise InputError(f"own {own.shape} and true {true.shape} differ: give the same clips and frames")
    return by_segment(own - true, segment_frames, seed)


def accuracy_over_time(decoded: np.ndarray, truth: np.ndarray, *, segment_frames: int, seed: int = 0) -> list[dict]:
    """Part of the frames with the right identity, segment by segment.

    Args:
        decoded: int `[n, t]`, or `[n, t, k]` for k toys a frame.
        truth: int `[n, k]` or `[n]`, the toys of each clip. A toy counts as present if any decoded one equals it.
        segment_frames: f; t is a multiple of it.
        seed: of the bootstrap.

    Returns:
        One {segment, mean, ci95} per segment.

    Raises:
        InputError: the shapes do not fit.
    """
    decoded, truth = np.asarray(decoded), np.asarray(truth)
    decoded = decoded[..., None] if decoded.ndim == 2 else decoded
    truth = truth[:, None] if truth.ndim == 1 else truth
    if decoded.ndim != 3 or truth.ndim != 2 or len(decoded) != len(truth):
        raise InputError(
            f"decoded {decoded.shape} and truth {truth.shape} do not fit: give [n, t] or [n, t, k], and [n] or [n, k]"
        )
    present = (decoded[:, :, :, None] == truth[:, None, None, :]).any(axis=2).mean(axis=2)
    return by_segment(present, segment_frames, seed)


def motion(positions: np.ndarray, truth: np.ndarray, *, segment_frames: int, seed: int = 0) -> dict:
    """Does the ball still move as prompted?

    Args:
        positions: decoded pixels `[n, t, 2]` of one ball.
        truth: true pixels `[n, t, 2]` of the prompted motion.
        segment_frames: f; steps are pooled over the segment they start in.
        seed: of the bootstrap.

    Returns:
        {speed_ratio: {mean, ci95}, dead_motion: {mean, ci95}, position_error: {mean, ci95}}: decoded over prompted path
        length; part of the segments slower than a quarter of the prompted speed; distance to the true place in pixels.

    Raises:
        InputError: the shapes do not fit, or a true segment does not move.
    """
    positions, truth = np.asarray(positions, float), np.asarray(truth, float)
    if positions.ndim != 3 or positions.shape != truth.shape or positions.shape[1] < 2:
        raise InputError(f"positions {positions.shape} and truth {truth.shape} do not fit: give both as [n, t, 2]")
    decoded, prompted = (np.linalg.norm(np.diff(p, axis=1), axis=-1) for p in (positions, truth))
    starts = np.arange(0, decoded.shape[1], segment_frames)
    decoded, prompted = np.add.reduceat(decoded, starts, axis=1), np.add.reduceat(prompted, starts, axis=1)
    if (prompted <= 0).any():
        raise InputError("truth holds a segment in which nothing moves: give clips of a moving ball")
    ratio = decoded.sum(axis=1) / prompted.sum(axis=1)
    dead = (decoded < DEAD_SPEED * prompted).mean(axis=1)
    error = np.linalg.norm(positions - truth, axis=-1).mean(axis=1)
    return {
        "speed_ratio": _mean(ratio, seed),
        "dead_motion": _mean(dead, seed),
        "position_error": _mean(error, seed),
    }


def seam_jumps(frames: np.ndarray, *, segment_frames: int) -> np.ndarray:
    """Mean squared difference of consecutive frames at the joins of segments and inside them, float64 `[n, 2]`.

    Args:
        frames: `[n, t, h, w, 3]`, beginning with a segment.
        segment_frames: f, 2 or more; t > f.

    Raises:
        InputError: the shape is wrong, or there is no join or no inside.
    """
    frames = np.asarray(frames, float)
    if frames.ndim != 5 or segment_frames < 2 or frames.shape[1] <= segment_frames:
        raise InputError(
            f"frames has shape {frames.shape} with segment_frames {segment_frames}: give [n, t, h, w, 3] with two "
            "segments or more of two frames or more"
        )
    jump = (np.diff(frames, axis=1) ** 2).mean(axis=(2, 3, 4))
    join = np.arange(1, frames.shape[1]) % segment_frames == 0
    return np.stack([jump[:, join].mean(axis=1), jump[:, ~join].mean(axis=1)], axis=1)


def seam_report(jumps: np.ndarray, *, seed: int = 0) -> dict:
    """Jump at the joins of segments against the jump inside them.

    Args:
        jumps: `[n, 2]`, of `seam_jumps`.
        seed: of the bootstrap.

    Returns:
        {joins: {mean, ci95}, inside: {mean, ci95}, ratio}: the ratio of the two means is 1 without a seam, None where
        nothing changes inside.
    """
    joins, inside = jumps.T
    ratio = float(joins.mean() / inside.mean()) if inside.mean() > 0 else None
    return {"joins": _mean(joins, seed), "inside": _mean(inside, seed), "ratio": ratio}


def drift_report(
    *,
    off_manifold: np.ndarray,
    own_toy: np.ndarray,
    gain: np.ndarray,
    psnr: np.ndarray,
    decoded: np.ndarray,
    identities: np.ndarray,
    fps: float,
    segment_frames: int,
    threshold: float,
    true_history: np.ndarray | None = None,
    seed: int = 0,
) -> dict:
    """Everything that per-frame numbers of one rollout on own history tell, as plain JSON.

    Args:
        off_manifold: R, `[n, t]`.
        own_toy: as for `manifold_error`.
        gain: exposure gain, `[n, t, 3]`.
        psnr: against the truth, `[n, t]`.
        decoded, identities: as for `accuracy_over_time`.
        fps, segment_frames: of the world.
        threshold: tau of the survival time.
        true_history: as `own_toy`, of the same clips on true history, `[n, t]`.
        seed: of the bootstrap.

    Returns:
        {slope, error: as of `manifold_error`, contrast: {off_manifold, gain, psnr}, survival, identity,
        off_manifold_by_segment, exposure_gap}; the last is None without `true_history`.

    Raises:
        InputError: shapes that do not fit.
    """
    values = _curves(off_manifold)
    gap = None
    if true_history is not None:
        errors = np.sqrt(_curves(own_toy)), np.sqrt(_curves(true_history))
        gap = exposure_gap(*errors, segment_frames=segment_frames, seed=seed)
    return {
        "slope": drift_slope(values, fps=fps, seed=seed),
        "error": manifold_error(own_toy, fps=fps, segment_frames=segment_frames, seed=seed),
        "contrast": {
            "off_manifold": start_end_contrast(values, seed=seed),
            "gain": start_end_contrast(gain, seed=seed),
            "psnr": start_end_contrast(psnr, seed=seed),
        },
        "survival": survival_time(values, threshold=threshold, fps=fps),
        "identity": accuracy_over_time(decoded, identities, segment_frames=segment_frames, seed=seed),
        "off_manifold_by_segment": by_segment(values, segment_frames, seed),
        "exposure_gap": gap,
    }


def _curves(values: np.ndarray) -> np.ndarray:
    values = np.asarray(values, float)
    if values.ndim != 2 or not values.size:
        raise InputError(f"values has shape {values.shape}: give [clips, frames]")
    return values


def _mean(values: np.ndarray, seed: int) -> dict:
    mean, low, high = mean_interval(values, seed=seed)
    return {"mean": mean, "ci95": [low, high]}


def _segments(values: np.ndarray, segment_frames: int) -> int:
    """Segments of `[n, t]` curves."""
    if segment_frames < 1 or values.shape[1] % segment_frames:
        raise InputError(
            f"{values.shape[1]} frames are no whole number of segments of {segment_frames}: cut them to one"
        )
    return values.shape[1] // segment_frames


def by_segment(values: np.ndarray, segment_frames: int, seed: int) -> list[dict]:
    """Means of `[n, t]` over each segment, with intervals over clips: [{segment, mean, ci95}].

    Raises:
        InputError: t is no multiple of the frames of a segment.
    """
    means = values.reshape(len(values), _segments(values, segment_frames), -1).mean(axis=2)
    return [
        {"segment": segment, "mean": mean, "ci95": [low, high]}
        for segment, (mean, low, high) in enumerate(mean_intervals(means, seed=seed))
    ]
