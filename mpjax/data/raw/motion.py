"""How much moves between two pictures, and how much of it is the camera.

Block matching finds where each block of one picture went in the other, by the least sum of absolute differences. Blocks
without texture tell nothing; where standing still explains a block nearly as well as the best shift, it stands still. A
similarity (shift, zoom, rotation) fitted to all blocks, those that disagree losing their weight step by step, is the
motion of the camera.
"""

from itertools import product
from typing import NamedTuple

import numpy as np

BLOCK = 8
# Pixels in each direction; of a picture 64 pixels high 1/8 of its height.
REACH = 8
# Mean absolute differences, of 255: what noise and compression change; the least spread of costs in a textured block.
NOISE, TEXTURE = 1.5, 4.0
# A block moves only where that lowers its cost to this part.
BETTER = 0.8
# Of the textured blocks, those that must agree on the camera's motion.
CONSENSUS = 0.4
# Pixels off the fit at which a block has lost most of its weight.
TOLERANCE = 0.7


class Motion(NamedTuple):
    """Mean lengths of displacement over the picture, in parts of its shorter side.

    Attributes:
        all: of everything seen.
        camera: of the part that the camera explains.
    """

    all: float
    camera: float


def motion(before: np.ndarray, after: np.ndarray) -> Motion:
    """Motion from one gray picture to another.

    Args:
        before: `[h, w]`, 0 to 255; the shorter side 64 pixels for the thresholds to fit.
        after: likewise.
    """
    shift, textured = displacements(before, after)
    side = min(before.shape)
    camera = _camera(shift, textured)
    return Motion(
        float(np.hypot(*np.moveaxis(shift, -1, 0)).mean() / side),
        float(np.hypot(*np.moveaxis(camera, -1, 0)).mean() / side),
    )


def displacements(before: np.ndarray, after: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where the blocks of a picture went.

    Returns:
        displacement in pixels (down, right), float64 `[r, c, 2]`, and which blocks have texture, bool `[r, c]`.
    """
    rows, columns = ((size - 2 * REACH) // BLOCK for size in before.shape)
    height, width = rows * BLOCK, columns * BLOCK
    before, after = before.astype(np.float32), after.astype(np.float32)
    blocks = before[REACH : REACH + height, REACH : REACH + width]
    span = 2 * REACH + 1
    cost = np.empty((span, span, rows, columns), np.float32)
    for down, right in product(range(span), range(span)):
        difference = np.abs(blocks - after[down : down + height, right : right + width])
        cost[down, right] = difference.reshape(rows, BLOCK, columns, BLOCK).mean((1, 3))
    flat = cost.reshape(span * span, rows, columns)
    best = flat.argmin(0)
    least, still = flat.min(0), cost[REACH, REACH]
    textured = flat.max(0) - least > TEXTURE
    moves = textured & (still > NOISE) & (least < BETTER * still)
    shift = np.stack([_finer(cost, best, axis) for axis in range(2)], -1) - REACH
    return np.where(moves[..., None], shift, 0.0), textured


def _finer(cost: np.ndarray, best: np.ndarray, axis: int) -> np.ndarray:
    """The least cost's place on an axis, to a part of a pixel by the parabola through it and its neighbours."""
    span = len(cost)
    place = np.unravel_index(best, (span, span))
    at = place[axis].clip(1, span - 2)
    r, c = np.indices(best.shape)

    def near(step: int) -> np.ndarray:
        moved = [place[0], place[1]]
        moved[axis] = at + step
        return cost[moved[0], moved[1], r, c]

    low, middle, high = near(-1), near(0), near(1)
    curve = low - 2 * middle + high
    offset = np.where(curve > 1e-6, 0.5 * (low - high) / np.maximum(curve, 1e-6), 0.0)
    inside = place[axis] == at
    return np.where(inside, at + offset.clip(-0.5, 0.5), place[axis])


def _camera(shift: np.ndarray, textured: np.ndarray) -> np.ndarray:
    """The similarity that most textured blocks follow, at every block, `[r, c, 2]`; 0 where there is none."""
    rows, columns = textured.shape
    y, x = np.indices((rows, columns)) * BLOCK
    y, x = (y - y.mean()).ravel(), (x - x.mean()).ravel()
    one, zero = np.ones_like(y), np.zeros_like(y)
    # down = a + zoom y + turn x, right = b + zoom x − turn y
    system = np.stack([np.stack([one, zero, y, x], -1), np.stack([zero, one, x, -y], -1)], 1)
    target = shift.reshape(-1, 2)
    known = textured.ravel()
    if known.sum() < 4:
        return np.zeros_like(shift)
    # From the median on: least squares would begin too near to a large thing that moves.
    model = np.zeros(4)
    model[:2] = np.median(target[known], axis=0)
    weight = np.zeros(len(target))
    for _ in range(8):
        off = np.linalg.norm(target - system @ model, axis=1)
        weight = known / (1 + (off / TOLERANCE) ** 2) ** 2
        weighted = system * np.sqrt(weight)[:, None, None]
        model = np.linalg.lstsq(weighted.reshape(-1, 4), (target * np.sqrt(weight)[:, None]).ravel(), rcond=None)[0]
    if weight.sum() < CONSENSUS * known.sum():
        return np.zeros_like(shift)
    return (system @ model).reshape(shift.shape)
