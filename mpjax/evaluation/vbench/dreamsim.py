"""DreamSim's ensemble (2306.09344): DINO, CLIP and OpenCLIP ViT-B/16, tuned by LoRA to human similarity judgements.

The embedding is the class token of DINO before its last norm, and the projected ones of both CLIPs, one behind the
other, minus its mean, of norm 1. The LoRA matrices are added to the weights when they are read.
"""

import dataclasses
import functools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mpjax.errors import InputError
from mpjax.evaluation.vbench import vit
from mpjax.evaluation.vbench.probe import CLIP, IMAGENET, NetworkProbe, normalise
from mpjax.evaluation.vbench.resize import resize
from mpjax.evaluation.vbench.weights import load, read
from mpjax.interop.checkpoint_files import Tensor

SIZE = 224
BATCH = 8
CLIP_LIKE_DINO = dataclasses.replace(vit.DINO_NAMES, norm_first="pos_drop")
DINO = dataclasses.replace(vit.DINO_B16, norm_last=False)
OPEN_CLIP = vit.ViTConfig(patch=16, width=768, depth=12, grid=14, names=CLIP_LIKE_DINO, eps=1e-5, out=512)
OPENAI_CLIP = dataclasses.replace(OPEN_CLIP, quick_gelu=True)
CONFIGS = (DINO, OPENAI_CLIP, OPEN_CLIP)
STATISTICS = (IMAGENET, CLIP, CLIP)


def embed(params: Any, images: jax.Array) -> jax.Array:
    """Pictures 0..255, `[b, 224, 224, 3]` → `[b, 1792]`, mean 0 and norm 1."""
    parts = [
        vit.ViT(config).apply(each, normalise(images, statistics))
        for config, each, statistics in zip(CONFIGS, params, STATISTICS, strict=True)
    ]
    whole = jnp.concatenate([jnp.asarray(part) for part in parts], -1)
    whole = whole - whole.mean(-1, keepdims=True)
    return whole / jnp.linalg.norm(whole, axis=-1, keepdims=True)


@functools.cache
def read_params(dino: Path, clip: Path, open_clip: Path, lora: Path) -> Any:
    """Parameters of the three networks.

    Args:
        dino: DINO's own file, whose weights DreamSim starts from.
        clip: `clip_vitb16_pretrain.pth.tar`.
        open_clip: `open_clip_vitb16_pretrain.pth.tar`.
        lora: the folder `ensemble_lora`.

    Raises:
        InputError: a file is damaged or another's.
    """
    names = ("adapter_model.safetensors", "adapter_model.bin")
    weights = next((lora / name for name in names if (lora / name).is_file()), None)
    if weights is None:
        raise InputError(f"{lora} has no adapter_model.bin: unpack DreamSim's checkpoint again")
    try:
        config = json.loads((lora / "adapter_config.json").read_text())
        scale = config["lora_alpha"] / config["r"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{lora}/adapter_config.json is missing or damaged: unpack the checkpoint again") from error
    adapter = read(weights)
    params = []
    like = jax.ShapeDtypeStruct((1, SIZE, SIZE, 3), jnp.float32)
    for index, (path, vit_config) in enumerate(zip((dino, clip, open_clip), CONFIGS, strict=True)):
        tensors = adapt(read(path, ("state_dict.",)), adapter, index, scale, str(weights))
        params.append(load(vit.ViT(vit_config), tensors, str(path), like))
    return jax.device_put(params)


def adapt(
    tensors: Mapping[str, Tensor], adapter: Mapping[str, Tensor], index: int, scale: float, source: str
) -> dict[str, Tensor]:
    """The tensors of network `index` with LoRA added to each `qkv`: W + scale · B A."""
    out = dict(tensors)
    by_end = {name.partition("extractor_list.")[2]: tensor for name, tensor in adapter.items()}
    for block in range(CONFIGS[index].depth):
        name = f"blocks.{block}.attn.qkv.weight"
        place = f"{index}.model.blocks.{block}.attn.qkv.lora_"
        if f"{place}A.weight" not in by_end or f"{place}B.weight" not in by_end:
            raise InputError(f"{source} has no tensor {place}A.weight: it is no adapter of DreamSim's ensemble")
        if name not in out:
            continue  # `load` names what is missing
        low, high, base = by_end[f"{place}A.weight"], by_end[f"{place}B.weight"], out[name]

        def merged(base: Tensor = base, low: Tensor = low, high: Tensor = high) -> np.ndarray:
            a, b = (np.asarray(each.read(), np.float32) for each in (low, high))
            return np.asarray(base.read(), np.float32) + scale * (b @ a)

        out[name] = dataclasses.replace(base, read=merged)
    return out


@functools.cache
def probe(dino: Path, clip: Path, open_clip: Path, lora: Path, *, picture: bool) -> NetworkProbe:
    """A probe that gives the embedding; a picture beside the video goes through Pillow's rounding."""

    def apply(params: Any, images: jax.Array) -> jax.Array:
        return embed(params, resize(images, (SIZE, SIZE), "bicubic", antialias=True, uint8=picture))

    return NetworkProbe(apply, read_params(dino, clip, open_clip, lora), batch=BATCH)
