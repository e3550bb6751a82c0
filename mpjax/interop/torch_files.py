"""Tensors of the files that PyTorch writes (`.pth`, `.pt`): known by name, read when they are asked for.

Three containers are in use. Zip (since PyTorch 1.6): `…/data.pkl` and one stored record a storage, `…/data/KEY`.
TorchScript: the same, whose pickle is a tree of modules instead of a dict. Legacy: five pickles one behind the other
(magic number, version, system, the object, keys of the storages), then each storage with its length before it.
"""

import dataclasses
import io
import struct
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from mpjax.errors import InputError
from mpjax.interop.checkpoint_files import Checkpoint, Tensor
from mpjax.interop.tensor_pickle import LONGEST, Inert, Refused, Storage, StridedTensor, run

LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
DEEPEST = 200  # modules within modules
MOST_STORAGES = 1_000_000
# What `zipfile` raises of a damaged archive, and the pieces of the containers when they are cut.
_DAMAGE = (zipfile.BadZipFile, OSError, EOFError, ValueError, KeyError, NotImplementedError, RuntimeError, struct.error)


def open_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a file by their dotted names, in the file's order: `.safetensors`, or any of PyTorch's containers.

    `{"state_dict": {"a.weight": …}}` gives `state_dict.a.weight`; a TorchScript module gives those of its state dict.

    Raises:
        InputError: not such a file, damaged, or one whose pickle does more than hold tensors.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file; check the path")
    if path.suffix == ".safetensors":
        return dict(Checkpoint.open(path).tensors)
    try:
        if zipfile.is_zipfile(path):
            holder, read = _open_zip(path)
        else:
            holder, read = _open_legacy(path)
        return {
            name: Tensor(
                name=name,
                shape=tensor.shape,
                dtype=tensor.storage.dtype,
                read=lambda tensor=tensor: _strided(tensor, read(tensor.storage)),  # type: ignore[misc]
            )
            for name, tensor in _walk(holder)
        }
    except Refused as error:
        raise InputError(f"{path} {error}: download it again from its authors") from error
    except _DAMAGE as error:
        raise InputError(f"{path} is damaged, or no file of PyTorch's: download it again from its authors") from error


Read = Callable[[Storage], np.ndarray]


def _strided(tensor: StridedTensor, numbers: np.ndarray) -> np.ndarray:
    strides = tuple(stride * numbers.itemsize for stride in tensor.strides)
    return np.lib.stride_tricks.as_strided(numbers[tensor.offset :], tensor.shape, strides, writeable=False)


def _walk(holder: Any) -> Iterator[tuple[str, StridedTensor]]:
    """Tensors below dicts and modules, by path; a dict that is held twice is visited once."""
    seen: set[int] = set()

    def visit(value: Any, name: str, depth: int) -> Iterator[tuple[str, StridedTensor]]:
        if isinstance(value, StridedTensor):
            yield name, value
            return
        items = value.state if isinstance(value, Inert) else value
        if not isinstance(items, dict) or id(items) in seen:
            return
        if depth > DEEPEST:
            raise Refused(f"holds modules nested deeper than {DEEPEST}")
        seen.add(id(items))
        for key, each in items.items():
            yield from visit(each, f"{name}.{key}" if name else str(key), depth + 1)

    return visit(holder, "", 0)


def _open_zip(path: Path) -> tuple[Any, Read]:
    with zipfile.ZipFile(path) as archive:
        pickles = [name for name in archive.namelist() if name.endswith("/data.pkl") or name == "data.pkl"]
        if len(pickles) != 1:
            raise Refused("is a zip archive without PyTorch's data.pkl")
        if archive.getinfo(pickles[0]).file_size > LONGEST:
            raise Refused(f"holds a pickle of more than {LONGEST} bytes")
        folder = pickles[0].removesuffix("data.pkl")
        order = f"{folder}byteorder"
        # Its size first: the rest of a packed file of zeros would take any amount of memory.
        if order in archive.namelist() and (
            archive.getinfo(order).file_size != len(b"little") or archive.read(order) != b"little"
        ):
            raise Refused("is written in big-endian order")
        holder = run(io.BytesIO(archive.read(pickles[0])))

    def read(storage: Storage) -> np.ndarray:
        with zipfile.ZipFile(path) as archive:
            name = f"{folder}data/{storage.key}"
            info = archive.getinfo(name) if name in archive.namelist() else None
            expected = storage.length * storage.dtype.itemsize
            # Stored, so that the memory it takes is at most that of the file.
            if info is None or info.compress_type != zipfile.ZIP_STORED or info.file_size != expected:
                raise InputError(f"{path} lacks the numbers {name}: download it again from its authors")
            try:
                return np.frombuffer(archive.read(info), storage.dtype)
            except _DAMAGE as error:
                raise InputError(f"{path}: {name} is damaged; download it again from its authors") from error

    return holder, read


@dataclasses.dataclass(frozen=True)
class _Place:
    offset: int
    length: int


def _open_legacy(path: Path) -> tuple[Any, Read]:
    with path.open("rb") as file:
        # Nothing is read before the first bytes look like one: the instructions PROTO and LONG1.
        if file.read(3) != b"\x80\x02\x8a":
            raise Refused("is no file of PyTorch's")
        file.seek(0)
        if run(file) != LEGACY_MAGIC or run(file) != 1001:
            raise Refused("is no file of PyTorch's")
        system = run(file)
        if not isinstance(system, dict) or system.get("little_endian") is not True:
            raise Refused("is written in big-endian order")
        storages: dict[str, Storage] = {}
        holder, keys = run(file, storages), run(file)
        if not isinstance(keys, list) or len(keys) > MOST_STORAGES:
            raise Refused("holds a damaged list of storages")
        size = path.stat().st_size
        places: dict[str, _Place] = {}
        for key in map(str, keys):
            (length,) = struct.unpack("<q", file.read(8))
            if key not in storages:
                raise Refused("holds numbers of no tensor")  # whose size is not known
            places[key] = _Place(file.tell(), length)
            end = file.tell() + length * storages[key].dtype.itemsize
            if length < 0 or end > size:
                raise Refused("is cut short")
            file.seek(end)

    def read(storage: Storage) -> np.ndarray:
        place = places.get(storage.key)
        if place is None or place.length != storage.length:
            raise InputError(f"{path} lacks the numbers {storage.key}: download it again from its authors")
        with path.open("rb") as file:
            file.seek(place.offset)
            return np.fromfile(file, storage.dtype, storage.length)

    return holder, read
