"""Sampling segment by segment is the hand-written loop over velocity, history and memory."""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mpjax.diffusion.guidance import UNGUIDED, ClassifierFree
from mpjax.diffusion.samplers import Euler, UniPC, dynamic_shift
from mpjax.models.autoregressive import append_segment, sample_segment, start_video
from mpjax.models.memorypack import Denoiser


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
class Counted(Denoiser):
    """Notes which prompt each evaluation that is traced stands under."""

    traced: list = dataclasses.field(default_factory=list, hash=False, compare=False)

    def velocity(self, params, x_t, t, history, condition, memory):
        self.traced.append(condition)
        return super().velocity(params, x_t, t, history, condition, memory)


def segment(tiny, sampler, classifier_free=UNGUIDED, negative=None, embedded=False):
    """(a segment of the tiny network, what was traced, embeddings of a prompt)."""
    denoiser, batch, params = tiny
    counted = Counted(denoiser.architecture)
    state = start_video(denoiser, params, batch.prompts[:, 0], batch.reference)
    noise = jax.random.normal(jax.random.key(7), batch.segments[:, 0].shape)
    prompts = batch.prompts[:, 0]
    if embedded:
        prompts = denoiser.condition(params, prompts, batch.reference)
    args = (params, state, prompts, noise)
    drawn = jax.jit(lambda *args: sample_segment(counted, sampler, *args, classifier_free, negative))(*args)
    return np.asarray(drawn), counted.traced


@pytest.mark.parametrize("sampler", [Euler(steps=3), UniPC(steps=3)])
def test_guided_sampling_is_the_combination_of_two_prompts(tiny, sampler):
    """By hand: the sampler over v⁻ + s·(v⁺ − v⁻), with the same history, memory and image."""
    denoiser, batch, params = tiny
    drawn, traced = segment(tiny, sampler, ClassifierFree(scale=2.5), batch.prompts[:, 1])
    assert len(traced) == 2

    history, memory = denoiser.start(params, batch.prompts[:, 0], batch.reference)
    positive, negative = (denoiser.condition(params, batch.prompts[:, n], batch.reference) for n in (0, 1))

    @jax.jit
    def velocity(x, t):
        v, opposite = (denoiser.velocity(params, x, t, history, c, memory) for c in (positive, negative))
        return 2.5 * v - 1.5 * opposite

    noise = jax.random.normal(jax.random.key(7), batch.segments[:, 0].shape)
    np.testing.assert_allclose(drawn, sampler.sample(velocity, noise), atol=1e-4)
    assert np.abs(drawn - segment(tiny, sampler)[0]).max() > 0.01


def test_the_negative_is_the_empty_prompt_and_costs_nothing_at_scale_1(tiny):
    _, batch, _ = tiny
    guided, _ = segment(tiny, Euler(steps=2), ClassifierFree(scale=2.0))
    empty, _ = segment(tiny, Euler(steps=2), ClassifierFree(scale=2.0), jnp.zeros_like(batch.prompts[:, 0]))
    np.testing.assert_array_equal(guided, empty)
    plain, traced = segment(tiny, Euler(steps=2))
    off, with_negative = segment(tiny, Euler(steps=2), UNGUIDED, batch.prompts[:, 1])
    np.testing.assert_array_equal(plain, off)
    assert len(traced) == len(with_negative) == 1 and np.abs(plain - guided).max() > 0.01


def test_embedded_prompts_take_an_embedded_negative_and_keep_their_image(tiny):
    denoiser, batch, params = tiny
    want, _ = segment(tiny, Euler(steps=2), ClassifierFree(scale=2.0), batch.prompts[:, 1])
    negative = denoiser.condition(params, batch.prompts[:, 1], batch.reference)
    negative = negative.replace(image=negative.image + 1)
    got, _ = segment(tiny, Euler(steps=2), ClassifierFree(scale=2.0), negative, embedded=True)
    np.testing.assert_allclose(got, want, atol=1e-5)
    with pytest.raises(ValueError, match="pass those of the negative prompt too"):
        segment(tiny, Euler(steps=2), ClassifierFree(scale=2.0), embedded=True)


def test_the_dynamic_shift_counts_the_noisy_tokens_of_a_segment(tiny):
    """2 frames of 4 × 4 latents in patches of 2."""
    dynamic, fixed = (segment(tiny, Euler(steps=3, shift=shift))[0] for shift in (None, dynamic_shift(2 * 2 * 2)))
    np.testing.assert_allclose(dynamic, fixed, atol=1e-6)
    assert np.abs(dynamic - segment(tiny, Euler(steps=3, shift=dynamic_shift(2 * 4 * 4)))[0]).max() > 1e-5
