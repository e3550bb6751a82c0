import numpy as np
import pytest
import scipy.fft
from safetensors.numpy import load_file, save_file

from mpjax.codecs import denormalise, latent_frames, normalise, pixel_frames
from mpjax.codecs.dct import DctCodec, coefficient_order, dct_matrix, kept_basis
from mpjax.errors import InputError


def natural(frames: int, height: int = 32, width: int = 48, batch: int = 1, seed: int = 0) -> np.ndarray:
    """Smooth shapes that move, with a little texture: the statistics a transform codec is made for."""
    rng = np.random.default_rng(seed)
    t, y, x = np.ogrid[:frames, :height, :width]
    video = np.zeros((batch, frames, height, width, 3))
    for _ in range(12):
        size, colour = rng.uniform(3, 12), rng.normal(size=(batch, 1, 1, 1, 3)) * 0.1 + rng.normal() * 0.4
        row, column = rng.uniform(0, height) + rng.normal() * 0.3 * t, rng.uniform(0, width) + rng.normal() * 0.3 * t
        edge = np.clip(size - np.hypot(y - row, x - column), -30, 30)
        video += colour * (1 / (1 + np.exp(-edge)))[None, ..., None]
    return np.clip(video + 0.02 * rng.normal(size=video.shape), -1, 1).astype(np.float32)


def rms(x: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(x, dtype=np.float64))))


def test_basis_is_orthonormal_and_a_prefix_of_the_full_one():
    full = kept_basis(4, 4, 192)
    np.testing.assert_allclose(full.astype(np.float64) @ full.T, np.eye(192), atol=1e-6)
    np.testing.assert_array_equal(kept_basis(4, 4, 10), full[:10])


