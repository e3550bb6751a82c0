"""What VBench does to a picture before each of its vision transformers, and the probes made of both.

Pictures come as uint8 `[b, height, width, 3]`.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from mpjax.evaluation.vbench import vit
from mpjax.evaluation.vbench.probe import CLIP, IMAGENET, NetworkProbe, normalise
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


def vit_probe(
    config: vit.ViTConfig, path: Path, prepare: Callable[[jax.Array], jax.Array], prefixes: tuple[str, ...] = ()
) -> NetworkProbe:
    """A probe that gives the feature of each picture.

    Raises:
        InputError: the file is not that network's.
    """
    module = vit.ViT(config)
    like = jax.ShapeDtypeStruct((1, config.grid * config.patch, config.grid * config.patch, 3), jnp.float32)
    params = load(module, read(path, prefixes), str(path), like)

    def apply(params: Any, images: jax.Array) -> jax.Array:
        return jnp.asarray(module.apply(params, prepare(images)))

    return NetworkProbe(apply, params, batch=BATCH)
