import numpy as np

from mpjax.evaluation.strips import named_strips

SIDE, GAP = 16, 2


def solid(*greys):
    """Frames 2 × 2 of one grey each, uint8 `[n, 2, 2, 3]`."""
    return np.repeat(np.uint8(greys), 12).reshape(-1, 2, 2, 3)


def frames_of(picture, count, rows=2):
    """The greys of the last `count` frames of each row, each of which is one grey."""
    found = []
    for row in range(rows):
        top, right = row * (SIDE + GAP), picture.shape[1] - count * (SIDE + GAP) + GAP
        cells = [picture[top : top + SIDE, right + n * (SIDE + GAP) :][:, :SIDE] for n in range(count)]
        assert all(cell.shape == (SIDE, SIDE, 3) and np.ptp(cell) == 0 for cell in cells)
        found.append([int(cell[0, 0, 0]) for cell in cells])
    return found


def test_each_row_stands_behind_its_name():
    rows = {"a": solid(10, 20, 30), "a longer name": solid(40, 50, 60)}
    picture = named_strips(rows, least=SIDE)
    assert frames_of(picture, 3) == [[10, 20, 30], [40, 50, 60]]
    names = picture[:, : -(3 * (SIDE + GAP) - GAP)]
    ink = [np.argwhere(half[..., 0] < 128) for half in np.array_split(names, 2)]
    assert all(len(pixels) > 10 for pixels in ink)
    # The longer name decides the width; both begin at the left.
    assert ink[1][:, 1].max() > 3 * ink[0][:, 1].max() and abs(ink[0][:, 1].min() - ink[1][:, 1].min()) <= 2
    # Another name, another picture, in its own row alone.
    other = named_strips({"b": rows["a"], "a longer name": rows["a longer name"]}, least=SIDE)
    differs = (other != picture).any(axis=(1, 2))
    assert differs[: len(picture) // 2].any() and not differs[len(picture) // 2 :].any()


def test_frames_left_out_leave_an_ellipsis():
    rows = {"a": solid(10, 20, 30, 40, 50), "b": solid(60, 70, 80, 90, 100)}
    picture, whole = named_strips(rows, left_out=(1, 4), least=SIDE), named_strips(rows, least=SIDE)
    assert frames_of(picture, 1) == [[50], [100]] and frames_of(whole, 5)[0] == [10, 20, 30, 40, 50]
    assert (
        not ({20, 30, 40, 70, 80, 90} & set(np.unique(picture[4:12, -3 * SIDE :])))
        and picture.shape[1] < whole.shape[1]
    )
    names = whole.shape[1] - (5 * (SIDE + GAP) - GAP)
    assert (picture[:SIDE, names : names + SIDE] == 10).all() and (picture[-SIDE:, names : names + SIDE] == 60).all()
    dots = picture[:, names + SIDE : -SIDE, 0]
    assert all((half < 128).any() for half in np.array_split(dots, 2))
    np.testing.assert_array_equal(named_strips(rows, left_out=(3, 3), least=SIDE), whole)
