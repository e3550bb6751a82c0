"""Picture sizes of FramePack."""

import numpy as np
import pytest

from mpjax.conditioning.buckets import BUCKETS, cover, nearest_bucket
from mpjax.errors import InputError


def test_buckets_are_those_of_framepack():
    assert len(set(BUCKETS)) == 14
    assert all(height % 32 == width % 32 == 0 and abs(height * width / 640**2 - 1) < 0.07 for height, width in BUCKETS)
    assert {(width, height) for height, width in BUCKETS} == set(BUCKETS)


@pytest.mark.parametrize(
    ("height", "width", "bucket"),
    [
        (480, 832, (480, 832)),
        (720, 1280, (480, 832)),
        (1280, 720, (832, 480)),
        (100, 400, (416, 960)),
        (512, 512, (640, 608)),  # as near to 608 × 640: the later one
        (1, 1, (640, 608)),
    ],
)
def test_nearest_bucket(height, width, bucket):
    assert nearest_bucket(height, width) == bucket


def test_a_picture_without_pixels_is_refused():
    with pytest.raises(InputError, match="0 × 5"):
        nearest_bucket(0, 5)


def test_cover_keeps_the_centre():
    """A picture that is twice as wide as needed loses its outer quarters."""
    picture = np.zeros((32, 128, 3), np.uint8)
    picture[:, :32, 0] = picture[:, 96:, 0] = 255  # red borders
    picture[:, 32:96, 1] = 200
    cut = cover(picture, 32, 64)
    assert cut.shape == (32, 64, 3) and (cut[:, :, 0] == 0).all() and (cut[:, :, 1] == 200).all()
    smaller = cover(picture, 16, 32)
    assert smaller.shape == (16, 32, 3) and (smaller[:, 4:-4] == [0, 200, 0]).all()
    assert cover(np.zeros((481, 833, 3), np.uint8), 480, 832).shape == (480, 832, 3)
