import contextlib
import io
import os
import pickle
import random
import sys
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from mpjax.errors import InputError
from mpjax.interop.tensor_pickle import Inert, Refused, run
from mpjax.interop.torch_files import open_tensors
from tests.fixtures import torch_containers

FIXTURES = Path(__file__).parents[1] / "fixtures"
FILES = {"zip": "torch_zip.pth", "legacy": "torch_legacy.pth", "script": "torch_script.pt"}


def truth():
    said = load_file(FIXTURES / "vbench.safetensors")
    return {name.removeprefix("tiny."): array for name, array in said.items() if name.startswith("tiny.")}


@pytest.mark.parametrize("container", ["zip", "legacy"])
def test_state_dicts(container):
    tensors = open_tensors(FIXTURES / FILES[container])
    assert set(tensors) == {f"state_dict.{name}" for name in truth()}
    for name, array in truth().items():
        tensor = tensors[f"state_dict.{name}"]
        np.testing.assert_array_equal(np.asarray(tensor.read(), np.float32).reshape(array.shape), array)
        assert tensor.read().shape == tensor.shape
    assert tensors["state_dict.scale"].shape == () and tensors["state_dict.view"].shape == (3, 3)
    assert tensors["state_dict.visual.0.weight"].dtype == np.float16
    assert tensors["state_dict.brain"].dtype.name == "bfloat16"


def test_a_torchscript_module_has_the_names_of_its_state_dict():
    tensors = open_tensors(FIXTURES / FILES["script"])
    expected = {name: array for name, array in truth().items() if name not in ("view", "brain")}
    assert set(expected) <= set(tensors)
    for name, array in expected.items():
        np.testing.assert_array_equal(np.asarray(tensors[name].read(), np.float32).reshape(array.shape), array)


def test_safetensors(tmp_path):
    save_file({"a.weight": np.ones((2, 3), np.float32)}, tmp_path / "x.safetensors")
    assert open_tensors(tmp_path / "x.safetensors")["a.weight"].read().sum() == 6


