"""`config.json` of a PyTorch transformer ↔ `Architecture`.

Source: the constructor of diffusers 0.42 `HunyuanVideoFramepackTransformer3DModel`, whose defaults stand for keys that
a file leaves out, and docs/backbone.md, section 1.1. lllyasviel's `HunyuanVideoTransformer3DModelPacked` has the
same keys.
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mpjax.errors import InputError
from mpjax.models.architecture import Architecture

FRAMEPACK = "HunyuanVideoFramepackTransformer3DModel"
CLASSES = (FRAMEPACK, "HunyuanVideoTransformer3DModelPacked", "HunyuanVideoTransformer3DModel")

# key of config.json → (field of Architecture, diffusers' default)
_FIELDS: dict[str, tuple[str, Any]] = {
    "in_channels": ("channels", 16),
    "num_attention_heads": ("heads", 24),
    "attention_head_dim": ("head_dim", 128),
    "num_layers": ("dual_blocks", 20),
    "num_single_layers": ("single_blocks", 40),
    "num_refiner_layers": ("refiner_blocks", 2),
    "mlp_ratio": ("mlp_ratio", 4.0),
    "patch_size": ("patch", 2),
    "guidance_embeds": ("guidance_embeds", True),
    "text_embed_dim": ("text_width", 4096),
    "pooled_projection_dim": ("pooled_width", 768),
    "image_proj_dim": ("image_width", 1152),
    "rope_theta": ("rope_theta", 256.0),
    "rope_axes_dim": ("rope_axes", (16, 56, 56)),
}
# What this network cannot do otherwise. The two `has_` keys speak of tensors, and those are checked one by one.
_FIXED: dict[str, tuple[Any, ...]] = {"patch_size_t": (1,), "qk_norm": ("rms_norm",), "image_condition_type": (None,)}
_FLAGS = ("has_image_proj", "has_clean_x_embedder")


def from_config(values: Mapping[str, Any], path: Path) -> Architecture:
    """The plain FramePack network (no SemanticPack, no built-in encoders) that a `config.json` describes.

    Args:
        values: its content.
        path: named in errors.

    Raises:
        InputError: another class of model, a key that is not known, or a value that this network does not have.
    """
    name = values.get("_class_name", FRAMEPACK)
    if name not in CLASSES:
        raise InputError(f"{path}: _class_name is {name!r}, but only {', '.join(CLASSES)} can be read")
    known = {*_FIELDS, *_FIXED, *_FLAGS, "out_channels"}
    for key, value in values.items():
        if not key.startswith("_") and key not in known and value not in (None, False):
            raise InputError(f"{path}: {key} = {value!r} is not known: give a checkpoint of {FRAMEPACK}")
    for key, allowed in _FIXED.items():
        if key in values and values[key] not in allowed:
            raise InputError(f"{path}: {key} is {values[key]!r}, but only {allowed[0]!r} is supported")
    channels = values.get("in_channels", 16)
    if (values.get("out_channels") or channels) != channels:
        raise InputError(
            f"{path}: out_channels is {values['out_channels']}, but it must equal in_channels = {channels}"
        )
    fields = {field: values.get(key, default) for key, (field, default) in _FIELDS.items()}
    for key, (field, default) in _FIELDS.items():
        value = fields[field]
        if isinstance(default, tuple):
            fits = isinstance(value, list | tuple) and len(value) == 3 and all(type(size) is int for size in value)
            fields[field] = tuple(value) if fits else value
        elif isinstance(default, float):
            fits = type(value) in (int, float)
        else:
            fits = type(value) is type(default)
        if not fits:
            raise InputError(f"{path}: {key} is {value!r}: it must be of the kind of {default!r}")
    try:
        return Architecture(**fields, memory=None, encoders=None)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


def from_shapes(shapes: Mapping[str, tuple[int, ...]], folder: Path) -> Architecture:
    """The same network read off its tensors, for a checkpoint without `config.json`.

    Shapes do not tell the axes of RoPE: they are FramePack-F1's, which fit a head_dim of 128 only.

    Args:
        shapes: by name of tensor.
        folder: named in errors.

    Raises:
        InputError: tensors that tell a size are absent, or head_dim is not 128.
    """

    def shape(name: str, rank: int) -> tuple[int, ...]:
        if len(shapes.get(name, ())) != rank:
            raise InputError(f"{folder} has neither config.json nor {name}: give a checkpoint of {FRAMEPACK}")
        return shapes[name]

    def count(stack: str) -> int:
        found = [re.match(rf"{re.escape(stack)}\.(\d+)\.", name) for name in shapes]
        return 1 + max((int(match[1]) for match in found if match), default=-1)

    refiner = "context_embedder.token_refiner.refiner_blocks"
    width, channels, _, patch, _ = shape("x_embedder.proj.weight", 5)
    (head_dim,) = shape("transformer_blocks.0.attn.norm_q.weight", 1)
    image = shapes.get("image_projection.up.weight", (0, _FIELDS["image_proj_dim"][1]))
    fields = {
        "channels": channels,
        "heads": width // head_dim,
        "head_dim": head_dim,
        "dual_blocks": count("transformer_blocks"),
        "single_blocks": count("single_transformer_blocks"),
        "refiner_blocks": count(refiner),
        "mlp_ratio": shape("transformer_blocks.0.ff.net.0.proj.weight", 2)[0] / width,
        "patch": patch,
        "guidance_embeds": "time_text_embed.guidance_embedder.linear_1.weight" in shapes,
        "text_width": shape("context_embedder.proj_in.weight", 2)[1],
        "pooled_width": shape("time_text_embed.text_embedder.linear_1.weight", 2)[1],
        "image_width": image[-1],
    }
    if head_dim != sum(Architecture.rope_axes):
        raise InputError(
            f"{folder} has no config.json, and tensors do not tell rope_axes_dim: put the file beside them"
        )
    return Architecture(**fields, memory=None, encoders=None)


def to_config(architecture: Architecture) -> str:
    """The text of `config.json`, as diffusers writes it."""
    values: dict[str, Any] = {key: getattr(architecture, field) for key, (field, _) in _FIELDS.items()}
    values |= {key: allowed[0] for key, allowed in _FIXED.items()} | dict.fromkeys(_FLAGS, True)
    values |= {"_class_name": FRAMEPACK, "out_channels": architecture.channels}
    return json.dumps(values, indent=2, sort_keys=True) + "\n"
