"""Random weights and inputs of a network, made on the device: there once, and never on the host."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from mpjax.conditioning.pretrained import IMAGE_TOKENS, PROMPT_TOKENS, TEXT_TOKENS
from mpjax.interop.transformer_names import parameter_shapes
from mpjax.models.architecture import Architecture
from mpjax.models.encoders import Condition
from mpjax.models.flops import Tokens, token_counts
from mpjax.models.framepack import History
from mpjax.models.memory import Memory
from mpjax.models.memorypack import Denoiser


class Inputs(NamedTuple):
    """What a network evaluation reads besides its weights: arguments of `Denoiser.velocity`, in its order."""

    x_t: jax.Array
    t: jax.Array
    history: History
    condition: Condition
    memory: Memory


def random_params(architecture: Architecture, key: jax.Array, dtype: jnp.dtype) -> dict:
    """Weights that keep activations near unit scale: normal, deviation fan_in^-1/2; scales 1 ± 0.1, biases ± 0.1.

    What training initialises to zero (modulation, output head) is random too, or every block would be the identity. One
    array after the other is drawn, a layer at a time.
    """
    leaves, structure = jax.tree.flatten_with_path(parameter_shapes(architecture))
    drawn = []
    for number, (path, leaf) in enumerate(leaves):
        layers = leaf.shape[0] if path[0].key == "blocks" else None
        shape = leaf.shape if layers is None else leaf.shape[1:]
        centre = 1.0 if path[-1].key == "scale" else 0.0
        drawn.append(_draw(jax.random.fold_in(key, number), shape, layers, centre, jnp.dtype(dtype)))
    return jax.tree.unflatten(structure, drawn)


@functools.partial(jax.jit, static_argnums=(1, 2, 3, 4))
def _draw(key: jax.Array, shape: tuple[int, ...], layers: int | None, centre: float, dtype: jnp.dtype) -> jax.Array:
    deviation = shape[-2] ** -0.5 if len(shape) > 1 else 0.1

    def layer(key: jax.Array) -> jax.Array:
        return (centre + deviation * jax.random.normal(key, shape)).astype(dtype)

    return layer(key) if layers is None else jax.lax.map(layer, jax.random.split(key, layers))


def input_tokens(architecture: Architecture, latent_size: tuple[int, int]) -> Tokens:
    """Tokens of `random_inputs`: prompt and image as long as FramePack-F1's."""
    memory = _memory_shapes(architecture, latent_size).tokens.shape[1]
    return token_counts(architecture, latent_size, text=TEXT_TOKENS, image=IMAGE_TOKENS, memory=memory)


@functools.partial(jax.jit, static_argnums=(0, 1))
def random_inputs(architecture: Architecture, latent_size: tuple[int, int], key: jax.Array) -> Inputs:
    """One video in the middle of its generation: full history and memory, half of the prompt's tokens padding."""
    arch, pack = architecture, architecture.framepack
    memory = _memory_shapes(arch, latent_size).tokens.shape[1:]

    def normal(number: int, *shape: int) -> jax.Array:
        return jax.random.normal(jax.random.fold_in(key, number), (1, *shape))

    def latents(number: int, frames: int) -> jax.Array:
        return normal(number, frames, *latent_size, arch.channels)

    return Inputs(
        x_t=latents(0, pack.segment_frames),
        t=jnp.full((1,), 0.5),
        history=History(
            reference=latents(1, 1),
            frames=latents(2, pack.reach),
            segments=jnp.asarray(3, jnp.int32),
            total=jnp.asarray(5, jnp.int32),
        ),
        condition=Condition(
            text=normal(3, TEXT_TOKENS, arch.text_width),
            text_mask=(jnp.arange(TEXT_TOKENS) < PROMPT_TOKENS)[None],
            pooled=normal(4, arch.pooled_width),
            image=normal(5, IMAGE_TOKENS, arch.image_width),
        ),
        memory=Memory(tokens=normal(6, *memory), valid=jnp.ones((1, memory[0]), bool)),
    )


def _memory_shapes(architecture: Architecture, latent_size: tuple[int, int]) -> Memory:
    """ψ of one video as the network itself makes it, abstractly."""
    arch = architecture

    def first_memory(params: dict) -> Memory:
        condition = Condition(
            text=jnp.zeros((1, TEXT_TOKENS, arch.text_width)),
            text_mask=jnp.ones((1, TEXT_TOKENS), bool),
            pooled=jnp.zeros((1, arch.pooled_width)),
            image=jnp.zeros((1, IMAGE_TOKENS, arch.image_width)),
        )
        return Denoiser(arch).init_memory(params, condition, jnp.zeros((1, 1, *latent_size, arch.channels)))

    return jax.eval_shape(first_memory, parameter_shapes(arch))
