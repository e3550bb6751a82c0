import ml_dtypes
import numpy as np
import pytest

from mpjax.codecs.identity import IdentityCodec
from mpjax.data.clip_encoding import encode_frames
from tests.data.media import moving
from tests.fixtures.late_codec import LateCodec


@pytest.mark.parametrize("delay", [0, 3, 20])
def test_a_codec_that_is_behind(delay):
    """Latents are whole, and each is compared with its own pixels."""
    video = moving(9, 8, 8)
    got = encode_frames(iter(video), LateCodec(delay=delay), segment_frames=4)
    pixels = video / np.float32(127.5) - 1
    np.testing.assert_array_equal(got["latents"], pixels.astype(ml_dtypes.bfloat16))
    shown = pixels.astype(ml_dtypes.bfloat16).astype(np.float64)
    shown[: max(len(shown) - delay, 0)] *= -1  # LateCodec: what is final is negative
    assert got["psnr"] == pytest.approx(10 * np.log10(4 / np.mean((shown - pixels) ** 2)), abs=0.01)


def test_one_that_is_not():
    got = encode_frames(iter(moving(9, 8, 8)), IdentityCodec(), segment_frames=4)
    assert 50 < got["psnr"] < 100
