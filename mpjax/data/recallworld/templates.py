"""Squared distance of a frame to every frame the world could have drawn, by template algebra.

A sprite of colour c and coverage a in [0, 1] over a known background b renders as b + a (c - b). With d = x - b,

    |x - render|² = |d|² - 2 Σ a d·(c - b) + Σ a² |c - b|²
                  = |d|² + 2 Σ a d·b + Σ a² |b|² + |c|² Σ a² - 2 c·(Σ a d + Σ a² b).      (1)

On whole pixels a² = a, and the sums over a sprite's pixels S are of four features alone:

    |x - render|² = |d|² + Σ_S (2 x·b - |b|²) + |c|² |S| - 2 c·Σ_S x,                      (2)

so that every position is one window of the frame, all shapes are a product with their masks and all colours a product
of width 3.
"""

import functools
from collections.abc import Iterator

import numpy as np

from mpjax.data.recallworld.sprites import COLOURS, WHITE, shape_masks
from mpjax.data.recallworld.world import World
from mpjax.errors import InputError

_CHUNK = 1 << 21
"""Largest number of floats held at once, about."""


def manifold_step(world: World) -> float:
    """Spacing in pixels of the positions a sprite can take: a cell, or one pixel where motion is "free"."""
    return 1.0 if world.motion == "free" else float(world.patch)


@functools.lru_cache(maxsize=16)
def grid_positions(world: World, step: float) -> np.ndarray:
    """Top-left pixels of all templates `step` pixels apart, float64 `[p, 2]`, read-only.

    Raises:
        InputError: the step does not divide the room a sprite has.
    """
    room = world.frame_size - world.patch
    count = round(room / step) + 1 if step > 0 else 0
    if count < 2 or abs((count - 1) * step - room) > 1e-9:
        raise InputError(f"step is {step}: use a positive divisor of frame_size - patch = {room} pixels")
    axis = np.arange(count) * step
    positions = np.stack(np.meshgrid(axis, axis, indexing="ij"), axis=-1).reshape(-1, 2)
    positions.flags.writeable = False
    return positions


@functools.lru_cache(maxsize=16)
def fractions(world: World, shape: int, step: float) -> tuple[np.ndarray, np.ndarray]:
    """A shape shifted bilinearly by up to one pixel each way.

    Returns:
        offsets: (rows, columns) in pixels, float64 `[k, 2]`.
        coverage: of the pixels of a window that is one pixel wider on every side, float64 `[k, (patch + 2)²]`.

    Raises:
        InputError: one pixel is no whole number of steps.
    """
    count = round(1 / step) if step > 0 else 0
    if count < 1 or abs(count * step - 1) > 1e-9:
        raise InputError(f"step is {step}: use one pixel divided by a whole number, for instance 0.25")
    axis = np.arange(-count, count + 1) / count
    pixels, inside = np.arange(world.patch + 2), np.arange(1, world.patch + 1)
    hat = np.maximum(0, 1 - np.abs(pixels[:, None] - axis[:, None, None] - inside))
    shifted = np.einsum("ayi,ij,bxj->abyx", hat, shape_masks(world.patch)[shape].astype(float), hat, optimize=True)
    offsets = np.stack(np.meshgrid(axis, axis, indexing="ij"), axis=-1).reshape(-1, 2)
    return offsets, shifted.reshape(len(offsets), -1)


def check_frames(world: World, frames: np.ndarray, background: np.ndarray) -> None:
    """Raise unless frames and background are `[n, H, W, 3]` of this world.

    Raises:
        InputError: they are not.
    """
    size = (world.frame_size, world.frame_size, 3)
    if np.ndim(frames) != 4 or np.shape(frames)[1:] != size or np.shape(background) != np.shape(frames):
        raise InputError(
            f"frames {np.shape(frames)} and background {np.shape(background)} do not fit this world: "
            f"give both as [n, {size[0]}, {size[1]}, 3]"
        )


