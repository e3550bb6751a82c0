import functools
import json
import shutil

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from mpjax import codecs
from mpjax.codecs.hunyuan_vae import HunyuanVaeCodec, compiled_network
from mpjax.errors import InputError
from mpjax.experiment import ClipsData
from mpjax.models.vae import Posterior
from mpjax.models.vae_tiling import Tiling, decoding_tiles
from tests.fixtures import reference_vae, tiny_vae
from tests.fixtures.seeded import normal

SCALE = np.float32(0.476986)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny_vae.write_folder(tmp_path_factory.mktemp("weights") / "vae")


@pytest.fixture(scope="module")
def codec(folder):
    return HunyuanVaeCodec(weights=str(folder))


@functools.cache
def network(method):
    """The bare network, on host arrays; `tests/models/test_vae.py` compares it with diffusers."""
    params, run = tiny_vae.params(), compiled_network(tiny_vae.ARCHITECTURE, "float32", method)
    return lambda x: np.asarray(run(params, x))


def pieces(xs):
    """The decoder as tiles want it."""
    return [network("decode")(x) for x in xs]


def streamed(tail, step, finish, x, chunks, tmp_path):
    """Results of a stream in chunks, its tail passing through a file each time."""
    parts, position = [], 0
    for count in chunks:
        part, tail = step(tail, x[:, position : position + count])
        save_file({name: np.array(array, order="C") for name, array in tail.items()}, tmp_path / "tail")
        tail, position = load_file(tmp_path / "tail"), position + count
        parts.append(part)
    assert position == x.shape[1]
    return [*parts, finish(tail)]


def latents(frames: int, batch: int = 1) -> np.ndarray:
    """Scaled latents of 8 × 8 pixels."""
    return reference_vae.latents(frames, 1, 1, batch) * SCALE


def test_latents_are_scaled_means_of_tiles_of_17_frames(codec):
    video = reference_vae.video(37, 8, 8)
    first, second, third = (
        np.split(network("encode")(x), 2, -1)[0] for x in (video[:, :17], video[:, 12:29], video[:, 24:])
    )
    # Latent 4 n + 1 of a tile is its predecessor's last one: a blend over a single frame.
    expected = np.concatenate([first, second[:, 2:], third[:, 2:]], 1) * SCALE
    result = codec.encode(video)
    assert result.shape == (1, 10, 1, 1, 16) and result.dtype == np.float32
    np.testing.assert_array_equal(result, expected)
    with pytest.raises(InputError, match="1 \\+ a multiple of 4"):
        codec.encode(video[:, :36])
    with pytest.raises(InputError, match="multiples of 8"):
        codec.encode(video[:, :, :4])


@pytest.mark.parametrize("posterior", ["mean", "sample"])
@pytest.mark.parametrize("chunks", [(1,) * 37, (1, 36), (20, 0, 17)])
def test_encoding_streams_give_the_bits_of_one_call(folder, tmp_path, chunks, posterior):
    codec = HunyuanVaeCodec(weights=str(folder), posterior=posterior)
    video = reference_vae.video(37, 8, 8)
    start = codec.encode_start(1, 8, 8)
    parts = streamed(start, codec.encode_stream, codec.encode_finish, video, chunks, tmp_path)
    np.testing.assert_array_equal(np.concatenate(parts, 1), codec.encode(video))
    assert start["waiting"].shape[1] == 0  # tails are not changed in place


def by_the_definition(latents: np.ndarray) -> np.ndarray:
    """FramePack-F1's demo in numpy: 10 latents, then the last 18 after each 9, appended softly over 33 frames."""
    decode = decoding_tiles(pieces, Tiling()).whole
    shown = decode(latents[:, :10] / SCALE)
    for end in range(19, latents.shape[1] + 1, 9):
        current = decode(latents[:, :end][:, -18:] / SCALE)
        for j in range(33):
            weight = 1 - j / 32
            shown[:, -33 + j] = weight * shown[:, -33 + j] + (1 - weight) * current[:, j]
        shown = np.concatenate([shown, current[:, 33:]], 1)
    return np.clip(shown, -1, 1)


