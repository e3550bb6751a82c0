"""Exact decoders: frames with a known background → the state they show.

All are maximum likelihood under white noise: the render at the smallest mean squared difference wins. A residual is
that smallest difference, in squared units of the data range [-1, 1]; noise of standard deviation σ has residual σ².
"""

import dataclasses

import numpy as np

from mpjax.data.recallworld.sprites import shape_masks
from mpjax.data.recallworld.templates import distances, grid_positions, manifold_step, refined_distances
from mpjax.data.recallworld.world import World
from mpjax.errors import InputError


@dataclasses.dataclass(frozen=True, kw_only=True)
class DecodedToys:
    """The toys of n frames.

    Attributes:
        identity: int `[n, k]`, the k toys in order of their position.
        position: top-left pixel (row, column), float64 `[n, k, 2]`.
        residual: mean squared difference to the best render, float64 `[n]`.
    """

    identity: np.ndarray
    position: np.ndarray
    residual: np.ndarray


def decode_toys(world: World, frames: np.ndarray, background: np.ndarray) -> DecodedToys:
    """The best render with exactly `world.balls` toys in different places (one in every scene but D1).

    Several toys never share a cell, so each cell is decoded by itself; that two toys differ is not enforced.

    Args:
        world: the world.
        frames: `[n, H, W, 3]` in [-1, 1].
        background: `[n, H, W, 3]`, as `render_background` gives it.

    Raises:
        InputError: the shapes do not fit the world.
    """
    step = manifold_step(world)
    identity = np.empty((len(frames), world.balls), int)
    place = np.empty((len(frames), world.balls), int)
    residual = np.empty(len(frames))
    for chunk, toys, _, empty in distances(world, frames, background, step):
        best = toys.argmin(axis=-1)
        lowest = np.take_along_axis(toys, best[..., None], axis=-1)[..., 0]
        places = np.sort(np.argsort(lowest, axis=-1, kind="stable")[:, : world.balls], axis=-1)
        place[chunk] = places
        identity[chunk] = np.take_along_axis(best, places, axis=-1)
        gain = np.take_along_axis(lowest, places, axis=-1) - empty[:, None]
        residual[chunk] = np.maximum(empty + gain.sum(axis=-1), 0)
    return DecodedToys(identity=identity, position=grid_positions(world, step)[place], residual=residual)


