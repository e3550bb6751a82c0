"""Sampling segment by segment is the hand-written loop over velocity, history and memory."""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mpjax.diffusion.guidance import UNGUIDED, ClassifierFree
from mpjax.diffusion.samplers import Euler, UniPC, dynamic_shift
from mpjax.models.autoregressive import VideoState, append_segment, sample_segment, start_video
from mpjax.models.encoders import Condition
from mpjax.models.framepack import empty_history
from mpjax.models.memorypack import Denoiser
from tests.tiny import tiny_architecture, tiny_batch


def test_two_segments_equal_the_loop_by_hand(tiny):
    denoiser, batch, params = tiny
    sampler = Euler(steps=3, shift=2.0)
    noise = jax.random.normal(jax.random.key(5), (2, *batch.segments[:, 0].shape))

    sample = jax.jit(lambda *args: sample_segment(denoiser, sampler, *args))
    append = jax.jit(lambda *args: append_segment(denoiser, *args))
    begin = jax.jit(lambda params, prompts: start_video(denoiser, params, prompts, batch.reference))
    state, got = begin(params, batch.prompts[:, 0]), []
    for n in range(2):
        got.append(sample(params, state, batch.prompts[:, n], noise[n]))
        state = append(params, state, got[-1])

    functions = (denoiser.start, denoiser.condition, denoiser.velocity, denoiser.update_memory)
    start, conditioned, velocity, update = map(jax.jit, functions)
    history, memory = start(params, batch.prompts[:, 0], batch.reference)
    want = []
    for n in range(2):
        condition = conditioned(params, batch.prompts[:, n], batch.reference)
        x = noise[n]
        sigmas = [2.0 * s / (1.0 + s) for s in (1.0, 2 / 3, 1 / 3, 0.0)]
        for s, following in itertools.pairwise(sigmas):
            x = x + (s - following) * velocity(params, x, jnp.full(2, 1.0 - s), history, condition, memory)
        want.append(x)
        memory = update(params, memory, x)
        frames = jnp.concatenate([history.frames, x], 1)[:, -history.frames.shape[1] :]
        history = history.replace(frames=frames, segments=history.segments + 1)
    np.testing.assert_allclose(np.stack(got), np.stack(want), atol=1e-4)
    assert np.abs(got[0] - got[1]).max() > 0.1


@dataclasses.dataclass(frozen=True)
class Plain(Denoiser):
    """A velocity simple enough to know, which still sees everything; notes what it is traced under."""

    traced: list = dataclasses.field(default_factory=list, hash=False, compare=False)

    def condition(self, params, prompts, reference):
        if isinstance(prompts, Condition):
            return prompts
        text = prompts.mean(-1, keepdims=True)
        return Condition(text=text, text_mask=prompts > 0, pooled=text, image=reference.mean((1, 2, 3, 4))[:, None])

    def velocity(self, params, x_t, t, history, condition, memory):
        self.traced.append(condition)
        parts = (condition.pooled, condition.image, memory, history.frames.mean((1, 2, 3, 4))[:, None], t[:, None])
        return jnp.sin(x_t) + sum(parts)[..., None, None, None]


DENOISER = Plain(tiny_architecture())
BATCH = tiny_batch(DENOISER.architecture)
STATE = VideoState(
    history=empty_history(BATCH.reference, DENOISER.architecture.framepack), memory=jnp.array([[0.3], [0.7]])
)
NOISE = jax.random.normal(jax.random.key(7), BATCH.segments[:, 0].shape)


def drawn(sampler, *guidance, prompts=BATCH.prompts[:, 0]):
    """(a segment, the number of evaluations a step)."""
    DENOISER.traced.clear()
    segment = sample_segment(DENOISER, sampler, {}, STATE, prompts, NOISE, *guidance)
    return np.asarray(segment), len(DENOISER.traced)


@pytest.mark.parametrize("sampler", [Euler(steps=3), UniPC(steps=3)])
def test_guided_sampling_is_the_combination_of_two_prompts(sampler):
    """By hand: the sampler over v⁻ + s·(v⁺ − v⁻), with the same history, memory and image."""
    guided, evaluations = drawn(sampler, ClassifierFree(scale=2.5), BATCH.prompts[:, 1])
    positive, negative = (DENOISER.condition({}, BATCH.prompts[:, n], BATCH.reference) for n in (0, 1))

    def velocity(x, t):
        v, opposite = (DENOISER.velocity({}, x, t, STATE.history, c, STATE.memory) for c in (positive, negative))
        return 2.5 * v - 1.5 * opposite

    np.testing.assert_allclose(guided, sampler.sample(velocity, NOISE), rtol=1e-5, atol=1e-5)
    assert evaluations == 2 and np.abs(guided - drawn(sampler)[0]).max() > 0.1


def test_the_negative_is_the_empty_prompt_and_costs_nothing_at_scale_1():
    sampler, scale_2 = Euler(steps=2), ClassifierFree(scale=2.0)
    guided, _ = drawn(sampler, scale_2)
    np.testing.assert_array_equal(guided, drawn(sampler, scale_2, jnp.zeros_like(BATCH.prompts[:, 0]))[0])
    plain, evaluations = drawn(sampler)
    off, with_negative = drawn(sampler, UNGUIDED, BATCH.prompts[:, 1])
    np.testing.assert_array_equal(plain, off)
    assert evaluations == with_negative == 1 and np.abs(plain - guided).max() > 0.1


def test_embedded_prompts_take_an_embedded_negative_and_keep_their_image():
    sampler, scale_2 = Euler(steps=2), ClassifierFree(scale=2.0)
    want, _ = drawn(sampler, scale_2, BATCH.prompts[:, 1])
    positive, negative = (DENOISER.condition({}, BATCH.prompts[:, n], BATCH.reference) for n in (0, 1))
    got, _ = drawn(sampler, scale_2, negative.replace(image=negative.image + 1), prompts=positive)
    np.testing.assert_allclose(got, want, rtol=1e-6)
    with pytest.raises(ValueError, match="pass those of the negative prompt too"):
        drawn(sampler, scale_2, prompts=positive)


def test_the_dynamic_shift_counts_the_noisy_tokens_of_a_segment():
    """2 frames of 4 × 4 latents in patches of 2."""
    assert NOISE.shape[1:4] == (2, 4, 4) and DENOISER.architecture.patch == 2
    dynamic, fixed, other = (
        drawn(Euler(steps=3, shift=shift))[0] for shift in (None, dynamic_shift(8), dynamic_shift(32))
    )
    np.testing.assert_allclose(dynamic, fixed, atol=1e-6)
    assert np.abs(dynamic - other).max() > 1e-4