class Evil:
    """Unpickled by `pickle`, it writes a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


@pytest.mark.parametrize("protocol", range(5))
def test_nothing_is_called(tmp_path, protocol):
    data = pickle.dumps({"weights": Evil(tmp_path / "called")}, protocol)
    found = run(io.BytesIO(data))["weights"]
    assert isinstance(found, Inert) and not (tmp_path / "called").exists()
    with zipfile.ZipFile(tmp_path / "evil.pth", "w") as archive:
        archive.writestr("evil/data.pkl", data)
    assert open_tensors(tmp_path / "evil.pth") == {}
    assert not (tmp_path / "called").exists()
    pickle.loads(data)  # the test would see it
    assert (tmp_path / "called").exists()


def pickled(**change):
    return b"\x80\x02" + torch_containers.dictionary({"w": torch_containers.tensor(**change)}) + b"."


FOUR = (("0", np.arange(4, dtype=np.float32).tobytes()),)


def as_file(path, data, records=FOUR, method=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", method) as archive:
        archive.writestr("x/data.pkl", data)
        for key, record in records:
            archive.writestr(f"x/data/{key}", record)
    return path


def test_a_tensor_by_hand(tmp_path):
    tensors = open_tensors(as_file(tmp_path / "a.pth", pickled()))
    np.testing.assert_array_equal(tensors["w"].read(), [[0, 1], [2, 3]])


@pytest.mark.parametrize(
    "change",
    [
        {"shape": (3, 2)},
        {"offset": 1},
        {"offset": -1},
        {"strides": (3, 1)},
        {"strides": (-1, 1)},
        {"shape": (1 << 40,), "strides": (0,)},
        {"shape": (2, 2, 2)},
        {"name": "NoStorage"},
        {"kind": "other"},
        {"length": -4},
    ],
)
def test_tensors_beyond_their_numbers_are_refused(tmp_path, change):
    with pytest.raises(InputError, match="download it again"):
        open_tensors(as_file(tmp_path / "a.pth", pickled(**change)))


def test_records_that_do_not_fit_are_refused(tmp_path):
    for records in ((), (("0", b"123"),), (("1", bytes(16)),)):
        tensors = open_tensors(as_file(tmp_path / "a.pth", pickled(), records))
        with pytest.raises(InputError, match="lacks the numbers"):
            tensors["w"].read()
    packed = as_file(tmp_path / "b.pth", pickled(), (("0", bytes(16)),), zipfile.ZIP_DEFLATED)
    with pytest.raises(InputError, match="lacks the numbers"):
        open_tensors(packed)["w"].read()


def test_a_word_for_the_byte_order_is_not_unpacked_beyond_its_length(tmp_path):
    path = as_file(tmp_path / "a.pth", pickled())
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x/byteorder", bytes(20_000_000))
    tracemalloc.start()
    with pytest.raises(InputError, match="big-endian"):
        open_tensors(path)
    assert tracemalloc.get_traced_memory()[1] < 5_000_000
    tracemalloc.stop()
    good = as_file(tmp_path / "b.pth", pickled())
    with zipfile.ZipFile(good, "a") as archive:
        archive.writestr("x/byteorder", "little")
    assert set(open_tensors(good)) == {"w"}


@pytest.mark.parametrize(
    "data", [b"", b"\x80\x02", b"hello", bytes(1000), b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.", b"PK\x03\x04"]
)
def test_other_files_are_refused_in_one_sentence(tmp_path, data):
    (tmp_path / "a.pth").write_bytes(data)
    with pytest.raises(InputError, match=r"a\.pth .*download it again"):
        open_tensors(tmp_path / "a.pth")


def test_keys_of_nested_tuples_would_take_for_ever():
    doubled = b"q\x00h\x00\x86"  # (x, x), 60 times: its hash visits 2^60 ones
    bomb = b"\x80\x02}(K\x01" + 60 * doubled + b"K\x01u."
    with pytest.raises(Refused, match="as a key"):
        run(io.BytesIO(bomb))


EVENTS: list[str] = []
WATCHED = ("exec", "compile", "import", "os.", "subprocess.", "shutil.", "socket.", "ctypes.", "marshal.", "pickle.")


def _watch(event, _):
    if EVENTS and event.startswith(WATCHED) and event not in ("os.listdir", "os.scandir"):
        EVENTS.append(event)


@pytest.mark.parametrize("container", FILES)
def test_damaged_files_give_one_sentence_and_call_nothing(container, tmp_path):
    original = (FIXTURES / FILES[container]).read_bytes()
    path = tmp_path / "a.pth"
    for tensor in open_tensors(FIXTURES / FILES[container]).values():
        tensor.read()  # what is imported late is imported now
    sys.addaudithook(_watch)
    dice = random.Random(0)
    refused = 0
    for _ in range(250):
        data = bytearray(original)
        for _ in range(dice.randint(1, 6)):
            match dice.randrange(4):
                case 0:
                    data[dice.randrange(len(data))] = dice.randrange(256)
                case 1:
                    del data[dice.randrange(len(data)) :]
                    data += b"\0"
                case 2:
                    at = dice.randrange(len(data))
                    data[at:at] = dice.randbytes(dice.randint(1, 8))
                case 3:
                    at = dice.randrange(len(data))
                    data[at : at + dice.randint(1, 8)] = b""
                    data += b"\0"
        path.write_bytes(data)
        EVENTS[:] = ["on"]
        try:
            for tensor in open_tensors(path).values():
                tensor.read()
        except InputError as error:
            refused += 1
            assert str(path) in str(error)
        finally:
            seen, EVENTS[:] = EVENTS[1:], []
        assert seen == []
    assert refused > 100


def test_the_pickle_itself_fuzzed():
    """Inside a zip most damage is found by its checksum; here every byte reaches the machine."""
    with zipfile.ZipFile(FIXTURES / FILES["zip"]) as archive:
        original = archive.read(next(name for name in archive.namelist() if name.endswith("data.pkl")))
    dice = random.Random(1)
    for _ in range(3000):
        data = bytearray(original)
        for _ in range(dice.randint(1, 4)):
            data[dice.randrange(len(data))] = dice.randrange(256)
        with contextlib.suppress(Refused):
            run(io.BytesIO(bytes(data)))
