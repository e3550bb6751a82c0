"""Memories that keep past segments apart, in a bank of the last N. Baselines of SemanticPack.

ψ is N segments of memorised tokens, the oldest first; a new one pushes the oldest out. Bytes and cost are bounded by N,
whatever the length of the video: ψ takes 4 · N · n · d bytes a video for segments of n tokens. N must be the number of
segments of the video for the long window to be full context.
"""

import abc
import dataclasses
from typing import ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp

from mpjax.errors import InputError
from mpjax.models.layers import AffineLayerNorm, Dense, grid_positions
from mpjax.models.memorize import POSITION_WIDTH, Memorize, Memorizing
from mpjax.models.memory import Context, Memory, empty_memory


@dataclasses.dataclass(frozen=True, kw_only=True)
class Bank(Memorizing, abc.ABC):
    """A bank; its kinds differ in how it is read.

    Attributes:
        segments: N, past segments kept.
    """

    segments: int = 16

    def __post_init__(self):
        super().__post_init__()
        if self.segments < 1:
            raise InputError(f"segments is {self.segments}: the bank must keep at least 1")

    def size(self, segment: tuple[int, int, int], context: int) -> int:
        """The tokens of N segments; ψ_0 is empty."""
        del context
        return self.segments * self.segment_tokens(segment)

    def module(self, width: int, mlp_width: int, dtype: jnp.dtype) -> "BankMemory":
        """Its Flax module."""
        return BankMemory(self, width, mlp_width, dtype)

    @abc.abstractmethod
    def reader(self, dtype: jnp.dtype) -> nn.Module:
        """(ψ, pooled, image) → tokens and mask, as `memory.LongTermMemory.read`."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class LongWindow(Bank):
    """All N segments of the bank are in the context: the full-context upper bound, at a cost that grows with N."""

    kind: ClassVar[str] = "long_window"

    def reader(self, dtype: jnp.dtype) -> nn.Module:
        """All of it."""
        return ReadAll(self.segments, dtype)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Retrieval(Bank):
    """The k segments of the bank most similar to a query are in the context: context-as-memory style retrieval.

    Context-as-Memory finds past frames by the overlap of camera views; here key and query are learned. The query comes
    from the prompt, the reference image and the newest segment.

    Attributes:
        top_k: segments chosen for each segment to generate.
    """

    kind: ClassVar[str] = "retrieval"
    top_k: int = 2

    def __post_init__(self):
        super().__post_init__()
        if not 1 <= self.top_k <= self.segments:
            raise InputError(f"top_k is {self.top_k}: it must lie between 1 and segments = {self.segments}")

    def reader(self, dtype: jnp.dtype) -> nn.Module:
        """The most similar ones."""
        return ReadSimilar(self.segments, self.top_k, dtype)


class Entries(nn.Module):
    """The bank as it is read: normalised tokens, each with a feature of its segment's age."""

    segments: int
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, tokens: jax.Array) -> jax.Array:
        """`[b, N·n, d]` → `[b, N, n, d]`, the oldest first; the newest has age 0."""
        b, m, d = tokens.shape
        entries = AffineLayerNorm(name="norm")(tokens).reshape(b, self.segments, m // self.segments, d)
        ages = grid_positions((self.segments, 1, 1), POSITION_WIDTH)[::-1, :POSITION_WIDTH]
        age = Dense(d, (None, "embed"), use_bias=False, dtype=self.dtype, name="age")(ages)
        return entries + age[:, None].astype(entries.dtype)


class ReadAll(nn.Module):
    """Every entry."""

    segments: int
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, memory: Memory, pooled: jax.Array, image: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Tokens `[b, N·n, d]` and their mask."""
        del pooled, image
        entries = Entries(self.segments, self.dtype, name="entries")(memory.tokens)
        return entries.reshape(memory.tokens.shape), memory.valid


class ReadSimilar(nn.Module):
    """The k entries most similar to a query; fewer, by the mask, while the bank holds fewer.

    The choice itself has no gradient. The score gets one because it weighs the tokens it chose, by 2σ(score), as the
    router of a mixture of experts does.
    """

    segments: int
    top_k: int
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, memory: Memory, pooled: jax.Array, image: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Tokens `[b, k·n, d]`, the most similar segment first, and their mask."""
        entries = Entries(self.segments, self.dtype, name="entries")(memory.tokens)
        b, _, _, d = entries.shape
        valid = memory.valid.reshape(entries.shape[:3])
        summary = entries.mean(2)

        def project(x: jax.Array, axis: str | None, name: str, bias: bool = False) -> jax.Array:
            return Dense(d, (axis, "heads"), use_bias=bias, dtype=self.dtype, name=name)(x)

        query = project(pooled, None, "from_prompt", bias=True) + project(image.mean(1), None, "from_image")
        query = query + project(summary[:, -1], "embed", "from_newest")
        key = project(summary, "embed", "to_k")
        score = jnp.einsum("bd,bnd->bn", query, key, preferred_element_type=jnp.float32) * d**-0.5
        _, chosen = jax.lax.top_k(jnp.where(valid.any(2), score, -jnp.inf), self.top_k)
        weight = 2.0 * nn.sigmoid(jnp.take_along_axis(score, chosen, 1))
        tokens = jnp.take_along_axis(entries, chosen[:, :, None, None], 1) * weight[:, :, None, None]
        return tokens.reshape(b, -1, d), jnp.take_along_axis(valid, chosen[:, :, None], 1).reshape(b, -1)


class BankMemory(nn.Module):
    """`Bank` as a long-term memory (`memory.LongTermMemory`)."""

    spec: Bank
    width: int
    mlp_width: int
    dtype: jnp.dtype = jnp.float32

    def setup(self):
        """Memorize, and the reader of the kind."""
        self.memorize = Memorize(self.spec, self.width, self.mlp_width, self.dtype)
        self.recall = self.spec.reader(self.dtype)

    def start(self, batch: int, context: Context, segment: tuple[int, int, int]) -> Memory:
        """Nothing yet."""
        del context
        return empty_memory(batch, self.spec.size(segment, 0), self.width)

    def update(self, memory: Memory, segment: jax.Array) -> Memory:
        """Puts the memorised segment behind the others; the oldest falls out."""
        new = self.memorize(segment)
        n = new.shape[1]
        tokens = jnp.concatenate([memory.tokens[:, n:], new.astype(memory.tokens.dtype)], 1)
        valid = jnp.concatenate([memory.valid[:, n:], jnp.ones(new.shape[:2], bool)], 1)
        return memory.taking(tokens, valid)

    def read(self, memory: Memory, pooled: jax.Array, image: jax.Array) -> tuple[jax.Array, jax.Array]:
        """What the reader finds."""
        return self.recall(memory, pooled, image)
