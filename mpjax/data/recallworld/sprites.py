"""What the toys and the distractor look like."""

import functools

import numpy as np

from mpjax.data.recallworld.world import World

COLOURS = np.asarray(
    [
        [1, -1, -1],
        [-1, 1, -1],
        [-1, -1, 1],
        [1, 1, -1],
        [1, -1, 1],
        [-1, 1, 1],
        [-1, -1, -1],
        [1, 0, -1],
    ],
    np.float32,
)
"""Toy colours, RGB in [-1, 1]: red, green, blue, yellow, magenta, cyan, black, orange."""

COLOUR_NAMES = ("red", "green", "blue", "yellow", "magenta", "cyan", "black", "orange")
SHAPE_NAMES = ("square", "ring", "cross", "triangle")
WHITE = np.ones(3, np.float32)
GREY = np.full(3, 0.7, np.float32)
"""Of the ball, and of a closed box, which is a square."""


@functools.cache
def shape_masks(patch: int) -> np.ndarray:
    """Masks of the four toy shapes and, last, of the ball: bool `[5, patch, patch]`, read-only.

    The ball is a disc, a shape that no toy has.
    """
    rows, columns = np.mgrid[:patch, :patch]
    border = (rows == 0) | (rows == patch - 1) | (columns == 0) | (columns == patch - 1)
    square = np.ones((patch, patch), bool)
    cross = (rows == columns) | (rows + columns == patch - 1)
    triangle = rows >= columns
    # Odd coordinates about the centre keep the disc an integer test at every size.
    disc = (2 * rows - patch + 1) ** 2 + (2 * columns - patch + 1) ** 2 <= (patch - 1) ** 2 + 1
    masks = np.stack([square, border, cross, triangle, disc])
    masks.flags.writeable = False
    return masks


@functools.cache
def sprite_table(world: World) -> tuple[np.ndarray, np.ndarray]:
    """Every sprite a world can draw; entry `world.ids` is the white ball, `world.ids + 1` the closed box. Read-only.

    Returns:
        masks: bool `[ids + 2, patch, patch]`.
        colours: float32 `[ids + 2, 3]` in [-1, 1].
    """
    identity = np.arange(world.ids)
    shapes = shape_masks(world.patch)
    masks = np.concatenate([shapes[world.shape_of(identity)], shapes[-1:], shapes[:1]])
    colours = np.concatenate([COLOURS[world.colour_of(identity)], WHITE[None], GREY[None]])
    masks.flags.writeable = colours.flags.writeable = False
    return masks, colours
