"""Operations against hand calculation, and against the matrix products of the traced network."""

import jax
import jax.numpy as jnp
import pytest

from mpjax.interop.transformer_names import parameter_shapes
from mpjax.models.architecture import Architecture, FramePack
from mpjax.models.encoders import Condition
from mpjax.models.flops import Tokens, token_counts, velocity_flops
from mpjax.models.framepack import empty_history
from mpjax.models.memory import Memory
from mpjax.models.memorypack import Denoiser
from tests.tiny import tiny_architecture
from tests.tracing import multiplications


def test_tokens_of_framepack_f1_at_480_by_832():
    """A frame of 60 × 104 latents is 30 × 52 tokens, 15 × 26 at 2x, and 8 × 13 at 4x (the edge padded)."""
    arch = Architecture(encoders=None)
    tokens = token_counts(arch, (60, 104), text=512, image=729, memory=1950)
    assert tokens.noisy == 9 * 1560
    assert tokens.history == (2 * 1560, 390, 4 * 104)
    assert tokens.latents == 17_966
    assert tokens.context == 3191


def test_a_network_small_enough_for_paper():
    """Width 4, MLP 8, one block of each kind, two channels in patches of one: every line worked out by hand."""
    arch = Architecture(
        channels=2,
        heads=1,
        head_dim=4,
        rope_axes=(0, 2, 2),
        mlp_ratio=2.0,
        patch=1,
        dual_blocks=1,
        single_blocks=1,
        refiner_blocks=1,
        guidance_embeds=False,
        text_width=3,
        pooled_width=5,
        image_width=6,
        memory=None,
        encoders=None,
    )
    tokens = Tokens(noisy=7, history=(2, 1, 1), image=3, text=2, memory=0)  # 11 + 5 = 16 in the blocks
    found = velocity_flops(arch, tokens)
    patches = 2 * 7 * 2 * 4 + 2 * 2 * 2 * 4 + 2 * 1 * 16 * 4 + 2 * 1 * 128 * 4  # 112 + 32 + 128 + 1024
    conditioning = (2 * 256 * 4 + 32) + (2 * 5 * 4 + 32)  # 2080 + 72
    image = 2 * 3 * 6 * 12 + 2 * 3 * 12 * 4  # 432 + 288
    refiner = 2080 + (2 * 3 * 4 + 32) + 2 * 2 * 3 * 4  # 2080 + 56 + 48
    refiner += 2 * 4 * 8 + 4 * (2 * 2 * 4 * 4) + 2 * (2 * 2 * 2 * 4) + 2 * (2 * 2 * 4 * 8)  # 64 + 256 + 64 + 256
    assert found["embed"] == patches + conditioning + image + refiner == 1296 + 2152 + 720 + 2824
    attention, mlp = 4 * (2 * 16 * 4 * 4) + 2 * (2 * 16 * 16 * 4), 2 * (2 * 16 * 4 * 8)
    assert (attention, mlp) == (6144, 2048)
    assert found["dual_blocks"] == 2 * (2 * 4 * 24) + attention + mlp == 8576
    assert found["single_blocks"] == 2 * 4 * 12 + attention + mlp == 8288
    assert found["head"] == 2 * 4 * 8 + 2 * 7 * 4 * 2 == 176
    assert velocity_flops(arch, tokens, batch=3) == {name: 3 * count for name, count in found.items()}


@pytest.mark.parametrize("memory", [0, 11])
@pytest.mark.parametrize("guided", [False, True])
def test_it_is_what_the_network_multiplies(memory, guided):
    arch = tiny_architecture(
        memory=None,
        encoders=None,
        guidance_embeds=guided,
        dual_blocks=3,
        single_blocks=2,
        refiner_blocks=2,
        framepack=FramePack(segment_frames=3, history_frames=(1, 2, 4)),
    )
    batch, size, text, image = 2, (6, 10), 5, 7
    tokens = token_counts(arch, size, text=text, image=image, memory=memory)
    reference = jnp.zeros((batch, 1, *size, arch.channels))
    condition = Condition(
        text=jnp.zeros((batch, text, arch.text_width)),
        text_mask=jnp.ones((batch, text), bool),
        pooled=jnp.zeros((batch, arch.pooled_width)),
        image=jnp.zeros((batch, image, arch.image_width)),
    )
    psi = Memory(tokens=jnp.zeros((batch, memory, 16)), valid=jnp.ones((batch, memory), bool))
    arguments = (
        jnp.zeros((batch, 3, *size, arch.channels)),
        jnp.zeros(batch),
        empty_history(reference, arch.framepack),
        condition,
        psi,
    )
    traced = jax.make_jaxpr(Denoiser(arch).velocity)(parameter_shapes(arch), *arguments)
    assert sum(velocity_flops(arch, tokens, batch).values()) == multiplications(traced.jaxpr)
