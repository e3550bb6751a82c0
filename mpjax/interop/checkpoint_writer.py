"""Writes PyTorch checkpoints: safetensors files of a known size, filled in any order, a tensor at a time."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np

from mpjax.interop.checkpoint_files import DTYPE_NAMES, DTYPES, INDEX, OWN_WEIGHTS, WEIGHTS, TensorInfo
from mpjax.interop.transformer_names import OWN_PREFIX

SHARD_BYTES = 5_000_000_000
METADATA = {"format": "pt"}  # diffusers and transformers refuse files without


class CheckpointWriter:
    """The files of a checkpoint in a directory; a context manager.

    Every file has its full size from the start, so that tensors may come in any order.
    """

    def __init__(
        self,
        folder: Path,
        tensors: Sequence[TensorInfo],
        files: Mapping[str, Sequence[str]],
        metadata: Mapping[str, dict[str, str]],
    ):
        """Lays out the files.

        Args:
            folder: exists.
            tensors: what is going to be written.
            files: names of the tensors of each file, in their order there.
            metadata: `__metadata__` of each file; `METADATA` where it says nothing.
        """
        known = {tensor.name: tensor for tensor in tensors}
        self._open: dict[str, BinaryIO] = {}
        self._places: dict[str, tuple[BinaryIO, int, TensorInfo]] = {}
        for name, members in files.items():
            file = (folder / name).open("wb")
            self._open[name] = file
            position = 0
            header: dict[str, object] = {"__metadata__": metadata.get(name, METADATA)}
            for tensor in (known[member] for member in members):
                header[tensor.name] = {
                    "dtype": DTYPE_NAMES[tensor.dtype],
                    "shape": list(tensor.shape),
                    "data_offsets": [position, position + tensor.nbytes],
                }
                self._places[tensor.name] = (file, position, tensor)
                position += tensor.nbytes
            text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
            text += b" " * (-len(text) % 8)
            file.write(len(text).to_bytes(8, "little") + text)
            begin = file.tell()
            file.truncate(begin + position)
            for member in members:
                _, offset, tensor = self._places[member]
                self._places[member] = (file, begin + offset, tensor)

    def __enter__(self) -> "CheckpointWriter":
        return self

    def __exit__(self, *error: object) -> None:
        for file in self._open.values():
            file.close()

    def write(self, name: str, array: np.ndarray) -> None:
        """Fills the place of a tensor."""
        file, offset, tensor = self._places[name]
        if array.shape != tensor.shape or array.dtype != tensor.dtype:
            raise ValueError(f"{name} is {array.dtype} {array.shape}, announced {tensor.dtype} {tensor.shape}")
        file.seek(offset)
        file.write(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)


def default_files(tensors: Sequence[TensorInfo], limit: int = SHARD_BYTES) -> dict[str, tuple[str, ...]]:
    """Files of at most `limit` bytes of tensors each, in the order given; our own tensors in one of their own.

    A single file is called as diffusers calls it, several as its shards.
    """
    shards: list[list[TensorInfo]] = [[]]
    for tensor in tensors:
        if tensor.name.startswith(OWN_PREFIX):
            continue
        if shards[-1] and sum(t.nbytes for t in shards[-1]) + tensor.nbytes > limit:
            shards.append([])
        shards[-1].append(tensor)
    stem, dot, suffix = WEIGHTS.rpartition(".")
    names = [WEIGHTS]
    if len(shards) > 1:
        names = [f"{stem}-{number:05d}-of-{len(shards):05d}{dot}{suffix}" for number in range(1, len(shards) + 1)]
    files = {name: in_file_order(shard) for name, shard in zip(names, shards, strict=True)}
    own = [tensor for tensor in tensors if tensor.name.startswith(OWN_PREFIX)]
    return files | ({OWN_WEIGHTS: in_file_order(own)} if own else {})


def write_index(folder: Path, tensors: Sequence[TensorInfo], files: Mapping[str, Sequence[str]]) -> None:
    """Writes the index of shards; nothing where one file holds all."""
    shards = {name: members for name, members in files.items() if name != OWN_WEIGHTS}
    if list(shards) == [WEIGHTS]:
        return
    sizes = {tensor.name: tensor.nbytes for tensor in tensors}
    weight_map = {member: name for name, members in shards.items() for member in members}
    index = {"metadata": {"total_size": sum(sizes[name] for name in weight_map)}, "weight_map": weight_map}
    (folder / INDEX).write_text(json.dumps(index, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def in_file_order(tensors: Sequence[TensorInfo]) -> tuple[str, ...]:
    """As the safetensors library orders a file: wide dtypes first, so that each tensor is aligned, then by name."""
    rank = {dtype: number for number, dtype in enumerate(DTYPES.values())}
    ordered = sorted(tensors, key=lambda tensor: (rank[tensor.dtype], tensor.name))
    return tuple(tensor.name for tensor in ordered)
