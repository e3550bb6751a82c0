"""PyTorch checkpoints on disk: directories of safetensors, read in place a tensor at a time.

A safetensors file is 8 bytes of header length (little endian), a JSON header that says dtype, shape and place of every
tensor, and the tensors. It is mapped into memory, so what is read stays file-backed and only while it is looked at.
"""

import dataclasses
import functools
import hashlib
import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from mpjax.errors import InputError

WEIGHTS = "diffusion_pytorch_model.safetensors"
INDEX = f"{WEIGHTS}.index.json"
CONFIG = "config.json"
OWN_WEIGHTS = "mpjax.safetensors"  # the tensors that no other implementation has
OWN_FILE = "mpjax.json"  # what `config.json` cannot say

# In the order in which the safetensors library lays out a file.
DTYPES: dict[str, np.dtype] = {
    "I64": np.dtype(np.int64),
    "F64": np.dtype(np.float64),
    "F32": np.dtype(np.float32),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "F16": np.dtype(np.float16),
}
DTYPE_NAMES = {dtype: name for name, dtype in DTYPES.items()}
# Of a weight file as much as this is hashed, every so many bytes: 16 GB in a second.
SAMPLE, SAMPLE_EVERY = 1 << 16, 1 << 24
LONGEST_HEADER = 100_000_000  # bytes, the limit of the format


@dataclasses.dataclass(frozen=True, kw_only=True)
class TensorInfo:
    """What a header says of a tensor.

    Attributes:
        name: as the checkpoint calls it.
        shape: of the tensor.
        dtype: float16, bfloat16, float32 or float64; of the scalars in some LoRA files int64.
    """

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype

    @property
    def nbytes(self) -> int:
        """Bytes it takes."""
        return math.prod(self.shape) * self.dtype.itemsize


@dataclasses.dataclass(frozen=True, kw_only=True)
class Tensor(TensorInfo):
    """One tensor of a checkpoint.

    Attributes:
        read: gives it, often as a view of the file; not to be written to.
    """

    read: Callable[[], np.ndarray]


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Checkpoint:
    """A directory of safetensors, or one file, opened: headers are read, tensors are not.

    Attributes:
        folder: where it lies.
        tensors: by name.
        files: names of the tensors in each file, in their order there.
        metadata: what each file says of itself (`__metadata__`).
        texts: `config.json` and the index of shards as they are, by file name; either may be absent.
    """

    folder: Path
    tensors: Mapping[str, Tensor]
    files: Mapping[str, tuple[str, ...]]
    metadata: Mapping[str, dict[str, str]]
    texts: Mapping[str, str]

    @classmethod
    def open(cls, path: Path) -> "Checkpoint":
        """Opens a file, or of a directory the shards that its index names, or else all `*.safetensors`.

        Where there is no index, `diffusion_pytorch_model.safetensors` is the whole checkpoint. `mpjax.safetensors` in a
        directory belongs to it too, and `config.json` beside a file.

        Raises:
            InputError: nothing is there, a shard is missing or cut short, a tensor occurs twice or is no float.
        """
        folder = path.parent if path.is_file() else path
        names, texts = ([path.name], {}) if path.is_file() else file_names(folder)
        tensors: dict[str, Tensor] = {}
        files, metadata = {}, {}
        for file in names:
            found, metadata[file] = _open_file(folder / file)
            for tensor in found:
                if tensor.name in tensors:
                    raise InputError(f"{folder} holds {tensor.name} twice: leave the files of one checkpoint there")
                tensors[tensor.name] = tensor
            files[file] = tuple(tensor.name for tensor in found)
        if (folder / CONFIG).is_file():
            texts[CONFIG] = _read_text(folder / CONFIG)
        return cls(folder=folder, tensors=tensors, files=files, metadata=metadata, texts=texts)


def sampled_hash(paths: tuple[Path, ...]) -> str:
    """A hash of files: their names and sizes, and samples all over their content."""
    digest = hashlib.sha256()
    for path in paths:
        size = path.stat().st_size
        digest.update(f"{path.parent.name}/{path.name} {size} ".encode())
        with path.open("rb") as file:
            for start in range(0, size, SAMPLE_EVERY):
                file.seek(start)
                digest.update(file.read(SAMPLE))
    return digest.hexdigest()[:32]


