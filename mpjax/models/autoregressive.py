"""One segment after another: the step that training's samples and generation share."""

import flax.struct
import jax
import jax.numpy as jnp

from mpjax.diffusion.guidance import UNGUIDED, ClassifierFree
from mpjax.diffusion.samplers import Sampler, Velocity
from mpjax.models.encoders import Condition
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
    denoiser: Denoiser,
    sampler: Sampler,
    params: dict,
    state: VideoState,
    prompts: Prompts,
    noise: jax.Array,
    classifier_free: ClassifierFree = UNGUIDED,
    negative: Prompts | None = None,
) -> jax.Array:
    """Draws the next segment.

    Args:
        denoiser, params: the network.
        sampler: how to integrate its velocity; a dynamic shift sees the noisy tokens of this segment.
        state: history and memory.
        prompts: int32 `[b, l]`, or embeddings made before.
        noise: `[b, f, h, w, c]`.
        classifier_free: guidance; where it is active the network is evaluated a second time, under the negative prompts
            and the same history, memory and image.
        negative: negative prompts, as `prompts`; None is the empty prompt.

    Returns:
        the segment `[b, f, h, w, c]`.

    Raises:
        ValueError: embeddings without negative ones, though guidance is active.
    """
    condition = denoiser.condition(params, prompts, state.history.reference)

    def under(condition: Condition) -> Velocity:
        return lambda x, t: denoiser.velocity(params, x, t, state.history, condition, state.memory)

    velocity = under(condition)
    if classifier_free.active:
        if negative is None:
            if isinstance(prompts, Condition):
                raise ValueError("the prompts are embeddings: pass those of the negative prompt too")
            negative = jnp.zeros_like(prompts)  # no byte at all
        opposite = denoiser.condition(params, negative, state.history.reference).replace(image=condition.image)
        velocity = classifier_free.guide(velocity, under(opposite))
    _, f, h, w, _ = noise.shape
    patch = denoiser.architecture.patch
    return sampler.sample(velocity, noise, f * (h // patch) * (w // patch))
