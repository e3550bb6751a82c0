import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import save_file

from mpjax.errors import InputError
from mpjax.evaluation.vbench import dreamsim
from mpjax.evaluation.vbench.consistency import fidelity
from mpjax.evaluation.vbench.vit import ViT
from tests.evaluation.vbench.golden import golden, torch_shapes
from tests.fixtures import vbench_cases

SHAPE = jax.ShapeDtypeStruct((1, 224, 224, 3), jnp.float32)


def write_files(folder):
    """The four files of the ensemble, with the weights of the golden numbers."""
    paths = []
    for name, config in zip(("dino", "dreamsim_clip", "dreamsim_open_clip"), dreamsim.CONFIGS, strict=True):
        shapes = torch_shapes(ViT(config), SHAPE)
        path = folder / f"{name}.safetensors"
        save_file({each: vbench_cases.weight(each, shape, name) for each, shape in shapes.items()}, path)
        paths.append(path)
    lora = folder / "ensemble_lora"
    lora.mkdir()
    (lora / "adapter_config.json").write_text(json.dumps({"r": 16, "lora_alpha": 8}))
    tensors = {}
    for index in range(3):
        for block in range(12):
            place = f"base_model.model.extractor_list.{index}.model.blocks.{block}.attn.qkv"
            for name, shape in (("lora_A.weight", (16, 768)), ("lora_B.weight", (2304, 16))):
                full = f"{place}.{name}"
                tensors[full] = vbench_cases.weight(full, shape, "dreamsim_lora")
    save_file(tensors, lora / "adapter_model.safetensors")
    return [*paths, lora]


@pytest.mark.slow
def test_as_the_package(tmp_path):
    files = write_files(tmp_path)
    picture = dreamsim.probe(*files, picture=True)(vbench_cases.picture("dreamsim image")[None, None])
    frames = dreamsim.probe(*files, picture=False)(vbench_cases.frames("dreamsim", 2, *vbench_cases.SIZE)[:, None])
    reference = golden()["dreamsim.features"] * math.sqrt(1792)
    np.testing.assert_allclose(frames * math.sqrt(1792), reference[1:], atol=1e-3)
    np.testing.assert_allclose(picture * math.sqrt(1792), reference[:1], atol=2e-2)  # Pillow's last bit
    assert fidelity(picture, frames) == pytest.approx(float(golden()["dreamsim.score"][0]), abs=1e-4)


def test_an_adapter_of_something_else_is_refused(tmp_path):
    lora = tmp_path / "ensemble_lora"
    with pytest.raises(InputError, match="no adapter_model"):
        dreamsim.read_params(tmp_path, tmp_path, tmp_path, lora)
    lora.mkdir()
    save_file({"x": np.zeros(1, np.float32)}, lora / "adapter_model.safetensors")
    with pytest.raises(InputError, match="adapter_config"):
        dreamsim.read_params(tmp_path, tmp_path, tmp_path, lora)
    (lora / "adapter_config.json").write_text(json.dumps({"r": 16, "lora_alpha": 8}))
    save_file({"x": np.zeros(1, np.float32)}, tmp_path / "dino.safetensors")
    with pytest.raises(InputError, match="no adapter of DreamSim"):
        dreamsim.read_params(tmp_path / "dino.safetensors", tmp_path, tmp_path, lora)
