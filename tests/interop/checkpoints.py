"""Tiny PyTorch checkpoints, written by the safetensors library itself."""

import hashlib
import json
from pathlib import Path

import ml_dtypes
import numpy as np
from safetensors import TensorSpec, serialize_file

from mpjax.interop.transformer_names import transformer_entries
from mpjax.models.architecture import Architecture
from tests.fixtures import seeded

BF16 = np.dtype(ml_dtypes.bfloat16)
F32 = np.dtype(np.float32)
T2V_LACKS = ("clean_x_embedder.", "image_projection.")

# The tiny network of docs/backbone.md, as diffusers' config.json says it.
CONFIG = {
    "_class_name": "HunyuanVideoFramepackTransformer3DModel",
    "_diffusers_version": "0.42.1",
    "attention_head_dim": 16,
    "guidance_embeds": True,
    "has_clean_x_embedder": True,
    "has_image_proj": True,
    "image_condition_type": None,
    "image_proj_dim": 28,
    "in_channels": 16,
    "mlp_ratio": 4.0,
    "num_attention_heads": 2,
    "num_layers": 2,
    "num_refiner_layers": 2,
    "num_single_layers": 2,
    "out_channels": 16,
    "patch_size": 2,
    "patch_size_t": 1,
    "pooled_projection_dim": 20,
    "qk_norm": "rms_norm",
    "rope_axes_dim": [4, 6, 6],
    "rope_theta": 256.0,
    "text_embed_dim": 24,
}
ARCHITECTURE = Architecture(
    heads=2,
    head_dim=16,
    dual_blocks=2,
    single_blocks=2,
    text_width=24,
    pooled_width=20,
    image_width=28,
    rope_axes=(4, 6, 6),
    memory=None,
    encoders=None,
)


def tiny_tensors(dtype=F32, without=()):
    """Every tensor of the tiny network, by name."""
    shapes = {name: entry.shape for entry in transformer_entries(ARCHITECTURE) for name in entry.names}
    drawn = seeded.weights({name: shape for name, shape in shapes.items() if not name.startswith(tuple(without))})
    return {name: array.astype(dtype) for name, array in drawn.items()}


def write_safetensors(path, tensors, metadata=None):
    """One file."""
    arrays = {name: np.ascontiguousarray(array).reshape(np.shape(array)) for name, array in tensors.items()}
    specs = {
        name: TensorSpec(dtype=array.dtype.name, shape=array.shape, data_ptr=array.ctypes.data, data_len=array.nbytes)
        for name, array in arrays.items()
    }
    serialize_file(specs, path, {"format": "pt"} if metadata is None else metadata)


def write_checkpoint(folder: Path, tensors, config=CONFIG, shards=1, index=True) -> Path:
    """A directory as diffusers writes it; shards are dealt out by a rule that is not ours."""
    folder.mkdir(parents=True)
    if config is not None:
        (folder / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
    names = ["diffusion_pytorch_model.safetensors"]
    if shards > 1:
        names = [f"diffusion_pytorch_model-{i:05d}-of-{shards:05d}.safetensors" for i in range(1, shards + 1)]
    place = {name: names[int(hashlib.sha256(name.encode()).hexdigest(), 16) % shards] for name in tensors}
    for file in names:
        write_safetensors(folder / file, {name: array for name, array in tensors.items() if place[name] == file})
    if shards > 1 and index:
        total = sum(array.nbytes for array in tensors.values())
        text = json.dumps({"metadata": {"total_size": total}, "weight_map": place}, indent=2, sort_keys=True) + "\n"
        (folder / "diffusion_pytorch_model.safetensors.index.json").write_text(text)
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below a folder."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}
