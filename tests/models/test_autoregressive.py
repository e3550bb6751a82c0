"""Sampling segment by segment is the hand-written loop over velocity, history and memory."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np

from mpjax.diffusion.samplers import Euler
from mpjax.models.autoregressive import append_segment, sample_segment, start_video


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
