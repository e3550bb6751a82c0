"""Where every object is in every frame: closed forms on the grid of cells.

Frames count from the reference frame: T = 1 + s·f, the reference frame has time -1.
"""

import numpy as np

from mpjax.data.recallworld.world import World


def ring(grid: int) -> np.ndarray:
    """The outer cells of a grid in clockwise order, (row, column), int `[4 (grid - 1), 2]`."""
    edge = np.arange(grid - 1)
    near, far = np.zeros(grid - 1, int), np.full(grid - 1, grid - 1)
    sides = [(near, edge), (edge, far), (far, far - edge), (far - edge, near)]
    return np.concatenate([np.stack(side, axis=-1) for side in sides])


def reflect(position: np.ndarray, size: int) -> np.ndarray:
    """Fold unbounded integer positions into 0..size-1 by elastic reflection at both ends."""
    return size - 1 - np.abs(position % (2 * size - 2) - (size - 1))


def exit_and_return(
    world: World,
    segments: int,
    *,
    return_segment: int,
    target: int,
    clockwise: bool,
    rows: np.ndarray,
    ball_cell: np.ndarray,
    ball_velocity: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Scenes R1 and R2: toy n shows itself in segment n, the ball in the gap, the target from the return on.

    Args:
        world: the world.
        segments: number of segments s.
        return_segment: segment of the return.
        target: which toy returns.
        clockwise: direction of the hops along the ring.
        rows: row of each toy's entrance in column 0, int `[toys]`; it comes back through the same one.
        ball_cell: cell of the ball at time 0, int `[2]`.
        ball_velocity: cells a frame, int `[2]`.

    Returns:
        positions: top-left pixel of each toy and, last, the ball, int `[toys + 1, T, 2]`.
        visible: bool `[toys + 1, T]`.
    """
    f = world.segment_frames
    time = np.arange(-1, segments * f)
    segment = time // f
    toy = np.arange(world.toys)[:, None]
    returned = (segment >= return_segment) & (toy == target)
    since = time - f * np.where(returned, return_segment, toy)
    cells = ring(world.grid)
    # The left side of the ring runs upwards and ends before the top corner, which is entry 0.
    entrance = -np.asarray(rows)[:, None]
    toys = cells[(entrance + (since if clockwise else -since)) % len(cells)]
    ball = reflect(ball_cell + ball_velocity * time[:, None], world.grid)
    positions = np.concatenate([toys, ball[None]]) * world.patch
    hidden = (segment >= world.toys) & (segment < return_segment)
    return positions, np.concatenate([(segment == toy) | returned, hidden[None]])


def bounce(world: World, segments: int, starts: np.ndarray, velocities: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Scene D1: balls between elastic walls, visible from time 0 on.

    Args:
        world: the world.
        segments: number of segments s.
        starts: position of each ball at time 0, int `[balls, 2]`, in cells, or in pixels where motion is "free".
        velocities: the same units a frame, int `[balls, 2]`.

    Returns:
        positions: top-left pixels, int `[balls, T, 2]`.
        visible: bool `[balls, T]`.
    """
    time = np.arange(-1, segments * world.segment_frames)
    unit = 1 if world.motion == "free" else world.patch
    positions = reflect(starts[:, None] + velocities[:, None] * time[:, None], bounce_range(world)) * unit
    return positions, np.broadcast_to(time >= 0, (len(starts), time.size))


def bounce_range(world: World) -> int:
    """Positions a ball of D1 can take along one axis, in its unit of motion."""
    return world.frame_size - world.patch + 1 if world.motion == "free" else world.grid


def balls_meet(world: World, starts: np.ndarray, velocities: np.ndarray) -> np.ndarray:
    """Whether two balls ever share a cell: bool `[...]` for starts and velocities `[..., balls, 2]`."""
    # The motion repeats after 2 (range - 1) frames, so one period decides for ever.
    time = np.arange(2 * bounce_range(world) - 2)[:, None, None]
    size = bounce_range(world)
    places = reflect(starts[..., None, :, :] + velocities[..., None, :, :] * time, size) @ np.asarray([size, 1])
    ordered = np.sort(places, axis=-1)
    return (np.diff(ordered, axis=-1) == 0).any(axis=(-2, -1))
