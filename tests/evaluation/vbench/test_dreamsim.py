import json
import math

import numpy as np
import pytest
from safetensors.numpy import save_file

from mpjax.errors import InputError
from mpjax.evaluation.vbench import dreamsim
from mpjax.evaluation.vbench.consistency import fidelity
from tests.evaluation.vbench.golden import golden
from tests.evaluation.vbench.published import metric_from_files
from tests.fixtures import vbench_cases


@pytest.mark.slow
def test_as_the_package(tmp_path):
    metric = metric_from_files("i2v_background", tmp_path)
    picture = metric.picture_probe(vbench_cases.picture("dreamsim image")[None, None])
    frames = metric.probe(vbench_cases.frames("dreamsim", 2, *vbench_cases.SIZE)[:, None])
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
