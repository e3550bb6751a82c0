"""The transformer's parameters in a PyTorch checkpoint, as arrays of our tree that are read when they are needed."""

import dataclasses
import hashlib
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mpjax.errors import InputError, some_of
from mpjax.interop.checkpoint_files import CONFIG, Checkpoint, Tensor, read_json
from mpjax.interop.layout import Entry
from mpjax.interop.stored_array import Index, StoredArray
from mpjax.interop.transformer_config import from_config, from_shapes
from mpjax.models.architecture import Architecture

T2V_PREFIXES = ("clean_x_embedder.", "image_projection.")  # what a text-to-video checkpoint lacks


def architecture_of(checkpoint: Checkpoint) -> Architecture:
    """The plain FramePack network of a checkpoint, from its `config.json` or else from its shapes.

    Raises:
        InputError: it is none that this package has.
    """
    if CONFIG in checkpoint.texts:
        path = checkpoint.folder / CONFIG
        return from_config(read_json(checkpoint.texts[CONFIG], path), path)
    return from_shapes({name: tensor.shape for name, tensor in checkpoint.tensors.items()}, checkpoint.folder)


def check_tensors(tensors: Mapping[str, Tensor], entries: Sequence[Entry], folder: Path) -> None:
    """Compares a checkpoint with what the network needs.

    Raises:
        InputError: tensors are missing, unknown or misshaped; all three kinds are named at once.
    """
    wanted = {name: entry.shape for entry in entries for name in entry.names}
    missing = [name for name in wanted if name not in tensors]
    extra = [name for name in tensors if name not in wanted]
    misshaped = [
        f"{name} {list(tensors[name].shape)} instead of {list(shape)}"
        for name, shape in wanted.items()
        if name in tensors and tensors[name].shape != shape
    ]
    kinds = {"missing": missing, "not of this network": extra, "misshaped": misshaped}
    found = "; ".join(f"{len(names)} {kind}: {some_of(names)}" for kind, names in kinds.items() if names)
    if found:
        remedy = "give a checkpoint of the network that its config.json describes"
        if missing and not extra and not misshaped and all(name.startswith(T2V_PREFIXES) for name in missing):
            remedy = "`convert --from-t2v` initialises them from the others"
        raise InputError(f"{folder} does not fit ({found}): {remedy}")


def with_t2v_parts(tensors: Mapping[str, Tensor], entries: Sequence[Entry]) -> tuple[dict[str, Tensor], list[str]]:
    """Adds what FramePack has and a text-to-video checkpoint lacks, by lllyasviel's recipe (docs/backbone.md, 1.12).

    The embedders of the history begin as the embedder of the noisy latents: a kernel r times as large repeats each of
    its weights r times along every axis and divides by r³, so a clip enlarged r times gives the same tokens. The image
    projection begins at random (Xavier uniform, biases zero), the same numbers every time.

    Returns:
        all tensors, and the names of those that begin at random.
    """
    shapes = {name: entry.shape for entry in entries for name in entry.names}
    complete, fresh = dict(tensors), []
    for name, shape in shapes.items():
        if name in tensors or not name.startswith(T2V_PREFIXES):
            continue
        module, _, leaf = name.rpartition(".")
        source = tensors.get(f"x_embedder.proj.{leaf}")
        if source is None:
            continue  # which check_tensors reports
        if module.startswith("clean_x_embedder."):
            complete[name] = _enlarged(source, name, shape)
        else:
            complete[name] = _drawn(source.dtype, name, shape)
            fresh.append(name)
    return complete, fresh


def stored_arrays(
    tensors: Mapping[str, Tensor], entries: Sequence[Entry], dtype: np.dtype | None = None
) -> dict[str, Any]:
    """The parameter tree, as nested dicts of `StoredArray`.

    Args:
        tensors: checked by `check_tensors`.
        entries: of the network.
        dtype: of every array; None: as each is stored.

    Raises:
        InputError: layers of one array are stored in different types and `dtype` does not decide, or a type is neither
            float32 nor bfloat16.
    """
    tree: dict[str, Any] = {}
    for entry in entries:
        node = tree
        for name in entry.path[:-1]:
            node = node.setdefault(name, {})
        node[entry.path[-1]] = _array([tensors[name] for name in entry.names], entry, dtype)
    return tree


def _array(members: list[Tensor], entry: Entry, dtype: np.dtype | None) -> StoredArray:
    types = {tensor.dtype for tensor in members}
    if dtype is None:
        if len(types) > 1 or members[0].dtype.name not in ("float32", "bfloat16"):
            raise InputError(
                f"{members[0].name} is stored as {', '.join(sorted(t.name for t in types))}: "
                "choose --dtype=float32 or --dtype=bfloat16"
            )
        dtype = members[0].dtype

    def layer(tensor: Tensor, index: Index) -> np.ndarray:
        return entry.to_array(tensor.read())[index]

    def read(index: Index) -> np.ndarray:
        if not entry.stacked:
            return np.ascontiguousarray(layer(members[0], index)).astype(dtype, copy=False)
        parts = [layer(tensor, index[1:]) for tensor in members[index[0]]]
        result = np.empty((len(parts), *parts[0].shape), dtype)
        for row, part in zip(result, parts, strict=True):
            row[...] = part
        return result

    shape = entry.array_shape
    return StoredArray(shape=shape, dtype=dtype, read=read, block=1 if entry.stacked else shape[0])


def _enlarged(source: Tensor, name: str, shape: tuple[int, ...]) -> Tensor:
    """A bias as it is; a kernel repeated to its new size and scaled down."""

    def read() -> np.ndarray:
        kernel = source.read()
        for axis in range(2, len(shape)):
            kernel = np.repeat(kernel, shape[axis] // source.shape[axis], axis)
        return kernel / np.asarray(math.prod(shape) / math.prod(source.shape), kernel.dtype)

    return dataclasses.replace(source, name=name, shape=shape, read=read)


def _drawn(dtype: np.dtype, name: str, shape: tuple[int, ...]) -> Tensor:
    def read() -> np.ndarray:
        if len(shape) == 1:
            return np.zeros(shape, dtype)
        seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "little")
        limit = math.sqrt(6 / sum(shape))
        return (np.random.default_rng(seed).random(shape, np.float32) * (2 * limit) - limit).astype(dtype)

    return Tensor(name=name, shape=shape, dtype=dtype, read=read)
