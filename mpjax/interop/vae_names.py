"""The names of the autoencoder's tensors in diffusers' checkpoints.

Source: docs/backbone.md, section 3 (diffusers 0.42 `AutoencoderKLHunyuanVideo.state_dict()`). A causal convolution
wraps a plain one, hence `.conv.weight`; down- and upsamplers wrap a causal one, hence `.conv.conv.weight`.
"""

import functools
import re
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from mpjax.interop.layout import Entry, Kind
from mpjax.models.vae import Vae, VaeArchitecture

# A module here, and there without `.conv` of a causal convolution.
_MODULES = (
    (r"(down|up)_(\d+)_resnet_(\d+)", r"\1_blocks.\2.resnets.\3"),
    (r"(down|up)_(\d+)_(downsample|upsample)", r"\1_blocks.\2.\3rs.0.conv"),
    (r"mid", "mid_block"),
    (r"resnet_(\d+)", r"resnets.\1"),
    (r"attention", "attentions.0"),
    (r"to_out", "to_out.0"),
    (r"norm_out", "conv_norm_out"),
)
_LEAVES = {"kernel": "weight", "scale": "weight", "bias": "bias"}
_LINEAR = ("to_q", "to_k", "to_v", "to_out")
_NORMS = ("norm1", "norm2", "norm_out", "group_norm")
_PLAIN = ("quant_conv", "post_quant_conv")  # convolutions that no causal one wraps


def vae_shapes(architecture: VaeArchitecture) -> dict[str, Any]:
    """The parameter tree of an autoencoder as `jax.ShapeDtypeStruct`; nothing is allocated."""
    init = Vae(architecture).init
    return nn.unbox(jax.eval_shape(init, jax.random.key(0), jnp.zeros((1, 1, 8, 8, 3)))["params"])


@functools.cache
def vae_entries(architecture: VaeArchitecture) -> tuple[Entry, ...]:
    """Every array of the autoencoder and where checkpoints keep it, in the order of the tree."""
    shapes = jax.tree.leaves_with_path(vae_shapes(architecture))
    return tuple(_entry(tuple(key.key for key in path), leaf.shape) for path, leaf in shapes)


def _entry(path: tuple[str, ...], shape: tuple[int, ...]) -> Entry:
    *modules, leaf = path
    kind: Kind = "same"
    if leaf == "kernel":
        kind = "linear" if modules[-1] in _LINEAR else "conv"
        shape = shape[::-1] if kind == "linear" else (shape[4], shape[3], *shape[:3])
    name = ".".join(_module(module) for module in modules)
    if modules[-1] not in (*_LINEAR, *_NORMS, *_PLAIN):
        name += ".conv"
    return Entry(path=path, names=(f"{name}.{_LEAVES[leaf]}",), shape=shape, kind=kind)


def _module(name: str) -> str:
    for pattern, other in _MODULES:
        if match := re.fullmatch(pattern, name):
            return match.expand(other)
    return name
