"""What quantised weights cost, measured on a small network and counted by hand."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import quantization
from mpjax.models.quantization import Quantization, dequantize

SMOKE = "--config=configs/framepack_f1_lora.py:smoke"


def rows_of(tmp_path, part, *flags):
    assert quantization.main([f"--part={part}", f"--out={tmp_path}", *flags], lambda _: None) == 0
    found = json.loads((tmp_path / f"{part}.json").read_text())
    lines = (tmp_path / f"{part}.md").read_text().splitlines()
    assert len(lines) == 2 + len(found["rows"]) and found["seed"] == 0
    return found["rows"]


def test_bytes_of_the_13b_by_hand(tmp_path):
    """24 d² a dual block and 12 d² a single one; of its modulations 12 d² and 3 d²; d = 3072."""
    rows = rows_of(tmp_path, "bytes", "--config=configs/framepack_f1_lora.py")
    d = 3072
    kernels, modulations = (20 * 24 + 40 * 12) * d**2, (20 * 12 + 40 * 3) * d**2
    for row in rows:
        chosen = 0 if row["block"] is None else kernels + row["modulations"] * modulations
        scales = 0 if row["block"] is None else 4 * chosen // row["block"]
        assert row["quantized"] == chosen
        assert row["bytes"] == 2 * (row["parameters"] - chosen) + chosen + scales
    assert len(rows) == 9 and 25.5e9 < rows[0]["bytes"] < 26e9


@pytest.mark.slow
@pytest.mark.parametrize("part", ["blocks", "segment"])
def test_errors_of_a_small_network(tmp_path, part):
    """int8 is some times nearer than fp8, and no result is that of bfloat16 itself."""
    rows = rows_of(tmp_path, part, SMOKE)
    error = {name: [] for name in ("bfloat16", "int8", "fp8")}
    for row in rows:
        error[row["kernels"]].append(row["relative_l2_from_float32"])
        assert (row["relative_l2_from_bfloat16"] > 0) == (row["kernels"] != "bfloat16")
    assert len(rows) == (27 if part == "blocks" else 9)
    assert max(error["int8"]) < 0.02 and 1.5 * max(error["int8"]) < min(error["fp8"]) < 0.05
    assert min(error["bfloat16"]) < min(error["int8"])


def test_weights_with_outliers():
    params = {
        "blocks": {"up": {"kernel": jnp.ones((500, 400)), "bias": jnp.ones(4)}},
        "head": {"kernel": jnp.ones((2, 2))},
    }
    drawn = quantization.with_outliers(params, jax.random.key(0))
    kernel = np.asarray(drawn["blocks"]["up"]["kernel"])
    assert set(np.unique(kernel)) == {1.0, 8.0}
    assert abs((kernel == 8).mean() - 1e-3) < 4 * (1e-3 / kernel.size) ** 0.5
    assert (drawn["head"]["kernel"] == 1).all() and (drawn["blocks"]["up"]["bias"] == 1).all()


def test_quantised_as_from_files():
    params = {"blocks": {"x": {"up": {"kernel": jnp.linspace(-1, 1, 48).reshape(2, 8, 3).astype(jnp.bfloat16)}}}}
    entry = quantization.quantized(Quantization(block=4), params)["blocks"]["x"]["up"]["quantized"]
    assert entry["scales"].shape == (2, 2, 3)
    kernel = np.asarray(params["blocks"]["x"]["up"]["kernel"], np.float64)
    assert np.abs(np.asarray(dequantize(entry), np.float64) - kernel).max() <= 0.5 / 127 + 1e-7


def test_what_is_refused(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert quantization.main(["--part=bytes", SMOKE, f"--out={tmp_path / 'file'}"]) == 2
    assert "is a file" in capsys.readouterr().err
