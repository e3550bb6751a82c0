"""What SemanticPack changes in FramePack-F1, and what it must not change."""

import dataclasses
import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mpjax.models.architecture import Architecture, FramePack
from mpjax.models.encoders import Condition
from mpjax.models.framepack import CleanEmbedder, History, packed_table
from mpjax.models.layers import Dense, patchify, unpatchify
from mpjax.models.memory import Memory
from mpjax.models.memorypack import Denoiser, ImageProjection
from mpjax.models.mmdit import MMDiT, OutputHead, TimeTextEmbedding
from mpjax.models.refiner import TokenRefiner
from mpjax.models.semanticpack import SemanticPack
from tests.fixtures import seeded
from tests.interop.checkpoints import ARCHITECTURE

F1 = dataclasses.replace(ARCHITECTURE, framepack=FramePack(segment_frames=3), dtype="float32", remat="none")


def with_memory():
    return dataclasses.replace(F1, memory=SemanticPack(heads=2))


class PlainF1(nn.Module):
    """FramePack-F1 with the same pieces, written without any memory."""

    architecture: Architecture

    @nn.compact
    def __call__(self, x_t, t, history, condition, guidance):
        arch = self.architecture
        timestep = 1000.0 * (1.0 - t)
        noisy = Dense(arch.width, (None, "embed"), name="x_embedder")(patchify(x_t, (1, 2, 2)))
        tokens = jnp.concatenate([CleanEmbedder(arch, name="clean_x_embedder")(history), noisy], 1)
        embed = TimeTextEmbedding(arch.width, arch.guidance_embeds, name="time_text_embed")
        temb = embed(timestep, guidance, condition.pooled)
        image = ImageProjection(arch.width, name="image_projection")(condition.image)
        refiner = TokenRefiner(arch.width, arch.heads, arch.mlp_width, arch.refiner_blocks, name="context_embedder")
        text = refiner(condition.text, condition.text_mask, timestep)
        image_mask = jnp.ones(image.shape[:2], bool)
        context = jnp.concatenate([image, text], 1)
        mask = jnp.concatenate([image_mask, condition.text_mask], 1)
        tokens = MMDiT(arch, name="blocks")(tokens, context, mask, temb, packed_table(history, arch))
        tokens = tokens[:, -noisy.shape[1] :]
        return -unpatchify(OutputHead(64, name="head")(tokens, temb), *x_t.shape[1:4], 2)


@pytest.fixture(scope="module")
def inputs():
    """x_t, t, history, condition of two videos on 8 × 8 latents."""

    def draw(name, *shape):
        return jnp.asarray(seeded.normal(name, shape))

    history = History(
        reference=draw("reference", 2, 1, 8, 8, 16),
        frames=draw("frames", 2, 19, 8, 8, 16),
        segments=jnp.int32(2),
        total=jnp.int32(0),
    )
    mask = np.arange(6) < np.array([[6], [3]])
    condition = Condition(
        text=draw("text", 2, 6, 24),
        text_mask=jnp.asarray(mask),
        pooled=draw("pooled", 2, 20),
        image=draw("image", 2, 4, 28),
    )
    return draw("x", 2, 3, 8, 8, 16), jnp.asarray([0.3, 0.8]), history, condition


def perturbed(params):
    leaves, structure = jax.tree.flatten(nn.unbox(params))
    drawn = [leaf + 0.05 * seeded.normal(f"leaf {i}", leaf.shape) for i, leaf in enumerate(leaves)]
    return jax.tree.unflatten(structure, drawn)


@pytest.fixture(scope="module")
def params(inputs):
    """Perturbed parameters of a network with memory; plain F1 uses part of them."""
    x_t, _, history, condition = inputs
    return perturbed(jax.jit(Denoiser(with_memory()).init)(jax.random.key(0), condition, history.reference, x_t))


def nothing(batch=2):
    return Memory(tokens=jnp.zeros((batch, 0, F1.width)), valid=jnp.zeros((batch, 0), bool))


def test_without_memory_it_is_framepack_f1_to_the_last_operation(inputs, params):
    x_t, t, history, condition = inputs
    plain = {name: leaf for name, leaf in params.items() if name not in ("memorize", "squeeze")}
    none = nothing()

    def f1(params):
        guidance = jnp.full((2,), 1000.0)
        return PlainF1(F1).apply({"params": params}, x_t, t, history, condition, guidance)

    def without(params):
        return Denoiser(F1).velocity(params, x_t, t, history, condition, none)

    def empty(params):
        return Denoiser(with_memory()).velocity(params, x_t, t, history, condition, none)

    expected = jax.jit(f1)(plain)
    assert float(jnp.abs(expected).max()) > 0.1
    for function in (without, empty):
        assert str(jax.make_jaxpr(function)(plain)) == str(jax.make_jaxpr(f1)(plain))
        np.testing.assert_array_equal(np.asarray(jax.jit(function)(plain)), np.asarray(expected))


def test_masked_memory_leaves_no_trace_and_zeros_do(inputs, params):
    x_t, t, history, condition = inputs
    velocity = jax.jit(functools.partial(Denoiser(with_memory()).velocity, params, x_t, t, history, condition))
    plain = velocity(nothing())
    tokens = jnp.asarray(seeded.normal("ψ", (2, 7, F1.width)))
    masked = velocity(Memory(tokens=tokens, valid=jnp.zeros((2, 7), bool)))
    np.testing.assert_allclose(np.asarray(masked), np.asarray(plain), atol=1e-6, rtol=0)
    # A token of zeros is a key like any other: it draws attention away from the rest.
    zeros = velocity(Memory(tokens=jnp.zeros_like(tokens), valid=jnp.ones((2, 7), bool)))
    assert float(jnp.abs(zeros - plain).max()) > 1e-3


def test_how_far_a_fresh_memory_starts_from_f1(inputs, params):
    """Relative RMS distance of the velocity with ψ_0 and ψ_1 of fresh SemanticPack weights; printed with -s."""
    x_t, t, history, condition = inputs
    denoiser = Denoiser(with_memory())
    fresh = nn.unbox(jax.jit(denoiser.init)(jax.random.key(1), condition, history.reference, x_t))
    params = params | {name: fresh[name] for name in ("memorize", "squeeze")}
    velocity = jax.jit(functools.partial(denoiser.velocity, params, x_t, t, history, condition))
    first = denoiser.init_memory(params, condition, history.reference)
    second = denoiser.update_memory(params, first, history.frames[:, -3:])
    plain = velocity(nothing())
    distance = [float(jnp.linalg.norm(velocity(memory) - plain) / jnp.linalg.norm(plain)) for memory in (first, second)]
    print(f"relative distance from plain F1: ψ_0 {distance[0]:.3f}, ψ_1 {distance[1]:.3f}")
    assert all(1e-4 < value < 1.0 for value in distance)
