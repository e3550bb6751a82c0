"""SemanticPack: long-term memory ψ of constant size (paper, Eq. 1).

    ψ_{n+1} = Squeeze(ψ_n, Memorize(x^n))

Memorize is self-attention inside windows of a segment; Squeeze is one cross-attention whose query is the memorised
segment and whose keys and values are ψ_n (the paper's variant A). ψ_0 is the prompt and the reference image.
Keys carry no bias: softmax cannot see one.
"""

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp

from mpjax.models.architecture import FramePack, SemanticPack
from mpjax.models.attention import attention, split_heads
from mpjax.models.layers import AffineLayerNorm, Dense, FeedForward, grid_positions, patchify, token_grid

POSITION_WIDTH = 16  # position features per axis


class Memory(flax.struct.PyTreeNode):
    """ψ. Its size never changes, so a video of any length costs the same per segment.

    Attributes:
        tokens: `[b, m, d]`.
        valid: bool `[b, m]`; ψ_0 and ψ_n differ in length, and prompts in theirs.
    """

    tokens: jax.Array
    valid: jax.Array


def memory_tokens(spec: SemanticPack, framepack: FramePack, height: int, width: int) -> int:
    """Tokens Memorize emits for one segment of latents of the given size."""
    t, h, w = token_grid((framepack.segment_frames, height, width), spec.patch)
    return t * h * w


def pad_memory(tokens: jax.Array, valid: jax.Array, size: int) -> Memory:
    """Pads `[b, n, d]` tokens with invalid zeros to `size`."""
    missing = size - tokens.shape[1]
    return Memory(tokens=jnp.pad(tokens, ((0, 0), (0, missing), (0, 0))), valid=jnp.pad(valid, ((0, 0), (0, missing))))


class Attention(nn.Module):
    """Multi-head attention of `x` over `source` with an output projection."""

    heads: int
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, source: jax.Array, mask: jax.Array | None = None) -> jax.Array:
        """x `[b, n, d]`, source `[b, m, d]`, key mask bool `[b, m]` → `[b, n, d]`."""
        d, axes = x.shape[-1], ("embed", "heads")
        q = split_heads(Dense(d, axes, dtype=self.dtype, name="to_q")(x), self.heads)
        k = split_heads(Dense(d, axes, use_bias=False, dtype=self.dtype, name="to_k")(source), self.heads)
        v = split_heads(Dense(d, axes, dtype=self.dtype, name="to_v")(source), self.heads)
        return Dense(d, ("heads", "embed"), dtype=self.dtype, name="to_out")(attention(q, k, v, mask))


class Memorize(nn.Module):
    """A segment of latents → compact tokens, by strided patches and self-attention inside windows."""

    spec: SemanticPack
    width: int
    mlp_width: int
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, segment: jax.Array) -> jax.Array:
        """`[b, f, h, w, c]` → `[b, n, d]`, n = patches of the segment."""
        spec = self.spec
        grid = token_grid(segment.shape[1:4], spec.patch)
        x = Dense(self.width, (None, "embed"), dtype=self.dtype, name="embed")(patchify(segment, spec.patch))
        positions = grid_positions(grid, POSITION_WIDTH)
        x = x + Dense(self.width, (None, "embed"), use_bias=False, dtype=self.dtype, name="positions")(positions)
        per_window = spec.window // spec.patch[0] if spec.window else grid[0]
        if grid[0] % per_window:
            raise ValueError(f"{grid[0]} time patches do not divide into windows of {spec.window} frames")
        windows = grid[0] // per_window
        b, n, d = x.shape
        x = x.reshape(b * windows, n // windows, d)
        for i in range(spec.depth):
            h = AffineLayerNorm(name=f"norm_attention_{i}")(x)
            x = x + Attention(spec.heads, self.dtype, name=f"attention_{i}")(h, h)
            h = AffineLayerNorm(name=f"norm_mlp_{i}")(x)
            x = x + FeedForward(self.mlp_width, dtype=self.dtype, name=f"mlp_{i}")(h)
        return x.reshape(b, n, d)


class Squeeze(nn.Module):
    """Reads ψ_n with the memorised segment as query and returns the tokens of ψ_{n+1}."""

    spec: SemanticPack
    mlp_width: int
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, memorized: jax.Array, memory: Memory) -> jax.Array:
        """memorized `[b, n, d]` → `[b, n, d]`; invalid tokens of ψ_n are masked."""
        spec = self.spec
        query = AffineLayerNorm(name="norm_query")(memorized)
        source = AffineLayerNorm(name="norm_memory")(memory.tokens)
        read = Attention(spec.heads, self.dtype, name="attention")(query, source, memory.valid)
        x = memorized + read if spec.residual else read
        if spec.mlp:
            x = x + FeedForward(self.mlp_width, dtype=self.dtype, name="mlp")(AffineLayerNorm(name="norm_mlp")(x))
        return AffineLayerNorm(name="norm_out")(x)