def test_decoding_is_that_of_the_demo(codec):
    x = latents(28)
    result = codec.decode(x)
    assert result.shape == (1, 109, 8, 8, 3) and result.dtype == np.float32
    np.testing.assert_allclose(result, by_the_definition(x), atol=1e-6)
    assert np.abs(result).max() == 1 and result.std() > 0.3
    single = decoding_tiles(pieces, Tiling()).whole(x / SCALE)
    assert np.abs(result - np.clip(single, -1, 1))[:, 40:].max() > 0.1


@pytest.mark.parity
def test_decoding_is_that_of_the_demo_in_torch(codec):
    torch = pytest.importorskip("torch")
    theirs, x = reference_vae.reference(), latents(28)

    def decode(window):
        return reference_vae.run_on(theirs, np.ascontiguousarray(window) / SCALE, encode=False)

    shown = torch.from_numpy(decode(x[:, :10]))
    for end in (19, 28):
        current = torch.from_numpy(decode(x[:, end - 18 : end]))
        weights = torch.linspace(1, 0, 33)[:, None, None, None]
        blended = weights * shown[:, -33:] + (1 - weights) * current[:, :33]
        shown = torch.cat([shown[:, :-33], blended, current[:, 33:]], 1)
    # One latent a frame: GroupNorm over so few values enlarges rounding, up to 1.7e-5 (0.002 of a grey level).
    np.testing.assert_allclose(codec.decode(x), shown.clamp(-1, 1).numpy(), atol=3e-5)


@pytest.mark.parametrize("chunks", [(1,) * 24, (1, 9, 9, 5), (24,), (12, 0, 12)])
def test_decoding_streams_give_the_bits_of_one_call(codec, tmp_path, chunks):
    x = latents(24)
    tail = codec.decode_start(1, 8, 8)
    parts = streamed(tail, codec.decode_stream, codec.decode_finish, x, chunks, tmp_path)
    np.testing.assert_array_equal(np.concatenate(parts, 1), codec.decode(x))
    if chunks == (1, 9, 9, 5):
        assert [part.shape[1] for part in parts] == [0, 4, 36, 0, 53]


def test_what_is_final_is_the_same_in_a_longer_video(codec):
    x = latents(28)
    tail = codec.decode_start(1, 8, 8)
    final, tail = codec.decode_stream(tail, x[:, :19])
    held = codec.decode_finish(tail)
    whole = codec.decode(x)
    np.testing.assert_array_equal(final, whole[:, :40])
    assert np.abs(held - whole[:, 40:73]).max() > 0.01


def test_short_segments_and_windows(folder):
    """A window of 5 latents after every 2: the 3 known ones are 9 frames, more than a segment gives."""
    codec = HunyuanVaeCodec(weights=str(folder), segment_frames=2, window=5)
    x, decode = latents(8), decoding_tiles(pieces, Tiling()).whole
    shown = decode(x[:, :3] / SCALE)
    for end in (5, 7, 8):  # the last latent fills no segment
        window = x[:, :end][:, -(4 if end == 8 else 5) :]
        known = window.shape[1] - (1 if end == 8 else 2)
        overlap = 1 + 4 * (known - 1)
        current = decode(window / SCALE)
        for j in range(overlap):
            weight = 1 - j / (overlap - 1)
            shown[:, -overlap + j] = weight * shown[:, -overlap + j] + (1 - weight) * current[:, j]
        shown = np.concatenate([shown, current[:, overlap:]], 1)
    np.testing.assert_allclose(codec.decode(x), np.clip(shown, -1, 1), atol=1e-6)
    tail, counts = codec.decode_start(1, 8, 8), []
    for part in np.split(x, [1, 3, 5, 7], 1):
        frames, tail = codec.decode_stream(tail, part)
        counts.append(frames.shape[1])
    assert counts == [0, 0, 8, 8, 0] and codec.decode_finish(tail).shape[1] == 13


