"""FramePack: a fixed number of recent frames, patchified at three rates, in front of the noisy latents.

The same `History` serves training and generation, so what the network sees cannot differ between them.
Source: docs/backbone.md, sections 1.6, 1.7, 2.2 and 2.3; paper, section RoPE Consistency.
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
        frames: the `reach` latent frames next to the segment, in the order of the video, `[b, reach, h, w, c]`: those
            before it, or with `framepack_f0`, which generates the end of a video first, those behind it.
        segments: how many segments have passed, int32 scalar.
        total: segments of the whole video, int32 scalar; only `framepack_f0` reads it.
    """

    reference: jax.Array
    frames: jax.Array
    segments: jax.Array
    total: jax.Array


def empty_history(reference: jax.Array, spec: FramePack, total: int | jax.Array = 0) -> History:
    """The history before the first segment: the reference frame nearest, zeros before it.

    Zeros are frames like any other (bias-valued tokens, attended to): FramePack was trained that way. `framepack_f0`
    begins far from the reference frame, with zeros alone, and needs `total` segments >= 1.
    """
    b, _, h, w, c = reference.shape
    zeros = jnp.zeros((b, spec.reach, h, w, c), reference.dtype)
    return History(
        reference=jnp.asarray(reference),
        frames=zeros if spec.backwards else jnp.concatenate([zeros[:, 1:], reference], 1),
        segments=jnp.zeros((), jnp.int32),
        total=jnp.asarray(total, jnp.int32),
    )


def push(history: History, segment: jax.Array, spec: FramePack) -> History:
    """Puts a segment `[b, f, h, w, c]` beside the frames; what lies beyond the reach falls out."""
    segment = segment.astype(history.frames.dtype)
    if spec.backwards:
        frames = jnp.concatenate([segment, history.frames], 1)[:, : spec.reach]
    else:
        frames = jnp.concatenate([history.frames, segment], 1)[:, -spec.reach :]
    return history.replace(frames=frames, segments=history.segments + 1)


def frame_indices(history: History, spec: FramePack) -> tuple[jax.Array, jax.Array]:
    """RoPE frame indices of the history `[reach]` and of the segment to generate `[f]`; the reference frame is 0.

    `framepack_f1`: history 1 … reach, segment after it, whatever came before. `global`: the history ends at the last
    frame generated so far (f · segments), so slots before the video's start have indices ≤ 0. `framepack_f0`: segment
    behind those still to come (`padding`), history behind it.
    """
    f, reach = spec.segment_frames, spec.reach
    if spec.backwards:
        first = 1 + f * padding(history.segments, history.total)
        return first + f + jnp.arange(reach), first + jnp.arange(f)
    last = reach if spec.rope_layout == "framepack_f1" else f * history.segments
    return last - reach + 1 + jnp.arange(reach), last + 1 + jnp.arange(f)


def padding(segments: jax.Array, total: jax.Array) -> jax.Array:
    """How many segments F0 leaves between reference frame and segment, int32.

    Up to four segments: as many as are still to come. In longer videos the positions stay those of four: 3 for the
    first one, then 2 again and again, 1 and 0 for the last two.
    """
    to_come = total - 1 - segments
    return jnp.where(total > 4, jnp.where(segments == 0, 3, jnp.minimum(to_come, 2)), to_come)


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
    past, present = frame_indices(history, arch.framepack)
    near, middle, far = _by_rate(past[None], arch.framepack)
    near = jnp.concatenate([jnp.zeros((1, 1), near.dtype), near], 1)
    streams = [(4, far[0]), (2, middle[0]), (1, near[0]), (1, present)]
    tables = [rope_table(i, grid, arch.rope_axes, arch.rope_theta, rate) for rate, i in streams if i.shape[0]]
    cos, sin = (jnp.concatenate(parts, 0) for parts in zip(*tables, strict=True))
    return cos, sin


def _by_rate(frames: jax.Array, spec: FramePack) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Splits axis 1 (in the order of the video) into the 1x, 2x and 4x parts, nearest to the segment first."""
    one, two, four = spec.history_frames
    if spec.backwards:
        return frames[:, :one], frames[:, one : one + two], frames[:, one + two :]
    return frames[:, four + two :], frames[:, four : four + two], frames[:, :four]
