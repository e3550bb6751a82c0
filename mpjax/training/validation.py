"""What is looked at during training: held-out loss, and videos drawn from the EMA with fixed seeds."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from mpjax.codecs import Codec
from mpjax.data.batch import Batch
from mpjax.data.filmstrip import filmstrip
from mpjax.diffusion.guidance import ClassifierFree
from mpjax.diffusion.samplers import Sampler
from mpjax.models.autoregressive import append_segment, sample_segment, start_video
from mpjax.models.memorypack import Denoiser
from mpjax.training.gradients import Objective, chain_loss, with_given

VALIDATION_KEY = 1  # t and noise of every validation are the same, so that losses of different steps compare


def make_validation(objective: Objective) -> Callable[[dict, list[Batch]], float]:
    """A function (EMA parameters, batches) → mean teacher-forced loss."""

    @jax.jit
    def one(params: dict, batch: Batch, key: jax.Array) -> jax.Array:
        return chain_loss(objective, params, with_given(batch, objective.given), key).sum()

    def validate(params: dict, batches: list[Batch]) -> float:
        key = jax.random.key(VALIDATION_KEY)
        losses = [one(params, batch, jax.random.fold_in(key, i)) for i, batch in enumerate(batches)]
        return float(np.mean([float(loss) for loss in losses]))

    return validate


def make_sampler(
    denoiser: Denoiser, sampler: Sampler, classifier_free: ClassifierFree
) -> Callable[[dict, Batch], jax.Array]:
    """A function (EMA parameters, batch) → every segment drawn from the reference frame on, `[b, s, f, h, w, c]`."""

    @jax.jit
    def draw(params: dict, batch: Batch) -> jax.Array:
        key = jax.random.key(VALIDATION_KEY)
        shape = batch.segments[:, 0].shape

        def segment(state, n):
            noise = jax.random.normal(jax.random.fold_in(key, n), shape)
            x = sample_segment(denoiser, sampler, params, state, batch.prompts_of(n), noise, classifier_free)
            return append_segment(denoiser, params, state, x), x

        state = start_video(denoiser, params, batch.first_prompts, batch.reference)
        numbers = jnp.arange(batch.segments.shape[1])
        _, drawn = jax.lax.scan(segment, state, numbers)
        return jnp.swapaxes(drawn, 0, 1)

    return draw


def comparison(codec: Codec, batch: Batch, drawn: np.ndarray, frames_per_segment: int = 2) -> np.ndarray:
    """A picture with two rows a video, drawn above true, a few frames of each segment."""

    def rows(segments: np.ndarray) -> list[np.ndarray]:
        b, s, f = segments.shape[:3]
        latents = np.concatenate([batch.reference, segments.reshape(b, s * f, *segments.shape[3:])], 1)
        video = codec.decode(np.asarray(latents, np.float32))
        per_segment = (video.shape[1] - 1) // s
        stride = max(per_segment // frames_per_segment, 1)
        return [clip[::stride] for clip in video]

    pairs = zip(rows(np.asarray(drawn)), rows(np.asarray(batch.segments)), strict=True)
    return filmstrip([row for pair in pairs for row in pair])
