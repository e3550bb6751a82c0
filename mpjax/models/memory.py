"""ψ, what a video remembers beyond FramePack's reach, and what every kind of long-term memory must do.

A kind is a frozen dataclass (its config) and a Flax module with three methods, called once per segment:

    start(batch, context, segment)       → ψ_0
    update(ψ_n, x^n)                     → ψ_{n+1}
    read(ψ_n, pooled, image)             → tokens and mask that the blocks' context receives

All that is differentiable in ψ lies in `Memory.tokens`: the reverse scan of `training/gradients.py` carries the
cotangents of that one array through `update`.
"""

import dataclasses
from collections.abc import Callable
from typing import ClassVar, Protocol

import flax.struct
import jax
import jax.numpy as jnp

# flow time t → image tokens `[b, i, d]`, refined prompt tokens `[b, l, d]`, prompt mask bool `[b, l]`
Context = Callable[[float], tuple[jax.Array, jax.Array, jax.Array]]


class Memory(flax.struct.PyTreeNode):
    """ψ. Its size never changes, so a video of any length costs the same per segment.

    Attributes:
        tokens: `[b, m, d]`.
        valid: bool `[b, m]`; not every place is filled at every time, and prompts differ in length.
        updates: segments taken up so far, int32 scalar.
    """

    tokens: jax.Array
    valid: jax.Array
    updates: jax.Array = dataclasses.field(default_factory=lambda: jnp.zeros((), jnp.int32))

    @property
    def bytes(self) -> int:
        """Size of tokens and mask, all videos together."""
        return sum(x.size * x.dtype.itemsize for x in (self.tokens, self.valid))

    def taking(self, tokens: jax.Array, valid: jax.Array) -> "Memory":
        """ψ after one more segment, with these tokens in the same type."""
        return Memory(tokens=tokens.astype(self.tokens.dtype), valid=valid, updates=self.updates + 1)


class LongTermMemory(Protocol):
    """What a kind of memory does: methods of a Flax module, whose parameters lie in `memorize`, `squeeze`, `recall`."""

    def start(self, batch: int, context: Context, segment: tuple[int, int, int]) -> Memory:
        """ψ_0 for this many videos and segments of (frames, height, width) latents."""

    def update(self, memory: Memory, segment: jax.Array) -> Memory:
        """ψ_{n+1} from ψ_n and the segment x^n `[b, f, h, w, c]`."""

    def read(self, memory: Memory, pooled: jax.Array, image: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Tokens `[b, k, d]` and mask bool `[b, k]` for the context of the next segment.

        Args:
            memory: ψ_n.
            pooled: pooled prompt of that segment `[b, pooled_width]`.
            image: reference-image tokens `[b, i, image_width]`.
        """


class MemoryKind(Protocol):
    """The config of a memory."""

    kind: ClassVar[str]

    def check(self, width: int, frames: int) -> None:
        """Raises `InputError` where it does not fit a network of this width and segments of this many frames."""

    def size(self, segment: tuple[int, int, int], context: int) -> int:
        """Tokens m that ψ holds, for segments of (frames, height, width) latents and so many tokens of ψ_0."""

    def module(self, width: int, mlp_width: int, dtype: jnp.dtype) -> LongTermMemory:
        """The Flax module."""


def pad_memory(tokens: jax.Array, valid: jax.Array, size: int) -> tuple[jax.Array, jax.Array]:
    """Pads `[b, n, d]` tokens and their mask with invalid zeros to `size`."""
    missing = size - tokens.shape[1]
    return jnp.pad(tokens, ((0, 0), (0, missing), (0, 0))), jnp.pad(valid, ((0, 0), (0, missing)))


def empty_memory(batch: int, size: int, width: int) -> Memory:
    """ψ that holds nothing yet: `[b, size, width]` of invalid zeros."""
    return Memory(tokens=jnp.zeros((batch, size, width)), valid=jnp.zeros((batch, size), bool))
