from fractions import Fraction

import pytest

from mpjax.conditioning.buckets import BUCKETS, largest_bucket, nearest_bucket
from mpjax.data.raw.geometry import Geometry
from mpjax.errors import InputError


def test_windows_by_counting_frames():
    for fps in (24.0, 30000 / 1001, 12.0):
        geometry = Geometry(fps=fps, segment_frames=36, max_segments=3)
        for total in range(0, 400, 7):
            # Frame by frame: a clip takes its first frame and whole segments up to three, the next begins after it.
            expected, at = [], 0
            while total - at >= 37:
                segments = min(3, (total - at - 1) // 36)
                expected.append((at, segments))
                at += 36 * segments + 1
            got = geometry.windows(10.0, 10.0 + total / fps)
            assert [(round((start - 10) * fps, 6), n) for start, n in got] == expected


def test_a_minute_is_forty_segments():
    geometry = Geometry()
    assert geometry.frames(40) == 1441 and geometry.windows(0.0, 60.0) == [(0.0, 39)]
    assert geometry.windows(0.0, 1441 / 24) == [(0.0, 40)]


def test_framepacks_buckets_are_chosen_as_in_generation():
    for height in range(100, 2000, 113):
        for width in range(100, 2000, 97):
            assert Geometry().bucket(height, width) == nearest_bucket(height, width)


def test_the_largest_resolution_that_needs_no_enlargement():
    sets = ((240, 416), (320, 320), (480, 832), (640, 640), (832, 480), (720, 1280))
    for size, bucket in {
        (1080, 1920): (720, 1280),
        (720, 1279): (480, 832),
        (1000, 1000): (640, 640),
        (640, 600): (320, 320),
        (1920, 1080): (832, 480),
        (480, 854): (480, 832),
        (479, 854): (240, 416),
        (100, 180): (240, 416),
    }.items():
        assert largest_bucket(*size, sets) == bucket, size
    assert Geometry(buckets=sets).enlargement(100, 180) == pytest.approx(float(Fraction(240, 100)))
    assert Geometry(buckets=BUCKETS).enlargement(960, 1664) == 0.5


@pytest.mark.parametrize(
    "bad", [{"fps": 0}, {"segment_frames": 0}, {"max_segments": 0}, {"buckets": ()}, {"buckets": ((0, 9),)}]
)
def test_bad_geometry(bad):
    with pytest.raises(InputError, match=next(iter(bad))):
        Geometry(**bad)