def transformer_place(source: Path) -> Path:
    """Where the transformer lies: `transformer/` in the directory of a diffusers pipeline, else `source` itself."""
    return source / "transformer" if (source / "transformer").is_dir() else source


def own_description(place: Path) -> dict[str, Any] | None:
    """What an export of this package says beside `config.json`; None for checkpoints of others and for single files.

    Raises:
        InputError: it is damaged.
    """
    path = place / OWN_FILE
    if not path.is_file():
        return None
    own = read_json(_read_text(path), path)
    for name in ("model", "codec", "fps", "height", "width"):
        if name not in own:
            raise InputError(f"{path} does not say {name}: copy the checkpoint again, or remove that file")
    return own


def read_json(text: str, path: Path) -> dict[str, Any]:
    """A JSON object.

    Raises:
        InputError: `text`, which was read from `path`, is none.
    """
    try:
        value = json.loads(text)
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise InputError(f"{path} is no JSON object: copy the checkpoint again")
    return value


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read as UTF-8 text: copy the checkpoint again") from error


def file_names(folder: Path) -> tuple[list[str], dict[str, str]]:
    """The names of a checkpoint's safetensors files, and its index as {file name: text} if it has one.

    Raises:
        InputError: nothing is there, or the index is damaged or names files that are missing.
    """
    if not folder.is_dir():
        raise InputError(f"{folder} does not exist: give a directory of safetensors files, or one such file")
    index = next(iter(sorted(folder.glob("*.safetensors.index.json"))), None)
    own = [OWN_WEIGHTS] if (folder / OWN_WEIGHTS).is_file() else []
    if index is not None:
        text = _read_text(index)
        weight_map = read_json(text, index).get("weight_map")
        if not isinstance(weight_map, dict):
            raise InputError(f"{index} has no weight_map: copy the checkpoint again")
        names = sorted({str(name) for name in weight_map.values()})
        missing = [name for name in names if not (folder / name).is_file()]
        if missing:
            raise InputError(f"{folder} lacks {', '.join(missing)}, which {index.name} names: copy the missing shards")
        return [*names, *own], {index.name: text}
    if (folder / WEIGHTS).is_file():
        return [WEIGHTS, *own], {}
    names = sorted(path.name for path in folder.glob("*.safetensors"))
    if not names:
        raise InputError(f"{folder} holds no safetensors file: give the directory of a checkpoint")
    return names, {}


def _open_file(path: Path) -> tuple[list[Tensor], dict[str, str]]:
    """The tensors of a file in the order of their bytes, and its metadata."""
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or not 0 < length <= min(size - 8, LONGEST_HEADER):
            raise InputError(f"{path} is no safetensors file, or is cut short: copy it again")
        header = read_json(file.read(length).decode("utf-8", "replace"), path)
    metadata = header.pop("__metadata__", {})
    mapped = functools.cache(lambda: np.memmap(path, np.uint8, mode="r", offset=8 + length))
    tensors = []
    try:
        for name, entry in sorted(header.items(), key=lambda item: item[1]["data_offsets"]):
            whole = entry["dtype"] == "I64" and math.prod(entry["shape"]) > 1
            if entry["dtype"] not in DTYPES or whole:
                raise InputError(f"{path}: {name} is stored as {entry['dtype']}: give a checkpoint in BF16, F16 or F32")
            shape, dtype, (begin, end) = tuple(entry["shape"]), DTYPES[entry["dtype"]], entry["data_offsets"]
            if end - begin != math.prod(shape) * dtype.itemsize or not 0 <= begin <= end <= size - 8 - length:
                raise InputError(f"{path} is cut short at {name}: copy it again")
            tensors.append(Tensor(name=name, shape=shape, dtype=dtype, read=_reader(mapped, begin, end, dtype, shape)))
    except (KeyError, TypeError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path} has a damaged header: copy it again") from error
    return tensors, metadata


def _reader(
    mapped: Callable[[], np.ndarray], begin: int, end: int, dtype: np.dtype, shape: tuple[int, ...]
) -> Callable[[], np.ndarray]:
    return lambda: mapped()[begin:end].view(dtype).reshape(shape)
