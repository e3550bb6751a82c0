"""FramePack: a fixed number of recent frames, patchified at three rates, in front of the noisy latents.

The same `History` serves training and generation, so what the network sees cannot differ between them.
Source: docs/backbone.md, sections 1.6, 1.7 and 2.2; paper, section RoPE Consistency.
"""

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp

from mpjax.models.architecture import Architecture, FramePack
from mpjax.models.layers import Dense, patchify
from mpjax.models.rope import Table, rope_table

RATES = (1, 2, 4)  # in time and in each image axis; history_frames counts frames in this order


class History(flax.struct.PyTreeNode):
    """The short-term past of a video.

    Attributes:
        reference: first frame of the video, `[b, 1, h, w, c]`; never replaced.
        frames: the last `reach` latent frames, oldest first, `[b, reach, h, w, c]`.
        segments: how many segments have passed, int32 scalar.
    """

    reference: jax.Array
    frames: jax.Array
    segments: jax.Array


def empty_history(reference: jax.Array, spec: FramePack) -> History:
    """The history before the first segment: the reference frame nearest, zeros before it.

    Zeros are frames like any other (bias-valued tokens, attended to): FramePack-F1 was trained that way.
    """
    b, _, h, w, c = reference.shape
    zeros = jnp.zeros((b, spec.reach - 1, h, w, c), reference.dtype)
    return History(
        reference=jnp.asarray(reference),
        frames=jnp.concatenate([zeros, reference], 1),
        segments=jnp.zeros((), jnp.int32),
    )


def push(history: History, segment: jax.Array) -> History:
    """Appends a segment `[b, f, h, w, c]`; frames beyond the reach fall out."""
    frames = jnp.concatenate([history.frames, segment.astype(history.frames.dtype)], 1)
    return history.replace(frames=frames[:, -history.frames.shape[1] :], segments=history.segments + 1)


def frame_indices(segments: jax.Array, spec: FramePack) -> tuple[jax.Array, jax.Array]:
    """RoPE frame indices of the history `[reach]` and of the segment to generate `[f]`; the reference frame is 0.

    `framepack_f1`: history 1 … reach, segment after it, whatever came before. `global`: the history ends at the last
    frame generated so far (f · segments), so slots before the video's start have indices ≤ 0.
    """
    last = spec.reach if spec.rope_layout == "framepack_f1" else spec.segment_frames * segments
    history = last - spec.reach + 1 + jnp.arange(spec.reach)
    return history, last + 1 + jnp.arange(spec.segment_frames)


class CleanEmbedder(nn.Module):
    """Patch embeddings of history and reference frames, one Linear a rate (diffusers `clean_x_embedder`)."""

    architecture: Architecture

    @nn.compact
    def __call__(self, history: History) -> jax.Array:
        """Tokens in the order 4x, 2x, clean 1x (reference frame first), `[b, n, d]`."""
        arch = self.architecture
        near, middle, far = _by_rate(history.frames, arch.framepack)
        streams = (jnp.concatenate([history.reference, near], 1), middle, far)
        tokens = []
        for rate, frames in zip(RATES, streams, strict=True):
            if frames.shape[1]:
                kernel = (rate, rate * arch.patch, rate * arch.patch)
                embed = Dense(arch.width, (None, "embed"), dtype=jnp.dtype(arch.dtype), name=f"proj_{rate}x")
                tokens.append(embed(patchify(frames, kernel)))
        return jnp.concatenate(tokens[::-1], 1)


def packed_table(history: History, arch: Architecture) -> Table:
    """RoPE tables of all latent tokens in their order [4x, 2x, clean 1x, noisy]."""
    height, width = history.frames.shape[2:4]
    grid = (height // arch.patch, width // arch.patch)
    past, present = frame_indices(history.segments, arch.framepack)
    near, middle, far = _by_rate(past[None], arch.framepack)
    near = jnp.concatenate([jnp.zeros((1, 1), near.dtype), near], 1)
    streams = [(4, far[0]), (2, middle[0]), (1, near[0]), (1, present)]
    tables = [rope_table(i, grid, arch.rope_axes, arch.rope_theta, rate) for rate, i in streams if i.shape[0]]
    cos, sin = (jnp.concatenate(parts, 0) for parts in zip(*tables, strict=True))
    return cos, sin


def _by_rate(frames: jax.Array, spec: FramePack) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Splits axis 1 (oldest first) into the 1x, 2x and 4x parts."""
    one, two, _ = spec.history_frames
    total = frames.shape[1]
    return frames[:, total - one :], frames[:, total - one - two : total - one], frames[:, : total - one - two]