def test_samples(folder):
    video = reference_vae.video(17, 8, 8)
    mean, drawn, again, other = (
        HunyuanVaeCodec(weights=str(folder), posterior=kind, seed=seed).encode(video)
        for kind, seed in (("mean", 0), ("sample", 0), ("sample", 0), ("sample", 1))
    )
    posterior = Posterior.of(network("encode")(video))
    noise = [jax.random.normal(jax.random.fold_in(jax.random.key(0), n), (1, 1, 1, 16)) for n in range(5)]
    expected = (posterior.mean + np.exp(posterior.logvar / 2) * np.stack(noise, 1)) * SCALE
    np.testing.assert_allclose(drawn, expected, atol=1e-6)
    np.testing.assert_array_equal(drawn, again)
    assert np.abs(drawn - mean).max() > 0.1 and np.abs(drawn - other).max() > 0.1


def test_videos_of_a_batch_do_not_meet(codec):
    x = latents(5, batch=2)
    np.testing.assert_array_equal(codec.decode(x), np.concatenate([codec.decode(x[:1]), codec.decode(x[1:])]))


def test_tiles_in_space(folder):
    """Above 256 pixels: the rows that no other tile touches are those of the first tile alone.

    Unless asked, encoding has none, so that no network learns their seams.
    """
    video, x = reference_vae.video(1, 264, 8), reference_vae.latents(1, 33, 1) * SCALE
    kinds = ("none", "decode", "both")
    plain, default, tiled = (HunyuanVaeCodec(weights=str(folder), spatial_tiles=kind) for kind in kinds)
    assert HunyuanVaeCodec(weights=str(folder)) == default == ClipsData(path="", vae=str(folder)).codec()
    assert ClipsData(path="", vae=str(folder), vae_tiles="both").codec() == tiled
    rows, seamless = tiled.encode(video), plain.encode(video)
    np.testing.assert_array_equal(rows[:, :, :24], plain.encode(video[:, :, :256])[:, :, :24])
    assert rows.shape == (1, 1, 33, 1, 16) and np.abs(rows - seamless).max() > 1e-4
    np.testing.assert_array_equal(default.encode(video), seamless)
    pixels = tiled.decode(x)
    np.testing.assert_array_equal(pixels[:, :, :192], plain.decode(x[:, :, :32])[:, :, :192])
    assert pixels.shape == (1, 1, 264, 8, 3) and np.abs(pixels - plain.decode(x)).max() > 1e-4
    np.testing.assert_array_equal(default.decode(x), pixels)


def test_the_scale_is_the_weights_own(codec):
    assert codec.with_normalisation((0.0,) * 16, (2.0,) * 16) is codec
    assert codec.mean == codec.std == ()
    assert (codec.time_factor, codec.space_factor, codec.channels) == (4, 8, 16)


def test_a_spec_needs_no_weights_until_they_are_used(tmp_path):
    folder = tiny_vae.write_folder(tmp_path / "vae")
    options = {"weights": str(folder), "segment_frames": 2, "window": 4, "posterior": "sample", "seed": 3}
    codec = codecs.create("hunyuan_vae", **options)
    spec = json.loads(json.dumps(codec.spec()))
    shutil.rmtree(folder)
    again = codecs.from_spec(spec)
    assert again == codec and again.spec() == codec.spec() and again.sizes == tiny_vae.ARCHITECTURE
    with pytest.raises(InputError, match=r"vae.* does not exist: give the folder of an AutoencoderKLHunyuanVideo"):
        again.encode(normal("x", (1, 1, 8, 8, 3)))
    with pytest.raises(InputError, match=r"vae does not exist: give the folder"):
        codecs.create("hunyuan_vae", **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"weights": ""}, "needs weights: give the folder"),
        ({"posterior": "mode"}, "posterior = 'mode': use one of mean, sample"),
        ({"dtype": "float16"}, "float32, bfloat16"),
        ({"spatial_tiles": True}, "spatial_tiles = True: use one of none, decode, both"),
        ({"window": 9}, "a window longer than that"),
        ({"segment_frames": 0}, "at least one segment frame"),
        ({"architecture": {"groups": 0}}, "codec.architecture.*at least 1"),
        ({"architecture": {"width": 3}}, "codec.architecture.width is not"),
    ],
)
def test_bad_options(folder, options, message):
    with pytest.raises(InputError, match=message):
        codecs.create("hunyuan_vae", **{"weights": str(folder), **options})
