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

    @jax.jit
    def draw(params, noise):
        state, drawn = start_video(denoiser, params, batch.prompts[:, 0], batch.reference), []
        for n in range(2):
            drawn.append(sample_segment(denoiser, sampler, params, state, batch.prompts[:, n], noise[n]))
            state = append_segment(denoiser, params, state, drawn[-1])
        return jnp.stack(drawn)

    history, memory = denoiser.start(params, batch.prompts[:, 0], batch.reference)
    velocity, update = jax.jit(denoiser.velocity), jax.jit(denoiser.update_memory)
    want = []
    for n in range(2):
        condition = denoiser.condition(params, batch.prompts[:, n], batch.reference)
        x = noise[n]
        sigmas = [2.0 * s / (1.0 + s) for s in (1.0, 2 / 3, 1 / 3, 0.0)]
        for s, following in itertools.pairwise(sigmas):
            x = x + (s - following) * velocity(params, x, jnp.full(2, 1.0 - s), history, condition, memory)
        want.append(x)
        memory = update(params, memory, x)
        frames = jnp.concatenate([history.frames, x], 1)[:, -history.frames.shape[1] :]
        history = history.replace(frames=frames, segments=history.segments + 1)
    got = draw(params, noise)
    np.testing.assert_allclose(got, np.stack(want), atol=1e-4)
    assert np.abs(got[0] - got[1]).max() > 0.1
