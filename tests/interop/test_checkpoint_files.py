import json

import numpy as np
import pytest

from mpjax.errors import InputError
from mpjax.interop.checkpoint_files import Checkpoint
from tests.fixtures import seeded
from tests.interop.checkpoints import BF16, write_checkpoint, write_safetensors

SMALL = {name: seeded.normal(name, shape) for name, shape in {"a": (3, 4), "b.bias": (5,), "c": (2, 1, 3)}.items()}
MIXED = SMALL | {"b.bias": SMALL["b.bias"].astype(BF16), "c": SMALL["c"].astype(np.float16)}
INDEX = "diffusion_pytorch_model.safetensors.index.json"


@pytest.mark.parametrize("shards, index", [(1, False), (2, True), (2, False)])
def test_tensors_come_back_from_one_file_and_from_shards(tmp_path, shards, index):
    folder = write_checkpoint(tmp_path / "c", MIXED, config={"in_channels": 16}, shards=shards, index=index)
    (folder / "notes.txt").write_text("not of the checkpoint")
    checkpoint = Checkpoint.open(folder)
    assert set(checkpoint.tensors) == set(MIXED) and len(checkpoint.files) == shards
    assert set(checkpoint.texts) == {"config.json"} | ({INDEX} if index else set())
    for name, array in MIXED.items():
        tensor = checkpoint.tensors[name]
        assert (tensor.shape, tensor.dtype, tensor.nbytes) == (array.shape, array.dtype, array.nbytes)
        np.testing.assert_array_equal(tensor.read(), array)
        assert not tensor.read().flags.owndata and not tensor.read().flags.writeable  # the file, not a copy


def test_a_file_alone_is_a_checkpoint(tmp_path):
    folder = write_checkpoint(tmp_path / "c", SMALL, config={"in_channels": 16})
    write_safetensors(folder / "other.safetensors", MIXED)
    checkpoint = Checkpoint.open(folder / "other.safetensors")
    assert list(checkpoint.files) == ["other.safetensors"] and checkpoint.tensors["c"].dtype == np.float16
    assert checkpoint.folder == folder and set(checkpoint.texts) == {"config.json"}


def test_an_index_decides_which_files_belong(tmp_path):
    folder = write_checkpoint(tmp_path / "c", SMALL, config=None, shards=2)
    write_safetensors(folder / "diffusion_pytorch_model.fp16.safetensors", SMALL)
    assert len(Checkpoint.open(folder).files) == 2
    write_safetensors(folder / "mpjax.safetensors", {"mpjax.x": SMALL["a"]})
    assert set(Checkpoint.open(folder).tensors) == {*SMALL, "mpjax.x"}


FIRST = "diffusion_pytorch_model-00001-of-00002.safetensors"


def header(text):
    return len(text).to_bytes(8, "little") + text


DAMAGE = {
    f"lacks {FIRST}": lambda folder, data: (folder / FIRST).unlink(),
    "cut short at": lambda folder, data: (folder / FIRST).write_bytes(data[:-1]),
    "no safetensors file, or is cut short": lambda folder, data: (folder / FIRST).write_bytes(data[:40]),
    "is no safetensors file": lambda folder, data: (folder / FIRST).write_bytes(b""),
    f"{FIRST} is no JSON object": lambda folder, data: (folder / FIRST).write_bytes(header(b"[1, 2]  ")),
    "damaged header": lambda folder, data: (folder / FIRST).write_bytes(header(b'{"a": 1}')),
    "stored as I32": lambda folder, data: write_safetensors(folder / FIRST, {"a": np.zeros(2, np.int32)}),
    "has no weight_map": lambda folder, data: (folder / INDEX).write_text(json.dumps({"metadata": {}})),
    "index.json is no JSON object": lambda folder, data: (folder / INDEX).write_text("{"),
    "index.json cannot be read": lambda folder, data: (folder / INDEX).write_bytes(b"\xff"),
}


@pytest.mark.parametrize("message", DAMAGE)
def test_a_broken_checkpoint_is_refused_when_it_is_opened(tmp_path, message):
    folder = write_checkpoint(tmp_path / "c", SMALL, shards=2)
    DAMAGE[message](folder, (folder / FIRST).read_bytes())
    with pytest.raises(InputError, match=message):
        Checkpoint.open(folder)


def test_a_tensor_must_not_occur_twice(tmp_path):
    folder = write_checkpoint(tmp_path / "c", SMALL, shards=2, index=False)
    (folder / "more.safetensors").write_bytes((folder / FIRST).read_bytes())
    with pytest.raises(InputError, match=r"holds \S+ twice"):
        Checkpoint.open(folder)


def test_what_is_no_checkpoint_is_refused(tmp_path):
    with pytest.raises(InputError, match="holds no safetensors file"):
        Checkpoint.open(tmp_path)
    with pytest.raises(InputError, match="does not exist"):
        Checkpoint.open(tmp_path / "nothing")
