"""A video segment by segment: noise → latents → history and memory → final pixel frames.

A segment is a pure function of (weights, state, prompt), compiled once for all segments of all videos.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from mpjax.codecs import Codec
from mpjax.data.filmstrip import to_uint8
from mpjax.diffusion.guidance import UNGUIDED, ClassifierFree
from mpjax.diffusion.samplers import Sampler
from mpjax.errors import InputError
from mpjax.generation.host_weights import HostWeights
from mpjax.generation.sampling import SamplingPlan, SamplingRequest, plan_sampling
from mpjax.generation.state import GenerationState
from mpjax.models.autoregressive import VideoState, append_segment, sample_segment, start_video
from mpjax.models.memorypack import Denoiser, Prompts
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
        cache: TeaCache | None = None,
        mesh: Mesh | None = None,
        offload: bool = False,
    ):
        """`params` stay on the devices they are on; host arrays are moved to the default device once.

        `cache` leaves blocks out where little changes. The devices of `mesh` share the work on a segment; history and ψ
        are small and come back whole on each of them. With `offload` the parameters are in the host's memory while the
        codec works, and used up.
        """
        self.codec = codec
        self._mesh = mesh if mesh is not None and mesh.size > 1 else None
        # On a mesh they lie where they belong, over several processes too.
        params = jax.device_put(params) if self._mesh is None else params
        self._host = HostWeights(params) if offload else None
        self._weights = (lambda: params) if self._host is None else self._host.here
        self._pack = denoiser.architecture.framepack

        self._start = self._compiled(functools.partial(start_video, denoiser))
        self._sample = self._compiled(segment_sampler(denoiser, sampler, classifier_free, cache))
        self._append = self._compiled(functools.partial(append_segment, denoiser))

    def _compiled(self, function: Callable) -> Callable:
        """`jax.jit` of a function, on the mesh."""
        if self._mesh is None:
            return jax.jit(function)
        mesh, run = self._mesh, jax.jit(function, out_shardings=NamedSharding(self._mesh, PartitionSpec()))

        def on_mesh(*arguments: Any) -> Any:
            with jax.set_mesh(mesh):
                return run(*arguments)

        return on_mesh

    @classmethod
    def of(cls, trained: TrainedRun, sampling: SamplingPlan | None = None, *, offload: bool = False) -> "Rollout":
        """The rollout of a trained run; without `sampling`, as its config says; `offload` uses its weights up."""
        sampling = sampling or plan_sampling(trained.run, SamplingRequest())
        return cls(
            Denoiser(trained.run.model, sampling.distilled_guidance),
            sampling.sampler,
            trained.run.codec,
            trained.params,
            sampling.classifier_free,
            sampling.cache,
            trained.mesh,
            offload,
        )

    @property
    def segment_frames(self) -> int:
        """Pixel frames of a segment."""
        return self._pack.segment_frames * self.codec.time_factor

    def start(
        self, prompt: Prompts, reference: np.ndarray, seed: int, segments: int = 0
    ) -> tuple[np.ndarray, GenerationState]:
        """The state before the first segment.

        Args:
            prompt: of the first segment, int32 `[l]`, or its embeddings.
            reference: latents of the first frame, float32 `[1, h, w, c]`.
            seed: of the noise.
            segments: how many there will be; only a network that generates a video from its end needs it.

        Returns:
            what is final of the first pixel frame, uint8 `[0 or 1, H, W, 3]`, and the state.

        Raises:
            InputError: a network that begins at the end, and no number of segments.
        """
        if self._pack.backwards and segments < 1:
            raise InputError("this network generates a video from its end: say how many segments there will be")
        video = self._start(self._weights(), _batch(prompt), jnp.asarray(reference[None], jnp.float32), segments)
        height, width = (side * self.codec.space_factor for side in reference.shape[1:3])
        tail, zero = self.codec.decode_start(1, height, width), jnp.zeros((), jnp.int32)
        state = GenerationState(
            video=video,
            key=jax.random.key(seed),
            segment=zero,
            frames=zero,
            tail=tail,
            waiting=np.zeros((0, *reference.shape[1:]), np.float32),
        )
        if self._pack.backwards:
            return np.zeros((0, height, width, 3), np.uint8), state
        return self._decode(state, reference[None])

    def generate(
        self, state: GenerationState, prompt: Prompts, negative: Prompts | None = None
    ) -> tuple[np.ndarray, GenerationState]:
        """Draws the next segment; returns the frames that are now final, and the state.

        They follow those of before, uint8 `[n, H, W, 3]`; a codec that blends neighbours is some frames behind, and a
        network that begins at the end gives all of them by `finish`.

        Args:
            state: as of `start`, `generate` or `give`.
            prompt: int32 `[l]`, or embeddings.
            negative: the same for classifier-free guidance; None is the empty prompt of the built-in encoders.

        Raises:
            InputError: a network that begins at the end has reached the beginning.
        """
        self._check_room(state)
        opposite = None if negative is None else _batch(negative)
        latents, video = self._sample(self._weights(), state.video, state.key, state.segment, _batch(prompt), opposite)
        return self._next(state, video, np.asarray(latents))

    def give(self, state: GenerationState, latents: np.ndarray) -> tuple[np.ndarray, GenerationState]:
        """Takes latents `[f, h, w, c]` as the next segment; returns what the codec makes of them, and the state.

        Raises:
            InputError: as `generate`.
        """
        self._check_room(state)
        video = self._append(self._weights(), state.video, jnp.asarray(latents[None], jnp.float32))
        return self._next(state, video, latents[None])

    def finish(self, state: GenerationState) -> np.ndarray:
        """The frames that are still to come if the video ends here, uint8 `[n, H, W, 3]`; the state stays usable.

        Of a video that began at its end, all: the first frame and the segments that exist.
        """
        self._make_room()
        if not self._pack.backwards:
            return to_uint8(self.codec.decode_finish(state.tail)[0])
        tail, frames = state.tail, []
        latents = np.concatenate([np.asarray(state.video.history.reference[0]), state.waiting])
        for first in (0, *range(1, len(latents), self._pack.segment_frames)):
            last = 1 if first == 0 else first + self._pack.segment_frames
            decoded, tail = self.codec.decode_stream(tail, latents[None, first:last])
            frames.append(to_uint8(decoded[0]))
        return np.concatenate([*frames, to_uint8(self.codec.decode_finish(tail)[0])])

    def _check_room(self, state: GenerationState) -> None:
        total = int(state.video.history.total)
        if self._pack.backwards and int(state.segment) >= total:
            raise InputError(
                f"all {total} segments exist, and this network generates a video from its end: "
                "start one with more segments"
            )

    def _next(
        self, state: GenerationState, video: VideoState, latents: np.ndarray
    ) -> tuple[np.ndarray, GenerationState]:
        state = dataclasses.replace(state, video=video, segment=state.segment + 1)
        if self._pack.backwards:
            waiting = np.concatenate([latents[0], state.waiting])
            height, width = (side * self.codec.space_factor for side in waiting.shape[1:3])
            return np.zeros((0, height, width, 3), np.uint8), dataclasses.replace(state, waiting=waiting)
        return self._decode(state, latents)

    def _decode(self, state: GenerationState, latents: np.ndarray) -> tuple[np.ndarray, GenerationState]:
        self._make_room()
        frames, tail = self.codec.decode_stream(state.tail, latents)
        return to_uint8(frames[0]), dataclasses.replace(state, frames=state.frames + frames.shape[1], tail=tail)

    def _make_room(self) -> None:
        """For the codec."""
        if self._host is not None:
            self._host.leave()


def segment_sampler(
    denoiser: Denoiser, sampler: Sampler, classifier_free: ClassifierFree = UNGUIDED, cache: TeaCache | None = None
) -> Callable:
    """The step of a generation, for `jax.jit`: (params, state, key, segment, prompt, negative) → (latents, state).

    `state` is a `VideoState` of one video, `segment` the number of the segment that is drawn, `[1, f, h, w, c]`.
    """
    frames = denoiser.architecture.framepack.segment_frames

    def sample(
        params: dict,
        state: VideoState,
        key: jax.Array,
        segment: jax.Array,
        prompt: Prompts,
        negative: Prompts | None,
    ) -> tuple[jax.Array, VideoState]:
        size = state.history.reference.shape[2:]
        noise = segment_noise(key, segment, (1, frames, *size))
        latents = sample_segment(denoiser, sampler, params, state, prompt, noise, classifier_free, negative, cache)
        return latents, append_segment(denoiser, params, state, latents)

    return sample


def segment_noise(key: jax.Array, segment: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """The noise that a segment of a video begins with, float32."""
    return jax.random.normal(jax.random.fold_in(key, segment), shape, jnp.float32)


def _batch(prompt: Prompts) -> Prompts:
    return jax.tree.map(lambda x: jnp.asarray(x)[None], prompt)
