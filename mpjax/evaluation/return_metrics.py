"""How well a return is drawn, beside whom it shows: where, when, and how close to the truth.

One number a clip, then means with 95 % bootstrap intervals over clips.
"""

import numpy as np

from mpjax.data.recallworld.trajectories import ring
from mpjax.data.recallworld.world import World
from mpjax.errors import InputError
from mpjax.evaluation.statistics import mean_interval


def by_gap(values: np.ndarray, gaps: np.ndarray, *, seed: int = 0) -> list[dict]:
    """Mean at each gap, in ascending order: [{gap, n, mean, ci95}].

    Args:
        values: one number a clip, `[n]`.
        gaps: int `[n]`.
        seed: of the bootstrap.
    """
    rows = []
    for gap in np.unique(gaps):
        chosen = np.asarray(values, float)[gaps == gap]
        mean, low, high = mean_interval(chosen, seed=seed)
        rows.append({"gap": int(gap), "n": len(chosen), "mean": mean, "ci95": [low, high]})
    return rows


def reentry_error(positions: np.ndarray, truth: np.ndarray, shown: np.ndarray) -> np.ndarray:
    """Distance to the true place in pixels, mean over the frames that show the toy, float64 `[n]`.

    Args:
        positions, truth: top-left pixels `[n, f, 2]`.
        shown: bool `[n, f]`, a frame or more for each clip.

    Raises:
        InputError: the shapes do not fit.
    """
    positions, truth = np.asarray(positions, float), np.asarray(truth, float)
    if positions.shape != truth.shape or np.shape(shown) != positions.shape[:2] or not np.any(shown, axis=1).all():
        raise InputError(
            f"positions {positions.shape}, truth {truth.shape} and shown {np.shape(shown)} do not fit: give [n, f, 2] "
            "twice and [n, f] with a frame or more for each clip"
        )
    return np.average(np.linalg.norm(positions - truth, axis=-1), axis=1, weights=np.asarray(shown, float))


def ring_index(world: World, positions: np.ndarray) -> np.ndarray:
    """Index of the nearest outer cell, clockwise from the top left, int `[...]` for pixels `[..., 2]`."""
    cells = ring(world.grid) * world.patch
    return ((np.asarray(positions, float)[..., None, :] - cells) ** 2).sum(axis=-1).argmin(axis=-1)


def ring_steps(world: World, indices: np.ndarray) -> np.ndarray:
    """Signed steps between consecutive ring indices, the short way round, int `[..., t - 1]`.

    Half the ring has no short way and counts as no step.
    """
    cells = 4 * (world.grid - 1)
    steps = (np.diff(indices, axis=-1) + cells // 2) % cells - cells // 2
    return np.where(np.abs(steps) * 2 == cells, 0, steps)


def timing_error(world: World, positions: np.ndarray, truth: np.ndarray, shown: np.ndarray) -> np.ndarray:
    """R4: how many frames early or late the toy is on its way round the ring, float64 `[n]`.

    The smallest number of frames that explains the place, at most half a round. Blind guessing has a quarter of a round
    on average.

    Args:
        world: the world.
        positions, truth: top-left pixels `[n, f, 2]`.
        shown: bool `[n, f]`.

    Raises:
        InputError: as `reentry_error`.
    """
    reentry_error(positions, truth, shown)
    cells = 4 * (world.grid - 1)
    apart = np.abs(ring_index(world, positions) - ring_index(world, truth))
    return np.average(np.minimum(apart, cells - apart), axis=1, weights=np.asarray(shown, float))
