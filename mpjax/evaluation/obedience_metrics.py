"""D2: does the hand do what the prompts command? From its decoded places on the ring of outer cells."""

import numpy as np

from mpjax.data.recallworld.world import World
from mpjax.errors import InputError
from mpjax.evaluation.return_metrics import ring_index, ring_steps
from mpjax.evaluation.statistics import mean_interval


def obedience(world: World, positions: np.ndarray, commands: np.ndarray, before: np.ndarray, *, seed: int = 0) -> dict:
    """Heading, pace and latency.

    Args:
        world: the world.
        positions: decoded top-left pixels, `[n, 1 + s·f, 2]`: the last frame before the prompts begin, then s segments.
        commands: half cells a frame clockwise that each segment commands, int `[n, s]`.
        before: the same of the segment before, int `[n]`.
        seed: of the bootstrap.

    Returns:
        {heading_error, pace_error, latency_frames}, each {n, mean, ci95} over clips. Heading error: share of the
        segments with net motion that goes the wrong way. Pace error: |cells gone - cells commanded| over the latter, a
        segment that stands still has 1. Latency: where a prompt reverses the direction, frames until the hand first
        goes the new way beyond those that a hand which obeys at once needs; if it never does in that segment, all that
        are left of it. Clips without a case are left out; None where there is none.

    Raises:
        InputError: the shapes do not fit.
    """
    commands, f = np.asarray(commands), world.segment_frames
    n, s = commands.shape
    if np.shape(positions) != (n, 1 + s * f, 2) or np.shape(before) != (n,):
        raise InputError(
            f"positions {np.shape(positions)}, commands {commands.shape} and before {np.shape(before)} do not fit: "
            f"give [n, 1 + s·{f}, 2], [n, s] and [n]"
        )
    steps = ring_steps(world, ring_index(world, positions)).reshape(n, s, f)
    gone, wanted = steps.sum(axis=-1), commands * f / 2
    wrong = np.where(gone != 0, gone * commands < 0, np.nan)
    # Where an odd number of half cells is commanded, the whole cells on either side are right.
    slack = np.where(wanted % 1 == 0, 0.0, 0.5)
    pace = np.maximum(np.abs(gone - wanted) - slack, 0) / np.abs(wanted)
    # A slow hand hops every other frame, so it may be a frame late and still obey at once.
    grace = np.where(np.abs(commands) == 1, 1, 0)
    obeys = steps * np.sign(commands)[..., None] > 0
    first = np.where(obeys.any(axis=-1), obeys.argmax(axis=-1), f)
    reverses = np.concatenate([before[:, None], commands[:, :-1]], axis=1) * commands < 0
    latency = np.where(reverses, np.maximum(first - grace, 0), np.nan)
    return {
        "heading_error": _over_clips(wrong, seed),
        "pace_error": _over_clips(pace, seed),
        "latency_frames": _over_clips(latency, seed),
    }


def _over_clips(values: np.ndarray, seed: int) -> dict | None:
    """Mean over the segments of each clip that have a number, then over clips."""
    count = np.isfinite(values).sum(axis=1)
    means = np.nansum(values[count > 0], axis=1) / count[count > 0]
    if not means.size:
        return None
    mean, low, high = mean_interval(means, seed=seed)
    return {"n": means.size, "mean": mean, "ci95": [low, high]}
