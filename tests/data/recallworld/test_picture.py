import numpy as np

from mpjax.data.recallworld.picture import ROWS, SEGMENTS, picture
from mpjax.data.recallworld.sprites import COLOURS


def test_picture_shows_a_row_a_scene_and_the_toy_only_where_it_is_there():
    shown = picture()
    side, gap, frames = 48, 4, 1 + 4 * SEGMENTS
    assert shown.shape == (len(ROWS) * (side + gap) - gap, frames * (side + gap) - gap, 3)
    # Toy colours are saturated, the background and the white ball are not: R1 shows its toy in segments 0, 3 and 4.
    toys = ((COLOURS[:4] + 1) * 127.5).astype(np.uint8)
    first = [shown[:side, x : x + side].reshape(-1, 3) for x in range(0, shown.shape[1], side + gap)]
    there = [(frame[:, None] == toys).all(axis=-1).any() for frame in first]
    assert there == [False] + [True] * 4 + [False] * 8 + [True] * 8
