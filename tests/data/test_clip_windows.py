import numpy as np
import pytest

from mpjax.codecs.identity import IdentityCodec
from mpjax.data.clip_windows import encode_windows
from tests.data.media import moving
from tests.fixtures.late_codec import LateCodec


@pytest.mark.parametrize("delay", [0, 3, 20])
def test_a_codec_that_is_behind(delay):
    """Windows of 9 frames, one of 5, and a rest of 2: latents are whole, and each is compared with its own pixels."""
    video = moving(25, 8, 8)
    codec = LateCodec(delay=delay)
    windows = list(encode_windows(iter(video), codec, segment_frames=4, max_segments=2))
    assert [len(window.latents) for window in windows] == [9, 9, 5]
    for start, window in zip((0, 9, 18), windows, strict=True):
        pixels = video[start : start + len(window.latents)] / np.float32(127.5) - 1
        np.testing.assert_array_equal(window.latents, pixels.astype(np.float16))
        shown = pixels.astype(np.float16).astype(np.float64)
        shown[: max(len(shown) - delay, 0)] *= -1  # LateCodec: what is final is negative
        assert window.psnr == pytest.approx(10 * np.log10(4 / np.mean((shown - pixels) ** 2)), abs=0.01)


def test_one_that_is_not():
    video = moving(9, 8, 8)
    (window,) = encode_windows(iter(video), IdentityCodec(), segment_frames=4, max_segments=2)
    assert 60 < window.psnr < 100