def distances(
    world: World, frames: np.ndarray, background: np.ndarray, step: float
) -> Iterator[tuple[slice, np.ndarray, np.ndarray, np.ndarray]]:
    """Mean squared difference of frames to every render, chunk by chunk.

    Args:
        world: the world.
        frames: `[n, H, W, 3]`.
        background: what is known to lie behind, `[n, H, W, 3]`.
        step: spacing of the positions, in whole pixels.

    Yields:
        The chunk's slice of n; then, float64: to each toy `[m, p, ids]`, to the white ball `[m, p]`, and to the empty
        background `[m]`.

    Raises:
        InputError: the shapes do not fit the world.
    """
    check_frames(world, frames, background)
    spacing, side = round(step), world.patch
    masks = shape_masks(side)[[*range(world.shapes), -1]].reshape(world.shapes + 1, -1).astype(float)
    colours = np.concatenate([COLOURS[: world.colours], WHITE[None]]).astype(float)
    positions = ((world.frame_size - side) // spacing + 1) ** 2
    size = max(1, _CHUNK // (positions * max(4 * side**2, len(masks) * len(colours))))
    for start in range(0, len(frames), size):
        chunk = slice(start, start + size)
        x, b = np.asarray(frames[chunk], float), np.asarray(background[chunk], float)
        empty = ((x - b) ** 2).sum(axis=(1, 2, 3))
        features = np.concatenate([x, (b * (2 * x - b)).sum(-1, keepdims=True)], axis=-1)
        windows = np.lib.stride_tricks.sliding_window_view(features, (side, side), axis=(1, 2))
        windows = windows[:, ::spacing, ::spacing].reshape(-1, side**2)  # [m · p · 4, pixels]
        sums = (windows @ masks.T).reshape(len(x), positions, 4, len(masks))
        total = np.einsum("mpcs,kc->mpsk", sums[:, :, :3], -2 * colours, optimize=True)
        total += sums[:, :, 3, :, None] + masks.sum(axis=1)[:, None] * (colours**2).sum(axis=1)
        total += empty[:, None, None, None]
        total = np.maximum(total, 0) / x[0].size
        toys = total[:, :, :-1, :-1].transpose(0, 1, 3, 2).reshape(len(x), positions, world.ids)
        yield chunk, toys, total[:, :, -1, -1], empty / x[0].size


def refined_distances(
    world: World, frames: np.ndarray, background: np.ndarray, identity: np.ndarray, position: np.ndarray, step: float
) -> tuple[np.ndarray, np.ndarray]:
    """The best place of a known toy within a pixel of a known whole one, by equation (1).

    Args:
        world, frames, background: as for `distances`.
        identity: the toy of each frame, int `[n]`.
        position: top-left pixel to search around, int `[n, 2]`.
        step: spacing of the places in pixels; one pixel is a whole number of steps.

    Returns:
        position: float64 `[n, 2]`, inside the frame.
        residual: mean squared difference there, float64 `[n]`.

    Raises:
        InputError: the shapes or the step do not fit.
    """
    check_frames(world, frames, background)
    x, b = np.asarray(frames, float), np.asarray(background, float)
    empty = ((x - b) ** 2).sum(axis=(1, 2, 3))
    framed = np.pad(np.concatenate([x - b, b], axis=-1), ((0, 0), (1, 1), (1, 1), (0, 0)))
    inside = np.arange(world.patch + 2)
    rows, columns = (position[:, k, None] + inside for k in range(2))
    windows = framed[np.arange(len(x))[:, None, None], rows[:, :, None], columns[:, None]].reshape(len(x), -1, 6)
    found, residual = np.empty((len(x), 2)), np.empty(len(x))
    for toy in np.unique(identity):
        chosen = np.flatnonzero(identity == toy)
        offsets, alpha = fractions(world, int(world.shape_of(toy)), step)
        d, behind = windows[chosen, :, :3], windows[chosen, :, 3:]
        towards = COLOURS[world.colour_of(toy)].astype(float) - behind
        cost = (towards**2).sum(-1) @ (alpha**2).T - 2 * (d * towards).sum(-1) @ alpha.T
        places = position[chosen, None] + offsets
        outside = (places < 0) | (places > world.frame_size - world.patch)
        cost[outside.any(axis=-1)] = np.inf
        best = cost.argmin(axis=1)
        found[chosen] = places[np.arange(len(chosen)), best]
        residual[chosen] = np.maximum(empty[chosen] + cost.min(axis=1), 0)
    return found, residual / x[0].size
