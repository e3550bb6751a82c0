"""One segment after another: the step that training's samples and generation share."""

import flax.struct
import jax

from mpjax.diffusion.samplers import Euler
from mpjax.models.framepack import History, push
from mpjax.models.memorypack import Denoiser, Prompts
from mpjax.models.semanticpack import Memory


class VideoState(flax.struct.PyTreeNode):
    """All that the next segment depends on, besides its prompt and its noise."""

    history: History
    memory: Memory


def start_video(
    denoiser: Denoiser, params: dict, prompts: Prompts, reference: jax.Array, total: int | jax.Array = 0
) -> VideoState:
    """The state before the first segment.

    Args:
        denoiser: the network.
        params: its parameters.
        prompts: of the first segment, int32 `[b, l]`, or its embeddings.
        reference: latents of the first frame, `[b, 1, h, w, c]`.
        total: segments of the whole video; only the RoPE layout `framepack_f0` needs it.
    """
    history, memory = denoiser.start(params, prompts, reference, total)
    return VideoState(history=history, memory=memory)


def append_segment(denoiser: Denoiser, params: dict, state: VideoState, segment: jax.Array) -> VideoState:
    """Pushes a segment `[b, f, h, w, c]`, generated or given, into history and memory."""
    memory = denoiser.update_memory(params, state.memory, segment)
    history = push(state.history, segment, denoiser.architecture.framepack)
    return VideoState(history=history, memory=memory)


def sample_segment(
    denoiser: Denoiser, sampler: Euler, params: dict, state: VideoState, prompts: Prompts, noise: jax.Array
) -> jax.Array:
    """Draws the next segment from noise `[b, f, h, w, c]` under prompts int32 `[b, l]`, or their embeddings."""
    condition = denoiser.condition(params, prompts, state.history.reference)

    def velocity(x: jax.Array, t: jax.Array) -> jax.Array:
        return denoiser.velocity(params, x, t, state.history, condition, state.memory)

    return sampler.sample(velocity, noise)
