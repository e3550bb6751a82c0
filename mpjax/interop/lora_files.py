"""LoRA files: read in any of the ways that `lora_names` lists, written in three.

What is read is a low-rank update for each linear layer of the network, in the dtype of the file. A fused module of a
file is several layers of ours: they share its `down`, and each has its rows of `up`. The other way round, layers with
the same `down` and scale share it again; else the fused module has the sum of their ranks, `up` in blocks along the
diagonal. Both ways no update changes: scale · up · down has the same rows.

A file that is written in the format that it was read in has the same bytes.
"""

import dataclasses
import json
import math
import re
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mpjax.errors import InputError
from mpjax.interop.checkpoint_files import Checkpoint, TensorInfo, read_json
from mpjax.interop.checkpoint_writer import METADATA, CheckpointWriter, in_file_order
from mpjax.interop.lora_names import FORMATS, groups, members, part_of, tensor_names
from mpjax.interop.transformer_names import linear_layers
from mpjax.models.architecture import Architecture

PEFT = "lora_adapter_metadata"  # where diffusers keeps what PEFT knows of an adapter


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class LowRank:
    """The update scale · up · down of a kernel `[out, in]`.

    Attributes:
        down: `[rank, in]`.
        up: `[out, rank]`.
        alpha: rank · scale, one number of whichever type and shape the file has; None: the scale is 1.
    """

    down: np.ndarray
    up: np.ndarray
    alpha: np.ndarray | None = None

    @property
    def rank(self) -> int:
        """Rows of `down`."""
        return self.down.shape[0]

    @property
    def strength(self) -> float:
        """`alpha`, with what None means."""
        return float(self.rank if self.alpha is None else self.alpha.item())

    @property
    def scale(self) -> float:
        """Of the update."""
        return self.strength / self.rank


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class LoraFile:
    """What a file says.

    Attributes:
        layers: updates by diffusers' name of the layer.
        order: its tensors, as they lie in the file.
        metadata: what it says of itself.
    """

    layers: Mapping[str, LowRank]
    order: tuple[str, ...] = ()
    metadata: Mapping[str, str] = dataclasses.field(default_factory=lambda: METADATA)


