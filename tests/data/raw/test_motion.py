import numpy as np
import pytest

from mpjax.data.raw.motion import displacements, motion
from tests.data.media import scene

LUMA = np.array([0.299, 0.587, 0.114])


def gray(frames):
    return frames @ LUMA


@pytest.mark.parametrize("shift", [(0, 3), (-2, 5), (6, 0), (0, -8)])
def test_a_shift_of_the_whole_picture(shift):
    land = gray(scene(0, 1, 100, 150))[0]
    before = land[15:79, 15:129]
    after = land[15 - shift[0] : 79 - shift[0], 15 - shift[1] : 129 - shift[1]]
    moved, textured = displacements(before, after)
    assert textured.mean() > 0.9
    np.testing.assert_allclose(moved[textured], np.broadcast_to(shift, moved[textured].shape), atol=0.3)
    result = motion(before, after)
    assert result.camera == pytest.approx(np.hypot(*shift) / 64, rel=0.05)
    assert result.all == pytest.approx(result.camera, rel=0.1)


def test_parts_of_a_pixel():
    fine = gray(scene(1, 1, 64 * 4, 112 * 4))[0]
    before, after = (np.roll(fine, s, 1).reshape(64, 4, 112, 4).mean((1, 3)) for s in (0, 6))  # 1.5 pixels
    assert motion(before, after).camera == pytest.approx(1.5 / 64, rel=0.1)


def test_zoom_is_the_camera():
    land = gray(scene(2, 1, 64, 112))[0]
    y, x = np.mgrid[:64, :112]
    zoom = 1.08
    rows, columns = (31.5 + (y - 31.5) / zoom).round().astype(int), (55.5 + (x - 55.5) / zoom).round().astype(int)
    result = motion(land, land[rows, columns])
    # Mean over the picture of 0.08 times the distance from the centre.
    wanted = 0.08 * np.hypot(y - 31.5, x - 55.5)[8:56, 8:104].mean() / 64
    assert result.camera == pytest.approx(wanted, rel=0.25)


def test_something_that_moves_is_not_the_camera():
    frames = gray(scene(3, 9, 64, 112, walker=1.5))
    result = motion(frames[0], frames[4])
    assert result.camera < 0.002 < 0.005 < result.all
    panned = gray(scene(3, 9, 64, 112, pan=(0, 1), walker=1.5))
    assert motion(panned[0], panned[4]).camera == pytest.approx(4 / 64, rel=0.1)


def test_stillness_and_noise():
    still = gray(scene(4, 1, 64, 112))[0]
    assert motion(still, still) == (0, 0)
    noisy = still + np.random.default_rng(0).normal(0, 1.5, still.shape)
    assert motion(still, noisy).all < 1e-3
    flat = np.full((64, 112), 90.0)
    assert motion(flat, flat + np.random.default_rng(1).normal(0, 1, flat.shape)) == (0, 0)