def decode_identity(world: World, frames: np.ndarray, background: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Which toy a frame shows, whatever its position.

    Args:
        world: a world with one toy at a time (every one but D1 with several balls).
        frames: `[n, H, W, 3]` in [-1, 1].
        background: `[n, H, W, 3]`.

    Returns:
        identity: int `[n]`.
        residual: float64 `[n]`: a wrong toy drawn well has a small one, mush a large one.

    Raises:
        InputError: the world shows several toys at once, or the shapes do not fit.
    """
    if world.balls > 1:
        raise InputError(f"world.balls is {world.balls}, so a frame has no single identity: use decode_toys")
    toys = decode_toys(world, frames, background)
    return toys.identity[:, 0], toys.residual


def decode_visit(
    world: World, frames: np.ndarray, background: np.ndarray, shown: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Which toy f frames show together: one identity, a position of its own in each frame.

    Args:
        world: a world with one toy at a time.
        frames: `[n, f, H, W, 3]` in [-1, 1], for instance the segment of the return.
        background: `[n, f, H, W, 3]`.
        shown: in which frames a toy is to be seen, bool `[n, f]`, one or more of each row; None is all of them.

    Returns:
        identity: int `[n]`.
        residual: float64 `[n]`, the mean over the frames in which a toy is to be seen.

    Raises:
        InputError: the world shows several toys at once, or the shapes do not fit.
    """
    if world.balls > 1:
        raise InputError(f"world.balls is {world.balls}, so a visit has no single identity: use decode_toys")
    if np.ndim(frames) != 5:
        raise InputError(f"frames has shape {np.shape(frames)}: give the frames of a visit as [n, f, H, W, 3]")
    n, f = np.shape(frames)[:2]
    flat, behind = (np.reshape(x, (-1, *np.shape(x)[2:])) for x in (frames, background))
    per_frame = np.empty((n * f, world.ids))
    for chunk, toys, _, _ in distances(world, flat, behind, manifold_step(world)):
        per_frame[chunk] = toys.min(axis=1)
    weight = np.ones((n, f)) if shown is None else np.asarray(shown, float)
    if weight.shape != (n, f) or not weight.any(axis=1).all():
        raise InputError(f"shown has shape {weight.shape}: give [{n}, {f}], with a frame or more for each visit")
    total = np.einsum("nf,nfk->nk", weight, per_frame.reshape(n, f, world.ids)) / weight.sum(axis=1)[:, None]
    return total.argmin(axis=1), total.min(axis=1)


def decode_position(
    world: World, frames: np.ndarray, background: np.ndarray, *, identity: np.ndarray | None = None, step: float = 0.25
) -> tuple[np.ndarray, np.ndarray]:
    """Where the toy is, on a grid finer than a pixel: the best whole pixel, then the best place within a pixel of it.

    Args:
        world: a world with one toy at a time.
        frames: `[n, H, W, 3]` in [-1, 1].
        background: `[n, H, W, 3]`.
        identity: the toy of each frame, int `[n]`; None decodes it first, on whole pixels.
        step: spacing of the grid in pixels, one divided by a whole number.

    Returns:
        position: top-left pixel (row, column), float64 `[n, 2]`.
        residual: float64 `[n]`.

    Raises:
        InputError: the world shows several toys at once, the step does not fit, or the shapes do not.
    """
    if world.balls > 1:
        raise InputError(f"world.balls is {world.balls}, so a frame has no single position: use decode_toys")
    if identity is not None and np.shape(identity) != (len(frames),):
        raise InputError(f"identity has shape {np.shape(identity)}: give one for each of the {len(frames)} frames")
    known = np.zeros(len(frames), int) if identity is None else np.asarray(identity)
    place = np.empty(len(frames), int)
    for chunk, toys, _, _ in distances(world, frames, background, 1.0):
        if identity is None:
            known[chunk] = toys.min(axis=1).argmin(axis=-1)
        place[chunk] = np.take_along_axis(toys, known[chunk][:, None, None], axis=-1)[..., 0].argmin(axis=-1)
    whole = grid_positions(world, 1.0)[place].astype(int)
    return refined_distances(world, frames, background, known, whole, step)


def off_manifold(world: World, frames: np.ndarray, background: np.ndarray) -> np.ndarray:
    """R: mean squared difference to the nearest frame the world could show, float64 `[n]`.

    Such frames show a toy; in scenes with a return also the background alone, and where the scene has one the white
    ball. D1 and D2 always show all their toys, so one that vanishes does not lower R. In segment 0 of R6 two toys are
    seen at once, which this does not count as valid.

    Args:
        world: the world.
        frames: `[n, H, W, 3]` in [-1, 1].
        background: `[n, H, W, 3]`.

    Raises:
        InputError: the shapes do not fit the world.
    """
    nearest = np.empty(len(frames))
    for chunk, toys, ball, empty in distances(world, frames, background, manifold_step(world)):
        gain = np.sort(toys.min(axis=-1) - empty[:, None], axis=-1)[:, : world.balls]
        best = empty + (np.minimum(gain, 0) if world.has_return else gain).sum(axis=-1)
        if world.play.white_ball:
            best = np.minimum(best, ball.min(axis=-1))
        nearest[chunk] = np.maximum(best, 0)
    return nearest


def off_manifold_of_toy(world: World, frames: np.ndarray, background: np.ndarray, identity: np.ndarray) -> np.ndarray:
    """R where only one toy is known to be there: mean squared difference to the nearest frame that shows it.

    R alone is low for a toy that has cleanly turned into another; this is not.

    Args:
        world: the world.
        frames: `[n, H, W, 3]` in [-1, 1].
        background: `[n, H, W, 3]`.
        identity: the toy of each frame, int `[n]`.

    Returns:
        float64 `[n]`.

    Raises:
        InputError: the shapes do not fit the world.
    """
    nearest = np.empty(len(frames))
    for chunk, toys, _, _ in distances(world, frames, background, manifold_step(world)):
        own = np.take_along_axis(toys, identity[chunk, None, None], axis=-1)
        nearest[chunk] = own.min(axis=(1, 2))
    return nearest


def background_mask(world: World, frames: np.ndarray, background: np.ndarray) -> np.ndarray:
    """Pixels that no sprite of the nearest valid frame covers, bool `[n, H, W]`.

    Args:
        world: the world.
        frames: `[n, H, W, 3]` in [-1, 1].
        background: `[n, H, W, 3]`.

    Raises:
        InputError: the shapes do not fit the world.
    """
    mask = np.ones(np.shape(frames)[:3], bool)
    shapes = shape_masks(world.patch)
    places = grid_positions(world, manifold_step(world)).astype(int)
    for chunk, toys, ball, empty in distances(world, frames, background, manifold_step(world)):
        best, lowest = toys.argmin(axis=-1), toys.min(axis=-1)
        shape = world.shape_of(best)
        if world.play.white_ball:
            shape = np.where(ball < lowest, len(shapes) - 1, shape)
            lowest = np.minimum(ball, lowest)
        order = np.argsort(lowest, axis=-1, kind="stable")[:, : world.balls]
        drawn = np.take_along_axis(lowest, order, axis=-1) < empty[:, None]
        frame, rank = np.nonzero(drawn if world.has_return else np.ones_like(drawn))
        place = order[frame, rank]
        sprite, row, column = np.nonzero(shapes[shape[frame, place]])
        top, left = places[place[sprite]].T
        mask[chunk][frame[sprite], top + row, left + column] = False
    return mask


def decode_exposure(
    frames: np.ndarray, background: np.ndarray, mask: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """How the exposure drifted: least squares of frame = gain · background + bias, per channel.

    Args:
        frames: `[n, H, W, 3]` in [-1, 1].
        background: `[n, H, W, 3]`.
        mask: pixels that show the background, bool `[n, H, W]`; None takes all.

    Returns:
        gain, bias: float64 `[n, 3]`.

    Raises:
        InputError: the shapes differ, or a frame has less than two background pixels of different value.
    """
    shape = np.shape(frames)
    if mask is None:
        mask = np.ones(shape[:3], bool)
    if len(shape) != 4 or np.shape(background) != shape or np.shape(mask) != shape[:3]:
        raise InputError(
            f"frames {shape}, background {np.shape(background)} and mask {np.shape(mask)} do not fit: give "
            "[n, H, W, 3], [n, H, W, 3] and [n, H, W]"
        )
    weight = np.asarray(mask, float)[..., None]
    count = np.maximum(weight.sum(axis=(1, 2)), 1)
    x, b = np.asarray(frames, float), np.asarray(background, float)
    mean_x = (weight * x).sum(axis=(1, 2)) / count
    mean_b = (weight * b).sum(axis=(1, 2)) / count
    centred = weight * (b - mean_b[:, None, None])
    variance = (centred**2).sum(axis=(1, 2))
    if (variance < 1e-9).any():
        raise InputError("mask leaves a frame without two background pixels of different value: give a larger mask")
    gain = (centred * x).sum(axis=(1, 2)) / variance
    return gain, mean_x - gain * mean_b
