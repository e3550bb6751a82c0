"""Between a LoRA file, one update a layer, and an adapter of `models.lora`, one array a stack of layers."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from mpjax.interop.lora_files import LowRank
from mpjax.interop.transformer_names import linear_entries
from mpjax.models.architecture import Architecture
from mpjax.models.lora import entries_of, put_entry


def to_adapter(layers: Mapping[str, LowRank], architecture: Architecture) -> dict[str, Any]:
    """The adapter of a file, float32 arrays of NumPy.

    A stack has the largest rank of its layers, the others filled up with zeros.
    """
    adapter: dict[str, Any] = {}
    for entry in linear_entries(architecture):
        updates = [layers.get(name.removesuffix(".weight")) for name in entry.names]
        rank = max((update.rank for update in updates if update is not None), default=0)
        if not rank:
            continue
        fan_in, fan_out = entry.layer_shape
        a = np.zeros((len(updates), fan_in, rank), np.float32)
        b = np.zeros((len(updates), rank, fan_out), np.float32)
        scale = np.ones(len(updates), np.float32)
        for layer, update in enumerate(updates):
            if update is not None:
                a[layer, :, : update.rank] = update.down.T
                b[layer, : update.rank] = update.up.T
                scale[layer] = update.scale
        found = {"a": a, "b": b, "scale": scale}
        whole = found if entry.stacked else {name: array[0] for name, array in found.items()}
        put_entry(adapter, entry.path[:-1], whole)
    return adapter


def to_layers(adapter: Mapping[str, Any], architecture: Architecture) -> tuple[dict[str, LowRank], list[str]]:
    """The updates of an adapter by the name of their layer, and the modules that other implementations do not have."""
    known = {entry.path[:-1]: entry for entry in linear_entries(architecture)}
    layers: dict[str, LowRank] = {}
    strange = []
    for path, parts in entries_of(dict(adapter)):
        if path not in known:
            strange.append("/".join(path))
            continue
        entry = known[path]
        a, b, scale = (np.asarray(parts[name], np.float32) for name in ("a", "b", "scale"))
        if not entry.stacked:
            a, b, scale = a[None], b[None], scale[None]
        for number, name in enumerate(entry.names):
            alpha = np.float32(np.float64(scale[number]) * a.shape[-1])
            layers[name.removesuffix(".weight")] = LowRank(
                down=np.ascontiguousarray(a[number].T), up=np.ascontiguousarray(b[number].T), alpha=np.asarray(alpha)
            )
    return layers, strange
