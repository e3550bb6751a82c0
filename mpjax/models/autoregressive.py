"""One segment after another: the step that training's samples and generation share."""

import flax.struct
import jax

from mpjax.diffusion.samplers import Euler
from mpjax.models.framepack import History, push
from mpjax.models.memorypack import Denoiser
from mpjax.models.semanticpack import Memory


class VideoState(flax.struct.PyTreeNode):
    """All that the next segment depends on, besides its prompt and its noise."""

    history: History
    memory: Memory


def start_video(denoiser: Denoiser, params: dict, prompts: jax.Array, reference: jax.Array) -> VideoState:
    """The state before the first segment: prompts int32 `[b, l]`, reference latents `[b, 1, h, w, c]`."""
    history, memory = denoiser.start(params, prompts, reference)
    return VideoState(history=history, memory=memory)


def append_segment(denoiser: Denoiser, params: dict, state: VideoState, segment: jax.Array) -> VideoState:
    """Pushes a segment `[b, f, h, w, c]`, generated or given, into history and memory."""
    memory = denoiser.update_memory(params, state.memory, segment)
    return VideoState(history=push(state.history, segment), memory=memory)


def sample_segment(
    denoiser: Denoiser, sampler: Euler, params: dict, state: VideoState, prompts: jax.Array, noise: jax.Array
) -> jax.Array:
    """Draws the next segment from noise `[b, f, h, w, c]` under prompts int32 `[b, l]`."""
    condition = denoiser.condition(params, prompts, state.history.reference)

    def velocity(x: jax.Array, t: jax.Array) -> jax.Array:
        return denoiser.velocity(params, x, t, state.history, condition, state.memory)

    return sampler.sample(velocity, noise)
