"""VBench's networks as probes, each with what is done to a picture in front of it.

Pictures come as uint8 `[b, height, width, 3]`.
"""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from mpjax.evaluation.vbench import vit
from mpjax.evaluation.vbench.amt import AMT, predict_middle
from mpjax.evaluation.vbench.dynamic import longest_flow, threshold
from mpjax.evaluation.vbench.musiq import MUSIQ
from mpjax.evaluation.vbench.probe import CLIP, IMAGENET, NetworkProbe, normalise
from mpjax.evaluation.vbench.raft import RAFT
from mpjax.evaluation.vbench.resize import centre_crop, resize, shorter_side
from mpjax.evaluation.vbench.weights import load, read

BATCH = 8


def dino_whole(images: jax.Array) -> jax.Array:
    """Shorter side 224, bilinear without antialiasing, not cropped."""
    size = shorter_side(images.shape, 224)
    return normalise(resize(images, size, "bilinear", antialias=False), IMAGENET)


def clip_image(images: jax.Array) -> jax.Array:
    """Shorter side 224, bicubic without antialiasing and not clipped, the middle square."""
    size = shorter_side(images.shape, 224)
    return normalise(centre_crop(resize(images, size, "bicubic", antialias=False), 224), CLIP)


def dino_cropped(images: jax.Array) -> jax.Array:
    """Shorter side 256, bicubic with antialiasing, the middle 224."""
    size = shorter_side(images.shape, 256)
    return normalise(centre_crop(resize(images, size, "bicubic", antialias=True), 224), IMAGENET)


def dino_cropped_picture(images: jax.Array) -> jax.Array:
    """The same through Pillow, with its rounding."""
    size = shorter_side(images.shape, 256)
    return normalise(centre_crop(resize(images, size, "bicubic", antialias=True, uint8=True), 224), IMAGENET)


@functools.cache
def vit_params(config: vit.ViTConfig, path: Path) -> Any:
    """Parameters of a network, on the device; read once, whatever number of probes look through it.

    Raises:
        InputError: the file is not that network's.
    """
    like = jax.ShapeDtypeStruct((1, config.grid * config.patch, config.grid * config.patch, 3), jnp.float32)
    # CLIP's file holds the network of the text too.
    return jax.device_put(load(vit.ViT(config), read(path, ("visual.",)), str(path), like))


@functools.cache
def vit_probe(config: vit.ViTConfig, path: Path, prepare: Callable[[jax.Array], jax.Array]) -> NetworkProbe:
    """A probe that gives the feature of each picture."""

    def apply(params: Any, images: jax.Array) -> jax.Array:
        return jnp.asarray(vit.ViT(config).apply(params, prepare(images)))

    return NetworkProbe(apply, vit_params(config, path), batch=BATCH)


@functools.cache
def aesthetic_probe(path: Path, head: Path) -> NetworkProbe:
    """LAION's linear head on the feature of CLIP ViT-L/14, of norm 1: about 1 to 10."""
    tensors, line = read(head), nn.Dense(1)
    params = load(line, tensors, str(head), jax.ShapeDtypeStruct((1, vit.CLIP_L14.out or 0), jnp.float32))

    def apply(params: Any, images: jax.Array) -> jax.Array:
        features = jnp.asarray(vit.ViT(vit.CLIP_L14).apply(params[0], clip_image(images)))
        unit = features / jnp.linalg.norm(features, axis=-1, keepdims=True)
        return jnp.asarray(line.apply(params[1], unit))[:, 0]

    return NetworkProbe(apply, (vit_params(vit.CLIP_L14, path), params), batch=BATCH)


@functools.cache
def musiq_probe(path: Path) -> NetworkProbe:
    """MUSIQ's score of each picture, 0 to 100."""
    module = MUSIQ()
    params = load(module, read(path), str(path), jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.uint8))
    return NetworkProbe(lambda params, images: jnp.asarray(module.apply(params, images)), params, batch=1)


@functools.cache
def raft_probe(path: Path) -> NetworkProbe:
    """RAFT's longest flows from the first to the second of two frames, in units of the threshold."""
    module = RAFT()
    params = load(module, read(path, ("module.",)), str(path), _SMALL, _SMALL)

    def apply(params: Any, first: jax.Array, second: jax.Array) -> jax.Array:
        flow = jnp.asarray(module.apply(params, first, second))
        return longest_flow(flow) / threshold(*first.shape[1:3])

    return NetworkProbe(apply, params, batch=1)


@functools.cache
def amt_probe(path: Path) -> NetworkProbe:
    """How far the middle one of three frames is from what AMT-S makes of the others: a mean difference, 0 to 255."""
    module = AMT()
    params = load(module, read(path, ("state_dict.",)), str(path), _SMALL, _SMALL)

    def apply(params: Any, before: jax.Array, middle: jax.Array, after: jax.Array) -> jax.Array:
        predicted = predict_middle(functools.partial(_pair, module, params), before, after)
        return jnp.abs(predicted - middle).mean((1, 2, 3))

    return NetworkProbe(apply, params, batch=1)


def _pair(module: AMT, params: Any, first: jax.Array, second: jax.Array) -> tuple[jax.Array, jax.Array]:
    image, flow = module.apply(params, first, second)
    return jnp.asarray(image), jnp.asarray(flow)


_SMALL = jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.float32)
