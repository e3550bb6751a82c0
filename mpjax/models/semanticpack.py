"""SemanticPack: long-term memory ψ of constant size (paper, Eq. 1).

    ψ_{n+1} = Squeeze(ψ_n, Memorize(x^n))

ψ_0 is the prompt and the reference image. Squeeze is one cross-attention; the paper compares three:

    A   query = the memorised segment, keys and values = ψ_n. ψ_n, n ≥ 1, has a segment's tokens. The paper's choice.
    B   query = ψ_n, keys and values = the memorised segment. ψ_n keeps the tokens of ψ_0.
    C   as B, but the first window of the first segment joins ψ_0 as tokens that stay.
"""

import dataclasses
from typing import ClassVar, Literal, get_args

import flax.linen as nn
import jax
import jax.numpy as jnp

from mpjax.errors import InputError
from mpjax.models.layers import AffineLayerNorm, FeedForward, logical
from mpjax.models.memorize import Attention, Memorize, Memorizing
from mpjax.models.memory import Context, Memory, pad_memory

Variant = Literal["A", "B", "C"]
Initial = Literal["prompt_and_image", "image", "zero"]
Gate = Literal["none", "scalar", "channel"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class SemanticPack(Memorizing):
    """ψ_{n+1} = Squeeze(ψ_n, Memorize(x^n)) (paper, Eq. 1 and its ablation of Squeeze).

    Attributes:
        squeeze: the paper's variant, `A`, `B` or `C` (see the file).
        initial: ψ_0: `prompt_and_image` (paper); `image`, without text; `zero`, the paper's zero-MemoryPack: as many
            tokens as with prompt and image, all zero.
        residual: add Squeeze's query to what it reads.
        mlp: an MLP after Squeeze's cross-attention.
        gate: what Squeeze returns enters ψ by a learned share σ(g), and the rest of ψ stays: one share (`scalar`), or
            one a channel. It begins at one half. Off (`none`) by default: the paper has no gate. Without one, what
            should last must be read again at every segment; with one, it also fades as an exponential average.
        timestep: flow time t in [0, 1] at which the token refiner reads the prompt for ψ_0, once a video.
    """

    kind: ClassVar[str] = "semanticpack"
    squeeze: str = "A"
    initial: str = "prompt_and_image"
    residual: bool = True
    mlp: bool = True
    gate: str = "none"
    timestep: float = 0.0

    def __post_init__(self):
        super().__post_init__()
        for field, options in (("squeeze", Variant), ("initial", Initial), ("gate", Gate)):
            if getattr(self, field) not in get_args(options):
                known = ", ".join(get_args(options))
                raise InputError(f"{field} is {getattr(self, field)!r}: it must be one of {known}")
        if not 0.0 <= self.timestep <= 1.0:
            raise InputError(f"timestep is {self.timestep}: flow time lies between 0 and 1")

    def size(self, segment: tuple[int, int, int], context: int) -> int:
        """A: the larger of ψ_0 and a memorised segment. B: ψ_0. C: ψ_0 and one window."""
        if self.squeeze == "A":
            return max(context, self.segment_tokens(segment))
        return context if self.squeeze == "B" else context + self.window_tokens(segment)

    def module(self, width: int, mlp_width: int, dtype: jnp.dtype) -> "SemanticMemory":
        """Its Flax module."""
        return SemanticMemory(self, width, mlp_width, dtype)


class Squeeze(nn.Module):
    """One cross-attention of a query over a source: the tokens of ψ_{n+1}."""

    spec: SemanticPack
    mlp_width: int
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(
        self,
        query: jax.Array,
        source: jax.Array,
        mask: jax.Array | None = None,
        carry: jax.Array | None = None,
        carried: jax.Array | bool = True,
    ) -> jax.Array:
        """query `[b, n, d]`, source `[b, m, d]`, its mask bool `[b, m]` → `[b, n, d]`.

        A gate mixes the result into `carry` `[b, n, d]`, ψ_n's tokens in the same places, unless `carried` is False.
        """
        spec = self.spec
        x = AffineLayerNorm(name="norm_query")(query)
        read = Attention(spec.heads, self.dtype, name="attention")(x, AffineLayerNorm(name="norm_memory")(source), mask)
        x = query + read if spec.residual else read
        if spec.mlp:
            x = x + FeedForward(self.mlp_width, dtype=self.dtype, name="mlp")(AffineLayerNorm(name="norm_mlp")(x))
        x = AffineLayerNorm(name="norm_out")(x)
        if spec.gate == "none" or carry is None:
            return x
        shape = (1,) if spec.gate == "scalar" else (x.shape[-1],)
        share = nn.sigmoid(self.param("gate", logical(nn.initializers.zeros, (None,)), shape, jnp.float32))
        return jnp.where(carried, carry + share * (x - carry), x)


class SemanticMemory(nn.Module):
    """SemanticPack as a long-term memory (`memory.LongTermMemory`)."""

    spec: SemanticPack
    width: int
    mlp_width: int
    dtype: jnp.dtype = jnp.float32

    def setup(self):
        """Memorize and Squeeze, one of each for all segments."""
        self.memorize = Memorize(self.spec, self.width, self.mlp_width, self.dtype)
        self.squeeze = Squeeze(self.spec, self.mlp_width, self.dtype)

    def start(self, batch: int, context: Context, segment: tuple[int, int, int]) -> Memory:
        """ψ_0 = [image, prompt] by `initial`, padded to the size of ψ."""
        image, text, mask = context(self.spec.timestep)
        tokens, valid = image, jnp.ones(image.shape[:2], bool)
        if self.spec.initial != "image":
            tokens, valid = jnp.concatenate([image, text], 1), jnp.concatenate([valid, mask], 1)
        tokens = tokens.astype(jnp.float32) if self.spec.initial != "zero" else jnp.zeros(tokens.shape)
        tokens, valid = pad_memory(tokens, valid, self.spec.size(segment, tokens.shape[1]))
        return Memory(tokens=tokens, valid=valid)

    def update(self, memory: Memory, segment: jax.Array) -> Memory:
        """One step of Eq. 1 with the segment x^n `[b, f, h, w, c]`."""
        visual, size = self.memorize(segment), memory.tokens.shape[1]
        if self.spec.squeeze == "A":
            carry = memory.tokens[:, : visual.shape[1]]
            # ψ_0 has other tokens in these places: nothing to carry yet.
            tokens = self.squeeze(visual, memory.tokens, memory.valid, carry, memory.updates > 0)
            return memory.taking(*pad_memory(tokens, jnp.ones(tokens.shape[:2], bool), size))
        query, valid = memory.tokens, memory.valid
        if self.spec.squeeze == "C":
            _, f, h, w, _ = segment.shape
            places = size - self.spec.window_tokens((f, h, w))
            joined = jnp.concatenate([query[:, :places], visual[:, : size - places].astype(query.dtype)], 1)
            query = jnp.where(memory.updates == 0, joined, query)
            valid = valid.at[:, places:].set(True)
        return memory.taking(self.squeeze(query, visual, None, query), valid)

    def read(self, memory: Memory, pooled: jax.Array, image: jax.Array) -> tuple[jax.Array, jax.Array]:
        """ψ as it is."""
        del pooled, image
        return memory.tokens, memory.valid
