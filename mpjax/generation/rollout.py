"""A video segment by segment: noise → latents → history and memory → final pixel frames.

A segment is a pure function of (weights, state, prompt), compiled once for all segments of all videos.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np

from mpjax.codecs import Codec
from mpjax.data.filmstrip import to_uint8
from mpjax.diffusion.samplers import Euler
from mpjax.generation.state import GenerationState
from mpjax.models.autoregressive import VideoState, append_segment, sample_segment, start_video
from mpjax.models.memorypack import Denoiser
from mpjax.weights import TrainedRun


class Rollout:
    """Weights, network, sampler and codec, ready to make videos."""

    def __init__(self, denoiser: Denoiser, sampler: Euler, codec: Codec, params: dict):
        """`params` may be host arrays; they are moved to the default device once."""
        self.codec = codec
        self._params = jax.device_put(params)
        self._frames = denoiser.architecture.framepack.segment_frames

        def sample(params: dict, state: VideoState, key: jax.Array, segment: jax.Array, prompt: jax.Array):
            reference = state.history.reference
            shape = (1, self._frames, *reference.shape[2:])
            noise = jax.random.normal(jax.random.fold_in(key, segment), shape, jnp.float32)
            latents = sample_segment(denoiser, sampler, params, state, prompt, noise)
            return latents, append_segment(denoiser, params, state, latents)

        self._start = jax.jit(functools.partial(start_video, denoiser))
        self._sample = jax.jit(sample)
        self._append = jax.jit(functools.partial(append_segment, denoiser))

    @classmethod
    def of(cls, trained: TrainedRun) -> "Rollout":
        """The rollout of a trained run."""
        run = trained.run
        return cls(Denoiser(run.model, run.network.guidance), run.network.sampler, run.codec, trained.params)

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
            the first pixel frame, uint8 `[1, H, W, 3]`, and the state.
        """
        video = self._start(self._params, prompt[None], jnp.asarray(reference[None], jnp.float32))
        height, width = (side * self.codec.space_factor for side in reference.shape[1:3])
        frame, tail = self.codec.decode_stream(self.codec.decode_start(1, height, width), reference[None])
        key, segment = jax.random.key(seed), jnp.zeros((), jnp.int32)
        return to_uint8(frame[0]), GenerationState(video=video, key=key, segment=segment, tail=tail)

    def generate(self, state: GenerationState, prompt: np.ndarray) -> tuple[np.ndarray, GenerationState]:
        """Draws the next segment under a prompt int32 `[l]`; its final frames are uint8 `[n, H, W, 3]`."""
        latents, video = self._sample(self._params, state.video, state.key, state.segment, prompt[None])
        return self._after(state, video, np.asarray(latents))

    def give(self, state: GenerationState, latents: np.ndarray) -> tuple[np.ndarray, GenerationState]:
        """Takes latents `[f, h, w, c]` as the next segment; returns what the codec makes of them, and the state."""
        video = self._append(self._params, state.video, jnp.asarray(latents[None], jnp.float32))
        return self._after(state, video, latents[None])

    def _after(
        self, state: GenerationState, video: VideoState, latents: np.ndarray
    ) -> tuple[np.ndarray, GenerationState]:
        frames, tail = self.codec.decode_stream(state.tail, latents)
        return to_uint8(frames[0]), dataclasses.replace(state, video=video, segment=state.segment + 1, tail=tail)
