"""The token refiner: prompt tokens → context tokens, aware of the timestep (docs/backbone.md, section 1.4)."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from mpjax.models.attention import attention, split_heads
from mpjax.models.layers import AffineLayerNorm, Dense, EmbeddingMLP, FeedForward, Modulation, sinusoid


class RefinerBlock(nn.Module):
    """Pre-norm attention and MLP whose residuals are gated by the conditioning; no q/k norm, no RoPE."""

    heads: int
    mlp_width: int
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, conditioning: jax.Array, mask: jax.Array) -> jax.Array:
        """x `[b, l, d]`, conditioning `[b, d]`, mask bool `[b, l, l]` → `[b, l, d]`."""
        d = x.shape[-1]
        gate_attention, gate_mlp = Modulation(2, dtype=self.dtype, name="norm_out")(conditioning)
        h = AffineLayerNorm(name="norm1")(x)
        q, k, v = (
            split_heads(Dense(d, ("embed", "heads"), dtype=self.dtype, name=name)(h), self.heads)
            for name in ("to_q", "to_k", "to_v")
        )
        x = x + gate_attention * Dense(d, ("heads", "embed"), dtype=self.dtype, name="to_out")(attention(q, k, v, mask))
        h = FeedForward(self.mlp_width, "silu", dtype=self.dtype, name="ff")(AffineLayerNorm(name="norm2")(x))
        return x + gate_mlp * h


class TokenRefiner(nn.Module):
    """Refines raw prompt embeddings to width d (diffusers `HunyuanVideoTokenRefiner`)."""

    width: int
    heads: int
    mlp_width: int
    depth: int
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, text: jax.Array, mask: jax.Array, timestep: jax.Array) -> jax.Array:
        """Maps text `[b, l, dt]` with mask bool `[b, l]` at timestep `[b]` (1000·σ) to `[b, l, d]`.

        A row without a valid token stays finite: its mean divides by 1, as the pair mask always keeps key 0.
        """
        weights = mask.astype(jnp.float32)[..., None]
        pooled = (text.astype(jnp.float32) * weights).sum(1) / jnp.maximum(weights.sum(1), 1.0)
        conditioning = EmbeddingMLP(self.width, dtype=self.dtype, name="timestep_embedder")(sinusoid(timestep))
        conditioning += EmbeddingMLP(self.width, dtype=self.dtype, name="text_embedder")(pooled)
        x = Dense(self.width, (None, "embed"), dtype=self.dtype, name="proj_in")(text)
        pairs = mask[:, :, None] & mask[:, None, :]
        pairs = pairs.at[:, :, 0].set(True)  # a padded query attends to key 0 and never to nothing
        for i in range(self.depth):
            block = RefinerBlock(self.heads, self.mlp_width, self.dtype, name=f"block_{i}")
            x = block(x, conditioning, pairs)
        return x
