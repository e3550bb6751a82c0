"""The weight files as their authors publish them, names, nesting and container, with the golden numbers' weights."""

import functools
import json
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from mpjax.evaluation.metrics.metric import Metric
from mpjax.evaluation.metrics.registry import choose
from mpjax.evaluation.vbench import dreamsim, offers, vit
from mpjax.evaluation.vbench.musiq import MUSIQ
from tests.evaluation.vbench.golden import torch_shapes
from tests.fixtures import vbench_cases
from tests.fixtures.torch_containers import write_script, write_zip

DINOV2_SIDE = vit.DINOV2_B14.grid * vit.DINOV2_B14.patch


def metric_from_files(name: str, folder: Path) -> Metric:
    """A metric of `evaluate --metrics=NAME --weights=FOLDER`, with its files written there."""
    offer = next(offer for offer in offers.VBENCH if offer.name == name)
    for file in offer.files:
        path = folder / file.names[0]
        path.parent.mkdir(parents=True, exist_ok=True)
        WRITERS[file](path)
    (metric,), _ = choose(offers.VBENCH, name, folder, ("--images",))
    return metric


def _drawn(network: str, shapes: dict[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
    return {name: vbench_cases.weight(name, shape, network) for name, shape in shapes.items()}


def _shapes(module: nn.Module, side: int = 224, dtype: type = jnp.float32) -> dict[str, tuple[int, ...]]:
    return torch_shapes(module, jax.ShapeDtypeStruct((1, side, side, 3), dtype))


def _dino(path: Path) -> None:
    write_zip(path, _drawn("dino", _shapes(vit.ViT(vit.DINO_B16))))


def _dinov2(path: Path) -> None:
    shapes = _shapes(vit.ViT(vit.DINOV2_B14), DINOV2_SIDE)
    write_zip(path, _drawn("dinov2", {"mask_token": (1, 768), **shapes}))


def _clip(network: str, config: vit.ViTConfig, text: int, path: Path) -> None:
    """The picture's network below `visual`, and beside it that of the text (cut short), whose layers have its names."""
    block = "transformer.resblocks.0"
    shapes = {
        "positional_embedding": (77, text),
        "text_projection": (text, text),
        "logit_scale": (),
        "ln_final.weight": (text,),
        "ln_final.bias": (text,),
        f"{block}.attn.in_proj_weight": (3 * text, text),
        f"{block}.attn.in_proj_bias": (3 * text,),
        f"{block}.ln_1.weight": (text,),
        **{f"visual.{name}": shape for name, shape in _shapes(vit.ViT(config)).items()},
    }
    half = {name: np.float16 if vbench_cases.is_half(name, network) else np.float32 for name in shapes}
    write_script(path, {name: array.astype(half[name]) for name, array in _drawn(network, shapes).items()})


def _head(path: Path) -> None:
    write_zip(path, _drawn("aesthetic", {"weight": (1, 768), "bias": (1,)}))


def _musiq(path: Path) -> None:
    write_zip(path, _drawn("musiq", _shapes(MUSIQ(), 64, jnp.uint8)))


def _dreamsim(network: str, config: vit.ViTConfig, path: Path) -> None:
    write_zip(path, _drawn(network, _shapes(vit.ViT(config))), within="state_dict")


def _lora(path: Path) -> None:
    path.mkdir()
    (path / "adapter_config.json").write_text(json.dumps({"r": 16, "lora_alpha": 8}))
    shapes = {}
    for index in range(3):
        for block in range(12):
            place = f"base_model.model.extractor_list.{index}.model.blocks.{block}.attn.qkv"
            shapes |= {f"{place}.lora_A.weight": (16, 768), f"{place}.lora_B.weight": (2304, 16)}
    write_zip(path / "adapter_model.bin", _drawn("dreamsim_lora", shapes))


_LORA_CLIP, _LORA_OPEN_CLIP, _LORA = offers.DREAMSIM

WRITERS = {
    offers.DINO: _dino,
    offers.DINOV2: _dinov2,
    offers.CLIP_B32: functools.partial(_clip, "clip_b32", vit.CLIP_B32, 512),
    offers.CLIP_L14: functools.partial(_clip, "clip_l14", vit.CLIP_L14, 768),
    offers.AESTHETIC: _head,
    offers.MUSIQ_SPAQ: _musiq,
    _LORA_CLIP: functools.partial(_dreamsim, "dreamsim_clip", dreamsim.OPENAI_CLIP),
    _LORA_OPEN_CLIP: functools.partial(_dreamsim, "dreamsim_open_clip", dreamsim.OPEN_CLIP),
    _LORA: _lora,
    offers.PARAMS: lambda path: path.write_text("w_inclip_sb: 0.5\nw_clip2clip_sb: 0.5\n"),
    offers.SUBJECT_TABLE: lambda path: path.write_text("0.0: 0.0\n1.0: 1.0\n"),
}
