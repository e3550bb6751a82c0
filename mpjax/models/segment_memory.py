"""Memories of the size of one segment: the mean of all segments, or the first one. Baselines of SemanticPack."""

import abc
import dataclasses
from typing import ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp

from mpjax.models.layers import AffineLayerNorm
from mpjax.models.memorize import Memorize, Memorizing
from mpjax.models.memory import Context, Memory, empty_memory


@dataclasses.dataclass(frozen=True, kw_only=True)
class OneSegment(Memorizing, abc.ABC):
    """A memory of one segment's tokens; its kinds differ in `take`."""

    def size(self, segment: tuple[int, int, int], context: int) -> int:
        """The tokens of one segment; ψ_0 is empty."""
        del context
        return self.segment_tokens(segment)

    def module(self, width: int, mlp_width: int, dtype: jnp.dtype) -> "OneSegmentMemory":
        """Its Flax module."""
        return OneSegmentMemory(self, width, mlp_width, dtype)

    @abc.abstractmethod
    def take(self, held: jax.Array, new: jax.Array, updates: jax.Array) -> jax.Array:
        """ψ_{n+1}'s tokens from ψ_n's and those of the segment, both `[b, n, d]`, after so many updates."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class MeanPool(OneSegment):
    """ψ_n = mean of Memorize(x^0) … Memorize(x^{n−1}), token by token: content without order (ours, as a baseline)."""

    kind: ClassVar[str] = "mean_pool"

    def take(self, held: jax.Array, new: jax.Array, updates: jax.Array) -> jax.Array:
        """The running mean."""
        return (updates * held + new) / (updates + 1)


@dataclasses.dataclass(frozen=True, kw_only=True)
class FirstSegment(OneSegment):
    """ψ_n = Memorize(x^0) for all n ≥ 1: an attention sink, as StreamingLLM's first tokens and LongLive's first frames.

    What appears later is never remembered.
    """

    kind: ClassVar[str] = "first_segment"

    def take(self, held: jax.Array, new: jax.Array, updates: jax.Array) -> jax.Array:
        """The first segment, whatever follows."""
        return jnp.where(updates == 0, new, held)


class OneSegmentMemory(nn.Module):
    """`OneSegment` as a long-term memory (`memory.LongTermMemory`)."""

    spec: OneSegment
    width: int
    mlp_width: int
    dtype: jnp.dtype = jnp.float32

    def setup(self):
        """Memorize, and a norm behind it as behind Squeeze."""
        self.memorize = Memorize(self.spec, self.width, self.mlp_width, self.dtype)
        self.recall = AffineLayerNorm()

    def start(self, batch: int, context: Context, segment: tuple[int, int, int]) -> Memory:
        """Nothing yet."""
        del context
        return empty_memory(batch, self.spec.size(segment, 0), self.width)

    def update(self, memory: Memory, segment: jax.Array) -> Memory:
        """Takes up the segment `[b, f, h, w, c]`."""
        new = self.recall(self.memorize(segment)).astype(memory.tokens.dtype)
        return memory.taking(self.spec.take(memory.tokens, new, memory.updates), jnp.ones_like(memory.valid))

    def read(self, memory: Memory, pooled: jax.Array, image: jax.Array) -> tuple[jax.Array, jax.Array]:
        """ψ as it is."""
        del pooled, image
        return memory.tokens, memory.valid
