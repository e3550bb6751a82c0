"""One segment after another: the step that training's samples and generation share."""

import flax.struct
import jax
import jax.numpy as jnp

from mpjax.diffusion.guidance import UNGUIDED, ClassifierFree
from mpjax.diffusion.samplers import Sampler, StatefulVelocity
from mpjax.models.encoders import Condition
from mpjax.models.framepack import History, push
from mpjax.models.memory import Memory
from mpjax.models.memorypack import Denoiser, Prompts
from mpjax.models.teacache import CachedDenoiser, CacheState, TeaCache


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
    cache: TeaCache | None = None,
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
        cache: leaves blocks out where little changes; None runs all of them.

    Returns:
        the segment `[b, f, h, w, c]`.

    Raises:
        ValueError: embeddings without negative ones, though guidance is active.
    """
    history, memory = state.history, state.memory
    condition = denoiser.condition(params, prompts, history.reference)

    def under(condition: Condition) -> tuple[StatefulVelocity, CacheState | None]:
        if cache is None:
            return lambda x, t, _: (denoiser.velocity(params, x, t, history, condition, memory), None), None
        cached = CachedDenoiser(denoiser, cache, sampler.steps)
        start = cached.start(params, noise, history, condition, memory)
        return lambda x, t, state: cached.velocity(params, x, t, history, condition, memory, state), start

    _, f, h, w, _ = noise.shape
    tokens = f * (h // denoiser.architecture.patch) * (w // denoiser.architecture.patch)
    velocity, start = under(condition)
    if not classifier_free.active:
        return sampler.sample_with_state(velocity, noise, start, tokens)[0]
    if negative is None:
        if isinstance(prompts, Condition):
            raise ValueError("the prompts are embeddings: pass those of the negative prompt too")
        negative = jnp.zeros_like(prompts)  # no byte at all
    opposite = denoiser.condition(params, negative, history.reference).replace(image=condition.image)
    negative_velocity, negative_start = under(opposite)
    guided = classifier_free.guide(velocity, negative_velocity)
    return sampler.sample_with_state(guided, noise, (start, negative_start), tokens)[0]
