"""The names of the transformer's tensors in the checkpoints of diffusers and of lllyasviel, which are the same.

Source: docs/backbone.md, section 1.12 (diffusers 0.42 `HunyuanVideoFramepackTransformer3DModel.state_dict()`).
"""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from mpjax.interop.layout import Entry, Kind
from mpjax.models.architecture import Architecture
from mpjax.models.encoders import Condition
from mpjax.models.framepack import RATES
from mpjax.models.memorypack import Denoiser, Prompts

OWN_PREFIX = "mpjax."  # tensors that no other implementation has: long-term memory and built-in encoders

_FEED_FORWARD = {"up": "net.0.proj", "down": "net.2"}
_ATTENTION = {"to_q": "attn.to_q", "to_k": "attn.to_k", "to_v": "attn.to_v"}
_NORMED = _ATTENTION | {"norm_q": "attn.norm_q", "norm_k": "attn.norm_k"}
_ADDED = {
    "to_q": "attn.add_q_proj",
    "to_k": "attn.add_k_proj",
    "to_v": "attn.add_v_proj",
    "norm_q": "attn.norm_added_q",
    "norm_k": "attn.norm_added_k",
}


def _under(prefix: str, names: dict[str, str]) -> dict[str, str]:
    return {f"{prefix}/{name}": other for name, other in names.items()}


def _feed_forward(name: str) -> dict[str, str]:
    return {f"{name}/{ours}": f"{name}.{theirs}" for ours, theirs in _FEED_FORWARD.items()}


_REFINER_BLOCK = (
    {"norm1": "norm1", "norm2": "norm2", "to_out": "attn.to_out.0", "norm_out/linear": "norm_out.linear"}
    | _ATTENTION
    | _feed_forward("ff")
)
_DUAL_BLOCK = (
    {"norm1/linear": "norm1.linear", "norm1_context/linear": "norm1_context.linear"}
    | {"to_out": "attn.to_out.0", "to_out_context": "attn.to_add_out"}
    | _under("qkv", _NORMED)
    | _under("qkv_context", _ADDED)
    | _feed_forward("ff")
    | _feed_forward("ff_context")
)
_SINGLE_BLOCK = {"norm/linear": "norm.linear", "proj_mlp": "proj_mlp", "proj_out": "proj_out"} | _under("qkv", _NORMED)
_TOP = {
    "x_embedder": "x_embedder.proj",
    "clean_x_embedder/proj_1x": "clean_x_embedder.proj",
    "clean_x_embedder/proj_2x": "clean_x_embedder.proj_2x",
    "clean_x_embedder/proj_4x": "clean_x_embedder.proj_4x",
    "context_embedder/proj_in": "context_embedder.proj_in",
    "image_projection/up": "image_projection.up",
    "image_projection/down": "image_projection.down",
    "head/norm_out/linear": "norm_out.linear",
    "head/proj_out": "proj_out",
}
_EMBEDDERS = ("timestep_embedder", "guidance_embedder", "text_embedder")
_LEAVES = {"kernel": "weight", "scale": "weight", "bias": "bias"}
_OWN = ("memorize", "squeeze", "recall", "prompt_encoder", "frame_encoder")


def parameter_shapes(architecture: Architecture) -> dict[str, Any]:
    """The parameter tree of an architecture as `jax.ShapeDtypeStruct`; nothing is allocated."""
    return nn.unbox(boxed_shapes(architecture))


@functools.cache
def boxed_shapes(architecture: Architecture) -> dict[str, Any]:
    """The same, boxed with logical axis names."""
    arch = architecture
    size = (4 * arch.patch, 4 * arch.patch, arch.channels)

    def init(key: jax.Array) -> dict:
        """Any size of latents and any number of tokens gives the same parameters."""
        prompts: Prompts
        if arch.encoders:
            prompts = jnp.zeros((1, arch.encoders.prompt_bytes), jnp.int32)
        else:
            prompts = Condition(
                text=jnp.zeros((1, 1, arch.text_width)),
                text_mask=jnp.ones((1, 1), bool),
                pooled=jnp.zeros((1, arch.pooled_width)),
                image=jnp.zeros((1, 1, arch.image_width)),
            )
        segment = jnp.zeros((1, arch.framepack.segment_frames, *size))
        return Denoiser(arch).init(key, prompts, jnp.zeros((1, 1, *size)), segment)

    return jax.eval_shape(init, jax.random.key(0))


@functools.cache
def transformer_entries(architecture: Architecture) -> tuple[Entry, ...]:
    """Every array of the network and where checkpoints keep it, in the order of the tree.

    The long-term memory's arrays and those of the built-in encoders keep their own paths behind `mpjax.`.
    """
    shapes = jax.tree.leaves_with_path(parameter_shapes(architecture))
    return tuple(_entry(architecture, tuple(key.key for key in path), leaf.shape) for path, leaf in shapes)


@functools.cache
def linear_layers(architecture: Architecture) -> dict[str, tuple[int, int]]:
    """The linear layers that other implementations have, by their name there: shape of the weight, `[out, in]`."""
    return {
        name.removesuffix(".weight"): (entry.shape[0], entry.shape[1])
        for entry in linear_entries(architecture)
        for name in entry.names
    }


def linear_entries(architecture: Architecture) -> tuple[Entry, ...]:
    """The kernels of these layers."""
    return tuple(entry for entry in transformer_entries(architecture) if entry.kind == "linear")


def _entry(arch: Architecture, path: tuple[str, ...], shape: tuple[int, ...]) -> Entry:
    if path[0] in _OWN:
        return Entry(path=path, names=(OWN_PREFIX + ".".join(path),), shape=shape, kind="same")
    module, leaf = "/".join(path[:-1]), _LEAVES[path[-1]]
    if path[0] == "blocks":
        stack = "transformer_blocks" if path[1] == "dual_blocks" else "single_transformer_blocks"
        name = (_DUAL_BLOCK if path[1] == "dual_blocks" else _SINGLE_BLOCK)["/".join(path[2:-1])]
        names = tuple(f"{stack}.{layer}.{name}.{leaf}" for layer in range(shape[0]))
        kind: Kind = "linear" if path[-1] == "kernel" else "same"
        return Entry(path=path, names=names, shape=_their_shape(kind, shape[1:]), kind=kind, stacked=True)
    kind = "linear" if path[-1] == "kernel" else "same"
    if module in ("x_embedder", *(f"clean_x_embedder/proj_{rate}x" for rate in RATES)) and kind == "linear":
        rate = 1 if module == "x_embedder" else int(module[-2])
        kernel = (rate, rate * arch.patch, rate * arch.patch)
        return Entry(
            path=path, names=(f"{_TOP[module]}.{leaf}",), shape=(shape[1], arch.channels, *kernel), kind="patch"
        )
    return Entry(path=path, names=(f"{_their_name(path)}.{leaf}",), shape=_their_shape(kind, shape), kind=kind)


def _their_name(path: tuple[str, ...]) -> str:
    module = "/".join(path[:-1])
    if module in _TOP:
        return _TOP[module]
    if path[1] in _EMBEDDERS:
        inside = "context_embedder.time_text_embed" if path[0] == "context_embedder" else path[0]
        return ".".join((inside, *path[1:-1]))
    number = path[1].removeprefix("block_")
    return f"context_embedder.token_refiner.refiner_blocks.{number}.{_REFINER_BLOCK['/'.join(path[2:-1])]}"


def _their_shape(kind: Kind, shape: tuple[int, ...]) -> tuple[int, ...]:
    return shape[::-1] if kind == "linear" else shape
