"""Every memory in generation: it goes on from a saved state bit for bit, and what it holds reaches the segment."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mpjax.diffusion.samplers import Euler
from mpjax.generation.state import GenerationState, load_state, save_state
from mpjax.models.autoregressive import append_segment, sample_segment, start_video
from mpjax.models.memorypack import Denoiser
from tests.memories import KINDS
from tests.tiny import perturbed_params, tiny_architecture, tiny_batch

SLOW = [pytest.param(kind, marks=pytest.mark.slow) for kind in ("C_gate", "first_segment", "long_window")]


@pytest.mark.parametrize("kind", ["mean_pool", "retrieval", *SLOW])
def test_a_video_goes_on_from_its_file_with_every_memory(kind, tmp_path):
    denoiser = Denoiser(tiny_architecture(memory=KINDS[kind]))
    batch = tiny_batch(denoiser.architecture, batch=1)
    params = perturbed_params(denoiser, batch)

    @jax.jit
    def following(video, n):
        noise = jax.random.normal(jax.random.fold_in(jax.random.key(5), n), batch.segments[:, 0].shape)
        segment = sample_segment(denoiser, Euler(steps=2), params, video, batch.prompts[:, 0], noise)
        return segment, append_segment(denoiser, params, video, segment)

    start = jax.jit(lambda: start_video(denoiser, params, batch.prompts[:, 0], batch.reference))()
    video, segments, videos = start, [], []
    for n in range(5):
        segment, video = following(video, n)
        segments.append(np.asarray(segment))
        videos.append(video)
    assert jax.tree.map(jnp.shape, videos[-1].memory) == jax.tree.map(jnp.shape, start.memory)
    saved = GenerationState(
        video=videos[1],
        key=jax.random.key(5),
        segment=jnp.int32(2),
        frames=jnp.int32(9),
        tail={},
        waiting=np.zeros((0, 4, 4, 3), np.float32),
    )
    save_state(tmp_path / "state", saved, {})
    video = load_state(tmp_path / "state")[0].video
    for n in range(2, 5):
        segment, video = following(video, n)
        np.testing.assert_array_equal(segment, segments[n])
    jax.tree.map(np.testing.assert_array_equal, video, videos[-1])
    update, other = jax.jit(lambda *args: denoiser.update_memory(params, *args)), start.memory
    for n in range(2):
        other = update(other, batch.segments[:, n])
    np.testing.assert_array_equal(other.valid, videos[1].memory.valid)
    misled, _ = following(videos[1].replace(memory=other), 2)
    assert np.abs(misled - segments[2]).max() > 1e-3
