import json

import numpy as np
import pytest

from mpjax import codecs
from mpjax.errors import InputError
from tests.fixtures import tiny_vae


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("identity", {}),
        ("identity", {"mean": (0.1, 0.2, 0.3), "std": (1.0, 2.0, 3.0)}),
        ("dct", {"time_factor": 2, "space_factor": 4, "channels": 3, "mean": (0.1, 0.2, 0.3), "std": (1.0, 2.0, 3.0)}),
    ],
)
def test_spec_survives_json(name, options):
    codec = codecs.create(name, **options)
    again = codecs.from_spec(json.loads(json.dumps(codec.spec())))
    assert again == codec and again.spec() == codec.spec()
    assert again.name == name
    for key, value in options.items():
        assert getattr(again, key) == value


def test_unknown_names_and_options():
    with pytest.raises(InputError, match="known codecs: dct, hunyuan_vae, identity"):
        codecs.create("wavelet")
    with pytest.raises(InputError, match="no option 'chanels'"):
        codecs.create("dct", chanels=4)
    with pytest.raises(InputError, match="'name'"):
        codecs.from_spec({"channels": 4})


def test_identity_is_the_identity():
    codec = codecs.create("identity")
    video = np.random.default_rng(0).uniform(-1, 1, (2, 5, 6, 7, 3)).astype(np.float32)
    latents = codec.encode(video)
    np.testing.assert_array_equal(latents, video)
    np.testing.assert_array_equal(codec.decode(latents), video)
    assert (codec.time_factor, codec.space_factor, codec.channels) == (1, 1, 3)
    assert codec.decode(latents * 3).max() == 1

    scaled = codec.with_normalisation((0.5, 0.0, -0.5), (2.0, 1.0, 0.5))
    np.testing.assert_allclose(scaled.encode(video), (video - [0.5, 0, -0.5]) / [2, 1, 0.5], atol=1e-6)
    np.testing.assert_allclose(scaled.decode(scaled.encode(video)), video, atol=1e-6)

    tail, parts = scaled.decode_start(2, 6, 7), []
    for i in range(5):
        frames, tail = scaled.decode_stream(tail, latents[:, i : i + 1])
        parts.append(frames)
    np.testing.assert_array_equal(np.concatenate(parts, 1), scaled.decode(latents))
    tail = scaled.encode_start(2, 6, 7)
    first, tail = scaled.encode_stream(tail, video[:, :2])
    rest, _ = scaled.encode_stream(tail, video[:, 2:])
    np.testing.assert_array_equal(np.concatenate([first, rest], 1), scaled.encode(video))


def test_an_id_tells_what_a_codec_does_and_not_where_it_lies(tmp_path):
    plain = codecs.create("dct", time_factor=2, space_factor=4, channels=3)
    name = codecs.codec_id(plain)
    assert name.startswith("dct-")
    assert codecs.codec_id(plain.with_normalisation((0.1, 0.2, 0.3), (1.0, 2.0, 3.0))) == name
    assert codecs.codec_id(codecs.create("dct", time_factor=4, space_factor=4, channels=3)) != name

    def vae(folder):
        return codecs.codec_id(codecs.create("hunyuan_vae", weights=str(folder)))

    one = tiny_vae.write_folder(tmp_path / "one" / "vae")
    two = tiny_vae.write_folder(tmp_path / "two" / "vae")
    assert vae(one) == vae(two)
    (weights,) = two.glob("*.safetensors")
    data = bytearray(weights.read_bytes())
    data[1 << 15] ^= 1  # among the bytes that are looked at
    weights.write_bytes(data)
    assert vae(one) != vae(two)
