import json

import jax
import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from mpjax.errors import InputError
from mpjax.interop.vae_weights import TENSORS, load_vae_params, read_vae_architecture
from mpjax.models.vae import VaeArchitecture
from tests.fixtures import reference_vae, tiny_vae


@pytest.fixture
def folder(tmp_path):
    return tiny_vae.write_folder(tmp_path / "vae")


def test_a_folder_and_its_file(folder):
    assert read_vae_architecture(folder) == tiny_vae.ARCHITECTURE
    assert read_vae_architecture(folder / TENSORS) == VaeArchitecture()
    for path in (folder, folder / TENSORS):
        params = load_vae_params(path, tiny_vae.ARCHITECTURE)
        jax.tree.map(np.testing.assert_array_equal, params, tiny_vae.params())
    kernel = params["encoder"]["down_0_downsample"]["kernel"]
    stored = tiny_vae.tensors()["encoder.down_blocks.0.downsamplers.0.conv.conv.weight"]
    assert kernel[2, 0, 1, 3, 5] == stored[5, 3, 2, 0, 1]


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_half_precision_is_read_as_float32(tmp_path, dtype):
    params = load_vae_params(tiny_vae.write_folder(tmp_path / "vae", dtype=dtype), tiny_vae.ARCHITECTURE)
    expected = jax.tree.map(lambda x: x.astype(dtype).astype(np.float32), tiny_vae.params())
    jax.tree.map(np.testing.assert_array_equal, params, expected)
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {np.dtype(np.float32)}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"_class_name": "AutoencoderKLWan"}, "is of class AutoencoderKLWan: give the folder of an Auto"),
        ({"temporal_compression_ratio": 8}, "temporal_compression_ratio = 8, but only 4"),
        ({"mid_block_add_attention": False}, "only True"),
        ({"block_out_channels": [8, 16]}, "config.json.*widths"),
        ({"block_out_channels": 8}, "config.json.*widths"),
    ],
)
def test_other_networks_are_refused(tmp_path, changes, message):
    with pytest.raises(InputError, match=message):
        read_vae_architecture(tiny_vae.write_folder(tmp_path / "vae", **changes))


def test_missing_and_damaged_files(folder, tmp_path):
    with pytest.raises(InputError, match=r"nowhere does not exist: give the folder"):
        read_vae_architecture(tmp_path / "nowhere")
    with pytest.raises(InputError, match=r"nowhere does not exist: give the folder"):
        load_vae_params(tmp_path / "nowhere", tiny_vae.ARCHITECTURE)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"config.json is no readable config"):
        read_vae_architecture(tmp_path / "empty")
    with pytest.raises(InputError, match="empty holds no safetensors file"):
        load_vae_params(tmp_path / "empty", tiny_vae.ARCHITECTURE)
    with pytest.raises(InputError, match=r"\[8"):
        load_vae_params(folder, VaeArchitecture(widths=(16, 16, 16, 16), layers=1, groups=4))
    tensors = load_file(folder / TENSORS)
    tensors.pop("quant_conv.bias")
    save_file(tensors, folder / TENSORS)
    with pytest.raises(InputError, match=r"quant_conv.bias"):
        load_vae_params(folder, tiny_vae.ARCHITECTURE)
    (folder / TENSORS).write_bytes(b"half")
    with pytest.raises(InputError, match="is no safetensors file, or is cut short"):
        load_vae_params(folder, tiny_vae.ARCHITECTURE)


@pytest.mark.parity
def test_what_diffusers_saves(tmp_path):
    pytest.importorskip("torch")
    reference_vae.reference().save_pretrained(tmp_path / "vae")
    assert "_diffusers_version" in json.loads((tmp_path / "vae" / "config.json").read_text())
    architecture = read_vae_architecture(tmp_path / "vae")
    assert architecture == tiny_vae.ARCHITECTURE
    jax.tree.map(np.testing.assert_array_equal, load_vae_params(tmp_path / "vae", architecture), tiny_vae.params())
