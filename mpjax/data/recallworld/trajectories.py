"""Where objects are in every frame: closed forms on the grid of cells.

Frames count from the reference frame: T = 1 + s·f, the reference frame has time -1.
"""

from typing import TYPE_CHECKING

import numpy as np

from mpjax.data.recallworld.stream import BALL_CELL, BALL_VELOCITY, DIRECTION, ENTRY_ROW

if TYPE_CHECKING:
    from mpjax.data.recallworld.world import World

VELOCITIES = np.asarray([[0, 1], [0, -1], [1, 0], [-1, 0], [1, 1], [1, -1], [-1, 1], [-1, -1]])
"""The eight directions of a ball, (rows, columns) per frame."""


def ring(grid: int) -> np.ndarray:
    """The outer cells of a grid in clockwise order, (row, column), int `[4 (grid - 1), 2]`."""
    edge = np.arange(grid - 1)
    near, far = np.zeros(grid - 1, int), np.full(grid - 1, grid - 1)
    sides = [(near, edge), (edge, far), (far, far - edge), (far - edge, near)]
    return np.concatenate([np.stack(side, axis=-1) for side in sides])


def reflect(position: np.ndarray, size: int) -> np.ndarray:
    """Fold unbounded integer positions into 0..size-1 by elastic reflection at both ends."""
    return size - 1 - np.abs(position % (2 * size - 2) - (size - 1))


def entrance(world: "World", draws: np.ndarray, toys: int) -> tuple[np.ndarray, bool]:
    """Row of each toy's entrance in column 0, int `[toys]`, and whether they hop clockwise, as `world.path` says."""
    rows = (draws[ENTRY_ROW : ENTRY_ROW + toys] * world.grid * (world.path == "varied")).astype(int)
    return rows, bool(draws[DIRECTION] < 0.5) or world.path == "fixed"


def ring_walk(world: "World", since: np.ndarray, rows: np.ndarray, clockwise: bool) -> np.ndarray:
    """Top-left pixels of toys that hop one cell a frame round the outer cells, int `[toys, T, 2]`.

    Args:
        world: the world.
        since: frames since each toy's entrance, int `[toys, T]`.
        rows: row of its entrance in column 0, int `[toys]`.
        clockwise: direction of the hops.
    """
    cells = ring(world.grid)
    # The left side of the ring runs upwards and ends before the top corner, which is entry 0.
    start = -np.asarray(rows)[:, None]
    return cells[(start + (since if clockwise else -since)) % len(cells)] * world.patch


def distractor(world: "World", draws: np.ndarray, time: np.ndarray) -> np.ndarray:
    """Top-left pixels of the white ball, which bounces one cell a frame, int `[T, 2]`."""
    cell = (draws[BALL_CELL : BALL_CELL + 2] * world.grid).astype(int)
    velocity = VELOCITIES[int(draws[BALL_VELOCITY] * len(VELOCITIES))]
    return reflect(cell + velocity * time[:, None], world.grid) * world.patch


def bounce(world: "World", starts: np.ndarray, steps: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Scene D1: balls between elastic walls, visible from time 0 on, with `world.anchor` in the reference frame too.

    Args:
        world: the world.
        starts: position of each ball at time 0, int `[balls, 2]`, in cells, or in pixels where motion is "free".
        steps: what leads to each frame from the one before, int `[balls, T - 1, 2]`, in the same units.

    Returns:
        positions: top-left pixels, int `[balls, T, 2]`.
        visible: bool `[balls, T]`.
    """
    unit = 1 if world.motion == "free" else world.patch
    before = starts[:, None] - steps[:, :1]
    positions = reflect(np.concatenate([before, before + np.cumsum(steps, axis=1)], axis=1), bounce_range(world)) * unit
    visible = np.arange(positions.shape[1]) >= (0 if world.anchor else 1)
    return positions, np.broadcast_to(visible, positions.shape[:2])


def bounce_range(world: "World") -> int:
    """Positions a ball of D1 can take along one axis, in its unit of motion."""
    return world.frame_size - world.patch + 1 if world.motion == "free" else world.grid


def balls_meet(world: "World", starts: np.ndarray, velocities: np.ndarray) -> np.ndarray:
    """Whether two balls ever share a cell: bool `[...]` for starts and velocities `[..., balls, 2]`."""
    # The motion repeats after 2 (range - 1) frames, so one period decides for ever.
    time = np.arange(2 * bounce_range(world) - 2)[:, None, None]
    size = bounce_range(world)
    places = reflect(starts[..., None, :, :] + velocities[..., None, :, :] * time, size) @ np.asarray([size, 1])
    ordered = np.sort(places, axis=-1)
    return (np.diff(ordered, axis=-1) == 0).any(axis=(-2, -1))
