"""The numbers a clip is drawn from: fixed places of a Philox stream.

Every quantity reads its own place, as raw 64-bit words: NumPy guarantees the raw stream of a bit generator for ever,
the methods of `Generator` it does not. Fixed places also make it impossible for the identity to shift any other draw,
which is what the leak rules ask.

Quantities of fixed number have places in block 0, one word each. A quantity of which a longer clip needs more has a
block of its own, 2^128 steps of the counter away from the next, so that a longer clip only appends.
"""

import numpy as np

# Places in block 0; a new quantity takes a new block.
IDENTITY, TARGET, GAP, DIRECTION = 0, 3, 4, 5
ENTRY_ROW, BALL_CELL, BALL_VELOCITY = 6, 8, 10
MIDDLE, CONTRAST, CONTRAST_SIGN, SLOPE, STRIPE = 11, 14, 17, 20, 22
BOUNCE, SPEED = 24, 27
WORDS = 29

# Blocks.
TURNS, PANORAMA, LANDMARK, SWAPS, COMMANDS = 1, 2, 3, 4, 5


def uniforms(key: int, count: int, block: int = 0) -> np.ndarray:
    """`count` numbers in [0, 1), float64, the same on every machine and NumPy version. `key` is 0..2^128-1."""
    stream = np.random.Philox(key=key, counter=block << 128)
    return (stream.random_raw(count) >> np.uint64(11)) * 2.0**-53