def test_coefficients_agree_with_scipy():
    codec = DctCodec(time_factor=2, space_factor=4, channels=96)
    video = natural(5, 8, 12, batch=2)
    latents = codec.encode(video)
    luma, blue, red = (1, 1, 1) / np.sqrt(3), (-1, -1, 2) / np.sqrt(6), (1, -1, 0) / np.sqrt(2)
    turned = np.stack([video @ luma, video @ blue, video @ red], -1)
    block = scipy.fft.dctn(turned[1, 3:5, 4:8, 8:12], axes=(0, 1, 2), norm="ortho")
    expected = [block[t, u, v, c] for c, t, u, v in coefficient_order(2, 4)]
    np.testing.assert_allclose(latents[1, 2, 1, 2], expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(dct_matrix(5) @ np.eye(5), scipy.fft.dct(np.eye(5), axis=0, norm="ortho"), atol=1e-12)


def test_energy_is_kept_and_all_coefficients_reconstruct():
    codec = DctCodec(time_factor=4, space_factor=4, channels=192)
    video = natural(9)
    latents = codec.encode(video)
    # The first frame stands four times in its latent frame.
    energy = 4 * np.sum(np.square(video[:, 0], dtype=np.float64)) + np.sum(np.square(video[:, 1:], dtype=np.float64))
    assert np.sum(np.square(latents, dtype=np.float64)) == pytest.approx(energy, rel=1e-6)
    np.testing.assert_allclose(codec.decode(latents), video, atol=2e-6)


def test_dropped_coefficients_are_exactly_the_error():
    codec, full = DctCodec(space_factor=4, channels=20), DctCodec(space_factor=4, channels=192)
    video = natural(13) * 0.5  # no reconstruction reaches the clipping limits
    dropped = full.encode(video)[:, 1:, ..., 20:]
    error = codec.decode(codec.encode(video))[:, 1:] - video[:, 1:]
    assert np.sum(np.square(error, dtype=np.float64)) == pytest.approx(
        np.sum(np.square(dropped, dtype=np.float64)), rel=1e-4
    )


def test_order_luma_first_and_each_coefficient_once():
    order = coefficient_order(4, 8)
    assert len(set(order)) == len(order) == 3 * 4 * 8 * 8
    assert order[:4] == [(0, 0, 0, 0), (0, 0, 0, 1), (0, 0, 1, 0), (0, 1, 0, 0)]
    assert order.index((0, 0, 0, 0)) < order.index((1, 0, 0, 0)) < order.index((2, 0, 0, 0)) < 16


def test_kept_coefficients_beat_random_ones():
    video = natural(9)
    full = DctCodec(channels=768)
    latents = full.encode(video)
    kept = DctCodec(channels=16)
    ours = rms(kept.decode(kept.encode(video)) - video)
    rng = np.random.default_rng(0)
    for _ in range(3):
        mask = np.zeros(768, np.float32)
        # Even with the mean of every block given away.
        mask[np.append(0, rng.choice(np.arange(1, 768), 15, replace=False))] = 1
        assert ours < 0.6 * rms(full.decode(latents * mask) - video)


def test_static_video_has_no_temporal_coefficients():
    codec = DctCodec(channels=64)
    video = np.repeat(natural(1), 9, axis=1)
    latents = codec.encode(video)
    temporal = np.array([t > 0 for _, t, _, _ in coefficient_order(4, 8)[:64]])
    assert temporal.any()
    assert np.abs(latents[..., temporal]).max() < 1e-5
    np.testing.assert_array_equal(latents[:, 0], latents[:, 1])


def test_first_frame_ignores_temporal_coefficients():
    codec = DctCodec(channels=32)
    latents = codec.encode(natural(5))
    temporal = [i for i, (_, t, _, _) in enumerate(coefficient_order(4, 8)[:32]) if t]
    changed = latents.copy()
    changed[:, 0, ..., temporal] += 1
    np.testing.assert_allclose(codec.decode(changed), codec.decode(latents), atol=1e-5)


@pytest.mark.parametrize("chunks", [(1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1), (5, 8), (3, 0, 4, 6), (2, 2, 9)])
def test_streams_give_the_bits_of_one_call(tmp_path, chunks):
    codec = DctCodec(channels=24).with_normalisation(tuple(np.linspace(-1, 1, 24)), tuple(np.linspace(0.5, 2, 24)))
    video = natural(13, batch=2)
    whole = codec.encode(video)
    tail, parts, position = codec.encode_start(2, 32, 48), [], 0
    for count in chunks:
        latents, tail = codec.encode_stream(tail, video[:, position : position + count])
        position += count
        parts.append(latents)
        save_file(tail, tmp_path / "tail.safetensors")
        tail = load_file(tmp_path / "tail.safetensors")
    np.testing.assert_array_equal(np.concatenate(parts, 1), whole)

    decoded = codec.decode(whole)
    for cuts in ((1, 1, 1, 1), (3, 1), (2, 0, 2)):
        tail, parts, position = codec.decode_start(2, 32, 48), [], 0
        for count in cuts:
            frames, tail = codec.decode_stream(tail, whole[:, position : position + count])
            position += count
            parts.append(frames)
        np.testing.assert_array_equal(np.concatenate(parts, 1), decoded)
    assert decoded.dtype == whole.dtype == np.float32


def test_later_frames_do_not_reach_back():
    codec = DctCodec(channels=16)
    a = natural(13)
    b = a.copy()
    b[:, 5:] = natural(8, seed=1)
    np.testing.assert_array_equal(codec.encode(a)[:, :2], codec.encode(b)[:, :2])


def test_normalisation_is_affine_per_channel_and_decode_undoes_it():
    raw = DctCodec(channels=6)
    mean, std = (1.0, -2.0, 0.0, 3.0, 0.5, 0.25), (2.0, 1.0, 0.5, 4.0, 1.5, 1.0)
    codec = raw.with_normalisation(mean, std)
    video = natural(5)
    latents = raw.encode(video)
    np.testing.assert_allclose(codec.encode(video), (latents - np.array(mean)) / np.array(std), atol=1e-5)
    np.testing.assert_allclose(denormalise(codec, normalise(codec, latents)), latents, atol=1e-5)
    np.testing.assert_allclose(codec.decode(codec.encode(video)), raw.decode(latents), atol=1e-5)
    assert codec.with_normalisation((), ()) == raw


def test_decode_clips():
    assert np.abs(DctCodec(channels=4).decode(np.full((1, 2, 2, 2, 4), 50, np.float32))).max() == 1


def test_frame_counts():
    codec = DctCodec()
    assert [pixel_frames(codec, t) for t in (1, 2, 5)] == [1, 5, 17]
    assert [latent_frames(codec, n) for n in (1, 5, 17)] == [1, 2, 5]
    for bad in (0, 4, 6):
        with pytest.raises(InputError, match="1 \\+ a multiple of 4"):
            latent_frames(codec, bad)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"channels": 0}, "1 to 768"),
        ({"channels": 769}, "1 to 768"),
        ({"time_factor": 0}, "time_factor"),
        ({"mean": (0.0,), "std": (1.0,)}, "16 finite means"),
        ({"mean": (0.0,) * 16, "std": (0.0,) * 16}, "positive"),
        ({"mean": (float("nan"),) * 16, "std": (1.0,) * 16}, "finite"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(InputError, match=message):
        DctCodec(**options)


def test_bad_arrays():
    codec = DctCodec()
    with pytest.raises(InputError, match="1 \\+ a multiple"):
        codec.encode(np.zeros((1, 4, 16, 16, 3), np.float32))
    with pytest.raises(InputError, match="multiples of 8"):
        codec.encode(np.zeros((1, 5, 16, 20, 3), np.float32))
    with pytest.raises(InputError, match="shape"):
        codec.encode(np.zeros((5, 16, 16, 3), np.float32))
    with pytest.raises(InputError, match="shape"):
        codec.decode(np.zeros((1, 2, 2, 2, 15), np.float32))
