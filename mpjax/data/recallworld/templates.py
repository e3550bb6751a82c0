"""Squared distance of a frame to every frame the world could have drawn, by template algebra.

A sprite of colour c and coverage a over a known background b renders as b + a (c - b). With d = x - b,

    |x - render|² = |d|² - 2 Σ a d·(c - b) + Σ a² |c - b|²
                  = |d|² + 2 Σ a d·b + Σ a² |b|² + |c|² Σ a² - 2 c·(Σ a d + Σ a² b),      (1)

so that all positions and shapes cost one matrix product with the coverages, and all colours a product of width 3.
"""

import functools
from collections.abc import Iterator

import numpy as np

from mpjax.data.recallworld.sprites import COLOURS, WHITE, shape_masks
from mpjax.data.recallworld.world import World
from mpjax.errors import InputError

_CHUNK = 1 << 20
"""Largest number of distances held at once."""


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
def coverage(world: World, step: float) -> np.ndarray:
    """How much of each pixel a sprite covers, in [0, 1], float64 `[shapes + 1, p, H·W]`, read-only; the ball is last.

    Between whole pixels a shape is shifted bilinearly.
    """
    starts = np.unique(grid_positions(world, step)[:, 0])
    pixels, inside = np.arange(world.frame_size), np.arange(world.patch)
    hat = np.maximum(0, 1 - np.abs(pixels[:, None] - starts[:, None, None] - inside))
    masks = shape_masks(world.patch)[[*range(world.shapes), -1]].astype(float)
    shifted = np.einsum("ayi,sij,bxj->sabyx", hat, masks, hat, optimize=True)
    shifted = shifted.reshape(len(masks), len(starts) ** 2, -1)
    shifted.flags.writeable = False
    return shifted


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
        step: spacing of the positions in pixels.

    Yields:
        The chunk's slice of n; then, float64: to each toy `[m, p, ids]`, to the white ball `[m, p]`, and to the empty
        background `[m]`.

    Raises:
        InputError: the shapes do not fit the world.
    """
    check_frames(world, frames, background)
    alpha = coverage(world, step)
    shapes, positions, pixels = alpha.shape
    flat = alpha.reshape(-1, pixels)
    colours = np.concatenate([COLOURS[: world.colours], WHITE[None]]).astype(float)
    size = max(1, _CHUNK // (len(flat) * len(colours)))
    for start in range(0, len(frames), size):
        chunk = slice(start, start + size)
        total, empty = _squared_distances(flat, colours, frames[chunk], background[chunk])
        total = total.reshape(-1, shapes, positions, len(colours))
        toys = total[:, :-1, :, :-1].transpose(0, 2, 3, 1).reshape(-1, positions, world.ids)
        yield chunk, toys, total[:, -1, :, -1], empty


def distances_of_toy(
    world: World, frames: np.ndarray, background: np.ndarray, identity: np.ndarray, step: float
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Mean squared difference of frames to the renders of one known toy each, chunk by chunk.

    Args:
        world, frames, background, step: as for `distances`.
        identity: the toy of each frame, int `[n]`.

    Yields:
        Which frames, int `[m]`; their distance at each position, float64 `[m, p]`.

    Raises:
        InputError: the shapes do not fit the world.
    """
    check_frames(world, frames, background)
    alpha = coverage(world, step)
    size = max(1, _CHUNK // alpha.shape[1])
    for toy in np.unique(identity):
        rows = np.flatnonzero(identity == toy)
        colour = COLOURS[world.colour_of(toy)][None].astype(float)
        for start in range(0, len(rows), size):
            chunk = rows[start : start + size]
            total, _ = _squared_distances(alpha[world.shape_of(toy)], colour, frames[chunk], background[chunk])
            yield chunk, total[..., 0]


def _squared_distances(alpha: np.ndarray, colours: np.ndarray, frames: np.ndarray, background: np.ndarray):
    """Equation (1) as a mean: coverages `[a, H·W]`, colours `[k, 3]` → `[m, a, k]`, and to the background `[m]`."""
    b = np.asarray(background, float).reshape(len(frames), -1, 3)
    d = np.asarray(frames, float).reshape(b.shape) - b
    squared = alpha**2
    linear = _cover(alpha, np.concatenate([d, 2 * (d * b).sum(-1, keepdims=True)], axis=-1))
    square = _cover(squared, np.concatenate([b, (b * b).sum(-1, keepdims=True)], axis=-1))
    both = linear + square
    empty = (d * d).sum(axis=(1, 2))
    total = both[..., :3] @ (-2 * colours.T)
    total += squared.sum(axis=1)[:, None] * (colours**2).sum(axis=1)
    total += both[..., 3:]
    total += empty[:, None, None]
    values = d[0].size
    return np.maximum(total, 0) / values, empty / values


def _cover(weights: np.ndarray, features: np.ndarray) -> np.ndarray:
    """Weighted sums over pixels: `[a, H·W]` and `[m, H·W, 4]` → `[m, a, 4]`."""
    m, pixels, width = features.shape
    # One flat product: a batched one with a right side of width 4 never reaches BLAS and is 30 times slower.
    flat = weights @ features.transpose(1, 0, 2).reshape(pixels, m * width)
    return np.ascontiguousarray(flat.reshape(-1, m, width).transpose(1, 0, 2))
