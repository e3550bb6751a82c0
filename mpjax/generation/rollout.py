"""A video segment by segment: noise → latents → history and memory → final pixel frames.

A segment is a pure function of (weights, state, prompt), compiled once for all segments of all videos.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np

from mpjax.codecs import Codec
from mpjax.conditioning.tokens import encode_prompt
from mpjax.data.filmstrip import to_uint8
from mpjax.diffusion.guidance import UNGUIDED, ClassifierFree
from mpjax.diffusion.samplers import Sampler
from mpjax.generation.sampling import SamplingPlan, SamplingRequest, plan_sampling
from mpjax.generation.state import GenerationState
from mpjax.models.autoregressive import VideoState, append_segment, sample_segment, start_video
from mpjax.models.memorypack import Denoiser
from mpjax.models.teacache import TeaCache
from mpjax.weights import TrainedRun


class Rollout:
    """Weights, network, sampler, guidance and codec, ready to make videos."""

    def __init__(
        self,
        denoiser: Denoiser,
        sampler: Sampler,
        codec: Codec,
        params: dict,
        classifier_free: ClassifierFree = UNGUIDED,
        negative: np.ndarray | None = None,
        cache: TeaCache | None = None,
    ):
        """`params` may be host arrays; they are moved to the default device once.

        `negative` is the negative prompt int32 `[l]` of classifier-free guidance, None the empty one; `cache` leaves
        blocks out where little changes.
        """
        self.codec = codec
        self._params = jax.device_put(params)
        self._frames = denoiser.architecture.framepack.segment_frames
        opposite = None if negative is None else jnp.asarray(negative[None])

        def sample(params: dict, state: VideoState, key: jax.Array, segment: jax.Array, prompt: jax.Array):
            reference = state.history.reference
            shape = (1, self._frames, *reference.shape[2:])
            noise = jax.random.normal(jax.random.fold_in(key, segment), shape, jnp.float32)
            latents = sample_segment(denoiser, sampler, params, state, prompt, noise, classifier_free, opposite, cache)
            return latents, append_segment(denoiser, params, state, latents)

        self._start = jax.jit(functools.partial(start_video, denoiser))
        self._sample = jax.jit(sample)
        self._append = jax.jit(functools.partial(append_segment, denoiser))

    @classmethod
    def of(cls, trained: TrainedRun, sampling: SamplingPlan | None = None) -> "Rollout":
        """The rollout of a trained run; without `sampling`, as its config says."""
        model = trained.run.model
        sampling = sampling or plan_sampling(trained.run, SamplingRequest())
        assert model.encoders is not None  # Experiment refuses a model without
        return cls(
            Denoiser(model, sampling.distilled_guidance),
            sampling.sampler,
            trained.run.codec,
            trained.params,
            sampling.classifier_free,
            encode_prompt(sampling.negative, model.encoders.prompt_bytes),
            sampling.cache,
        )

    @property
    def segment_frames(self) -> int:
        """Pixel frames of a segment."""
        return self._frames * self.codec.time_factor

    def start(self, prompt: np.ndarray, reference: np.ndarray, seed: int) -> tuple[np.ndarray, GenerationState]:
        """The state before the first segment.

        Args:
            prompt: of the first segment, int32 `[l]`.
            reference: latents of the first frame, float32 `[1, h, w, c]`.
            seed: of the noise.

        Returns:
            what is final of the first pixel frame, uint8 `[0 or 1, H, W, 3]`, and the state.
        """
        video = self._start(self._params, prompt[None], jnp.asarray(reference[None], jnp.float32))
        height, width = (side * self.codec.space_factor for side in reference.shape[1:3])
        tail, zero = self.codec.decode_start(1, height, width), jnp.zeros((), jnp.int32)
        state = GenerationState(video=video, key=jax.random.key(seed), segment=zero, frames=zero, tail=tail)
        return self._decode(state, reference[None])

    def generate(self, state: GenerationState, prompt: np.ndarray) -> tuple[np.ndarray, GenerationState]:
        """Draws the next segment under a prompt int32 `[l]`; returns the frames that are now final, and the state.

        They follow those of before, uint8 `[n, H, W, 3]`; a codec that blends neighbours is some frames behind.
        """
        latents, video = self._sample(self._params, state.video, state.key, state.segment, prompt[None])
        return self._next(state, video, np.asarray(latents))

    def give(self, state: GenerationState, latents: np.ndarray) -> tuple[np.ndarray, GenerationState]:
        """Takes latents `[f, h, w, c]` as the next segment; returns what the codec makes of them, and the state."""
        video = self._append(self._params, state.video, jnp.asarray(latents[None], jnp.float32))
        return self._next(state, video, latents[None])

    def finish(self, state: GenerationState) -> np.ndarray:
        """The frames that are still to come if the video ends here, uint8 `[n, H, W, 3]`; the state stays usable."""
        return to_uint8(self.codec.decode_finish(state.tail)[0])

    def _next(
        self, state: GenerationState, video: VideoState, latents: np.ndarray
    ) -> tuple[np.ndarray, GenerationState]:
        return self._decode(dataclasses.replace(state, video=video, segment=state.segment + 1), latents)

    def _decode(self, state: GenerationState, latents: np.ndarray) -> tuple[np.ndarray, GenerationState]:
        frames, tail = self.codec.decode_stream(state.tail, latents)
        return to_uint8(frames[0]), dataclasses.replace(state, frames=state.frames + frames.shape[1], tail=tail)
