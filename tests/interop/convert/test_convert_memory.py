"""Memory of a conversion: the largest array and a tenth of the checkpoint, however large that is."""

import filecmp
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from mpjax.interop.checkpoint_files import TensorInfo
from mpjax.interop.checkpoint_writer import CheckpointWriter, default_files, write_index
from mpjax.interop.transformer_config import to_config
from mpjax.interop.transformer_names import parameter_shapes, transformer_entries
from mpjax.models.architecture import Architecture
from mpjax.models.quantization import Quantization, quantized_shapes
from tests.interop.checkpoints import F32
from tests.training.runs import ROOT

WIDE = Architecture(
    heads=8, dual_blocks=10, text_width=256, pooled_width=64, image_width=64, memory=None, encoders=None
)


def write_random(folder):
    """A sharded float32 checkpoint of normal numbers; returns its bytes and those of the largest array."""
    entries = transformer_entries(WIDE)
    infos = [TensorInfo(name=name, shape=entry.shape, dtype=F32) for entry in entries for name in entry.names]
    files = default_files(infos, limit=2 * 10**9)
    folder.mkdir()
    (folder / "config.json").write_text(to_config(WIDE))
    write_index(folder, infos, files)
    rng = np.random.default_rng(0)
    with CheckpointWriter(folder, infos, files, {}) as writer:
        for info in infos:
            writer.write(info.name, rng.standard_normal(info.shape, np.float32))
    largest = max(int(np.prod(entry.array_shape)) for entry in entries) * F32.itemsize
    return sum(info.nbytes for info in infos), largest


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/smaps_rollup").is_file(), reason="anonymous memory is read from Linux's /proc")
def test_a_conversion_holds_little_in_memory(tmp_path):
    total, largest = write_random(tmp_path / "in")
    assert total >= 4 * 10**9
    limit = 1.1 * largest + 0.1 * total

    def within(limit, name, source, target=""):
        script = Path(__file__).with_name("measured.py")
        command = [sys.executable, str(script), name, str(source), str(target)]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=3600, check=False)
        assert done.returncode == 0, done.stderr[-3000:]
        result = json.loads(done.stdout.splitlines()[-1])
        speed = total / 1e6 / result["seconds"]
        print(f"{name}: {result['peak'] / 1e6:.0f} MB of {limit / 1e6:.0f} MB allowed, {speed:.0f} MB/s")
        return result["peak"] <= limit

    assert within(limit, "import", tmp_path / "in", tmp_path / "run")
    assert within(limit, "export", tmp_path / "run", tmp_path / "out")
    assert within(total + limit, "load", tmp_path / "run")  # the device holds the weights themselves
    shapes = quantized_shapes(Quantization(), parameter_shapes(WIDE))  # what is not quantised is float32
    eight = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(shapes))
    margin = 1.1 * largest / 4 + 0.1 * total
    assert eight + margin < 0.7 * total
    assert within(eight + margin, "quantize", tmp_path / "run")
    names = [path.name for path in (tmp_path / "in").iterdir()]
    assert len(names) > 4 and filecmp.cmpfiles(tmp_path / "in", tmp_path / "out", names, shallow=False)[0] == names
    shutil.rmtree(tmp_path / "out")
    assert within(total + limit, "place", tmp_path / "in")  # the device holds the checkpoint itself
    shutil.rmtree(tmp_path)
