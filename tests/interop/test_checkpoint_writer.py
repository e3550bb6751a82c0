import json

import numpy as np
import pytest

from mpjax.interop.checkpoint_files import Checkpoint, TensorInfo
from mpjax.interop.checkpoint_writer import CheckpointWriter, default_files, write_index
from tests.fixtures import seeded
from tests.interop.checkpoints import BF16, write_safetensors

ARRAYS = {
    "z.weight": seeded.normal("z.weight", (3, 5)),
    "a.weight": seeded.normal("a.weight", (4, 2)).astype(BF16),
    "m.bias": seeded.normal("m.bias", (7,)),
    "é.bias": seeded.normal("é.bias", (1,)).astype(np.float16),
}
INFOS = [TensorInfo(name=name, shape=array.shape, dtype=array.dtype) for name, array in ARRAYS.items()]


def test_files_are_those_of_the_safetensors_library_in_whatever_order_they_are_filled(tmp_path):
    (tmp_path / "ours").mkdir()
    files = default_files(INFOS)
    with CheckpointWriter(tmp_path / "ours", INFOS, files, {}) as writer:
        for name in reversed(ARRAYS):
            writer.write(name, ARRAYS[name])
    write_safetensors(tmp_path / "theirs", ARRAYS)
    (name,) = files
    assert (tmp_path / "ours" / name).read_bytes() == (tmp_path / "theirs").read_bytes()
    with (
        CheckpointWriter(tmp_path / "ours", INFOS, files, {}) as writer,
        pytest.raises(ValueError, match=r"announced float32 \(7,\)"),
    ):
        writer.write("m.bias", ARRAYS["m.bias"][:3])


def test_shards_stay_below_the_limit_and_our_own_tensors_apart(tmp_path):
    own = TensorInfo(name="mpjax.squeeze.scale", shape=(2,), dtype=np.dtype(np.float32))
    files = default_files([*INFOS, own], limit=70)
    stem = "diffusion_pytorch_model"
    assert files == {
        f"{stem}-00001-of-00002.safetensors": ("z.weight",),
        f"{stem}-00002-of-00002.safetensors": ("m.bias", "a.weight", "é.bias"),
        "mpjax.safetensors": ("mpjax.squeeze.scale",),
    }
    write_index(tmp_path, [*INFOS, own], files)
    index = json.loads((tmp_path / f"{stem}.safetensors.index.json").read_text())
    assert index["metadata"]["total_size"] == sum(array.nbytes for array in ARRAYS.values())
    assert index["weight_map"]["m.bias"] == f"{stem}-00002-of-00002.safetensors" and len(index["weight_map"]) == 4
    with CheckpointWriter(tmp_path, [*INFOS, own], files, {}) as writer:
        for name, array in (ARRAYS | {own.name: np.ones(2, np.float32)}).items():
            writer.write(name, array)
    read = Checkpoint.open(tmp_path)
    assert all((read.tensors[name].read() == array).all() for name, array in ARRAYS.items())


def test_one_file_needs_no_index(tmp_path):
    write_index(tmp_path, INFOS, default_files(INFOS))
    assert not list(tmp_path.iterdir())