def read_lora(path: Path, architecture: Architecture) -> LoraFile:
    """Reads a file for a network.

    Raises:
        InputError: no safetensors file, or a tensor that is none of LoRA, or of a layer that the network lacks, or of
            another shape than the layer or the other factor wants.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file; give a LoRA as safetensors")
    checkpoint = Checkpoint.open(path)
    found: dict[str, dict[str, np.ndarray]] = {}
    for name, tensor in checkpoint.tensors.items():
        part = part_of(name)
        if part is None:
            raise InputError(
                f"{path}: {name} is neither lora_A, lora_B, lora_down, lora_up nor alpha: give a plain LoRA"
            )
        found.setdefault(part[0], {})[part[1]] = tensor.read()
    if not found:
        raise InputError(f"{path} holds no tensor: give a LoRA as safetensors")
    metadata = checkpoint.metadata[path.name]
    alpha_of = _peft_alphas(metadata, path)
    shapes = linear_layers(architecture)
    known = {name.replace(".", "_"): name for name in shapes}
    layers: dict[str, LowRank] = {}
    for module, parts in found.items():
        names = members(module, known)
        if names is None or any(name not in shapes for name in names):
            raise InputError(f"{path}: {module} is no linear layer of this network: give a LoRA of the same network")
        fused = _checked(parts, module, [shapes[name] for name in names], path)
        if fused.alpha is None:
            fused = dataclasses.replace(fused, alpha=alpha_of(names[0], fused.rank))
        for name, layer in zip(names, _split(fused, [shapes[name][0] for name in names]), strict=True):
            if name in layers:
                raise InputError(f"{path} adapts {name} twice, once as {module}: leave one of them")
            layers[name] = layer
    return LoraFile(layers=layers, order=checkpoint.files[path.name], metadata=metadata)


def write_lora(path: Path, file: LoraFile, form: str, architecture: Architecture) -> None:
    """Writes a file.

    Args:
        path: of the file; whatever is there is replaced.
        file: what to write; if it was read in this format, the same bytes come out.
        form: of `lora_names.FORMATS`.
        architecture: of the network.

    Raises:
        InputError: the format has no word for a layer.
    """
    if form not in FORMATS:
        raise InputError(f"the format is {form!r}: it must be one of {', '.join(FORMATS)}")
    layers = dict(file.layers)
    if form == "hunyuan":
        shapes = linear_layers(architecture)
        try:
            fused = groups(list(layers))
        except KeyError as error:
            raise InputError(
                f"HunyuanVideo's names know layers of blocks alone, not {error.args[0]}: choose diffusers or musubi"
            ) from None
        layers = {
            module: _joined([layers.get(name) for name in names], [shapes[name][0] for name in names])
            for module, names in fused.items()
        }
    arrays: dict[str, np.ndarray] = {}
    for module, layer in layers.items():
        alpha = np.asarray(layer.rank, np.float32) if layer.alpha is None else layer.alpha
        values = {"down": layer.down, "up": layer.up, "alpha": alpha}
        arrays |= {name: values[part] for part, name in tensor_names(module, form).items()}
    infos = [TensorInfo(name=name, shape=array.shape, dtype=array.dtype) for name, array in arrays.items()]
    same = set(file.order) == set(arrays)
    order = file.order if same else in_file_order(infos)
    metadata = dict(file.metadata) if same else _metadata(layers, form)
    with CheckpointWriter(path.parent, infos, {path.name: order}, {path.name: metadata}) as writer:
        for name, array in arrays.items():
            writer.write(name, array)


def _checked(parts: dict[str, np.ndarray], module: str, shapes: Sequence[tuple[int, int]], path: Path) -> LowRank:
    """The parts of a module, whose shapes must be those of its layers `[out, in]`."""
    missing = [part for part in ("down", "up") if part not in parts]
    if missing:
        raise InputError(f"{path}: {module} has no {' and no '.join(missing)} factor: copy the file again")
    down, up, alpha = parts["down"], parts["up"], parts.get("alpha")
    fan_out, fan_in = sum(shape[0] for shape in shapes), shapes[0][1]
    rank = down.shape[0] if down.ndim == 2 else -1
    if down.shape != (rank, fan_in) or up.shape != (fan_out, rank):
        raise InputError(
            f"{path}: {module} has factors {list(down.shape)} and {list(up.shape)}, but its layer wants "
            f"[rank, {fan_in}] and [{fan_out}, rank]: give a LoRA of the same network"
        )
    if alpha is not None and alpha.size != 1:
        raise InputError(f"{path}: alpha of {module} has shape {list(alpha.shape)}: it must be one number")
    if rank < 1 or (alpha is not None and not math.isfinite(alpha.item())):
        raise InputError(f"{path}: {module} has rank {rank} and alpha {alpha}: copy the file again")
    return LowRank(down=down, up=up, alpha=alpha)


def _split(fused: LowRank, sizes: Sequence[int]) -> list[LowRank]:
    parts = np.split(fused.up, np.cumsum(sizes)[:-1])
    return [dataclasses.replace(fused, up=part) for part in parts]


def _joined(parts: Sequence[LowRank | None], sizes: Sequence[int]) -> LowRank:
    """Layers as one of which they are the rows; None is a layer without an update."""
    present = [part for part in parts if part is not None]
    first = present[0]
    dtype = np.result_type(first.up) if len({part.up.dtype for part in present}) == 1 else np.dtype(np.float32)
    if all(part.scale == first.scale and np.array_equal(part.down, first.down) for part in present):
        rows = [
            np.zeros((size, first.rank), dtype) if part is None else part.up.astype(dtype)
            for part, size in zip(parts, sizes, strict=True)
        ]
        return LowRank(down=first.down, up=np.concatenate(rows), alpha=first.alpha)
    rank = sum(part.rank for part in present)
    same = all(part.scale == first.scale for part in present)
    up = np.zeros((sum(sizes), rank), dtype)
    row = column = 0
    for part, size in zip(parts, sizes, strict=True):
        if part is not None:
            block = part.up if same else part.up.astype(np.float32) * np.float32(part.scale)
            up[row : row + size, column : column + part.rank] = block.astype(dtype)
            column += part.rank
        row += size
    down = np.concatenate([part.down.astype(dtype) for part in present])
    return LowRank(down=down, up=up, alpha=np.asarray(rank * (first.scale if same else 1.0), np.float32))


def _peft_alphas(metadata: Mapping[str, str], path: Path) -> Any:
    """(layer, rank) → its alpha as PEFT's configuration in the metadata has it; None without one."""
    if PEFT not in metadata:
        return lambda name, rank: None
    said = read_json(metadata[PEFT], path)
    said = {key.removeprefix("transformer."): value for key, value in said.items()}
    if said.get("use_dora"):
        raise InputError(f"{path} is a DoRA, which this package does not read: give a plain LoRA")
    patterns, default = said.get("alpha_pattern") or {}, said.get("lora_alpha")

    def alpha(name: str, rank: int) -> np.ndarray | None:
        own = next((value for key, value in patterns.items() if re.fullmatch(rf"(.*\.)?({key})", name)), default)
        if own is None:
            return None
        return np.asarray(own * math.sqrt(rank) if said.get("use_rslora") else own, np.float32)

    try:
        alpha("any", 1)
    except (re.error, TypeError, ValueError) as error:
        raise InputError(f"{path}: {PEFT} in its metadata is damaged: copy the file again") from error
    return alpha


def _metadata(layers: Mapping[str, LowRank], form: str) -> dict[str, str]:
    """What a new file says of itself; diffusers reads scales there, and takes 1 where it finds nothing."""
    if form != "diffusers" or all(layer.scale == 1.0 for layer in layers.values()):
        return METADATA
    ranks = {f"^{re.escape(name)}": layer.rank for name, layer in layers.items()}
    alphas = {f"^{re.escape(name)}": layer.strength for name, layer in layers.items()}
    rank, alpha = (statistics.mode(values.values()) for values in (ranks, alphas))
    said = {
        "r": rank,
        "lora_alpha": alpha,
        "rank_pattern": {name: value for name, value in ranks.items() if value != rank},
        "alpha_pattern": {name: value for name, value in alphas.items() if value != alpha},
        "target_modules": sorted(layers),
    }
    words = {f"transformer.{key}": value for key, value in said.items()}
    return {**METADATA, PEFT: json.dumps(words, indent=2, sort_keys=True)}
