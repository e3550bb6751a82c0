"""Small trainable encoders of the prompt (bytes) and of the reference frame (latents).

They stand in for LLaMA, CLIP and SigLIP where no pretrained weights are at hand; they train with the model.
"""

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp

from mpjax.models.architecture import Architecture, Encoders
from mpjax.models.layers import AffineLayerNorm, Dense, FeedForward, grid_positions, logical, patchify, token_grid
from mpjax.models.memorize import POSITION_WIDTH, Attention

VOCABULARY = 257  # byte value + 1; 0 pads


class Condition(flax.struct.PyTreeNode):
    """What a video is conditioned on, as embeddings.

    Attributes:
        text: prompt tokens `[b, l, text_width]`.
        text_mask: bool `[b, l]`.
        pooled: pooled prompt `[b, pooled_width]`.
        image: reference-image tokens `[b, n, image_width]`.
    """

    text: jax.Array
    text_mask: jax.Array
    pooled: jax.Array
    image: jax.Array


class PromptEncoder(nn.Module):
    """Prompt bytes → text tokens and a pooled vector; `bytes_per_token` neighbouring bytes share a token."""

    architecture: Architecture
    spec: Encoders

    @nn.compact
    def __call__(self, prompts: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        """prompts int32 `[b, l]` → text `[b, l / bytes_per_token, text_width]`, its mask, pooled `[b, pooled_width]`.

        An empty prompt keeps its first token valid, so that attention over text always has a key.
        """
        arch, spec = self.architecture, self.spec
        dtype = jnp.dtype(arch.dtype)
        table_init = logical(nn.initializers.normal(1.0), (None, "embed"))
        byte_width = max(spec.width // spec.bytes_per_token, 8)
        table = self.param("bytes", table_init, (VOCABULARY, byte_width), jnp.float32)
        b, length = prompts.shape
        groups = length // spec.bytes_per_token
        mask = (prompts > 0).reshape(b, groups, spec.bytes_per_token).any(-1)
        mask = jnp.asarray(mask).at[:, 0].set(True)
        x = table[prompts].reshape(b, groups, -1)
        x = Dense(spec.width, (None, "embed"), dtype=dtype, name="embed")(x)
        positions = grid_positions((groups, 1, 1), POSITION_WIDTH)[:, :POSITION_WIDTH]
        x = x + Dense(spec.width, (None, "embed"), use_bias=False, dtype=dtype, name="positions")(positions)
        for i in range(spec.depth):
            h = AffineLayerNorm(name=f"norm_attention_{i}")(x)
            x = x + Attention(spec.heads, dtype, name=f"attention_{i}")(h, h, mask)
            h = AffineLayerNorm(name=f"norm_mlp_{i}")(x)
            x = x + FeedForward(4 * spec.width, dtype=dtype, name=f"mlp_{i}")(h)
        x = AffineLayerNorm(name="norm_out")(x)
        weights = mask[..., None].astype(x.dtype)
        mean = (x * weights).sum(1) / weights.sum(1)
        text = Dense(arch.text_width, ("embed", None), dtype=dtype, name="text")(x)
        return text, mask, Dense(arch.pooled_width, ("embed", None), dtype=dtype, name="pooled")(mean)


class FrameEncoder(nn.Module):
    """Reference-frame latents → image tokens, one per `image_patch`² patch."""

    architecture: Architecture
    spec: Encoders

    @nn.compact
    def __call__(self, reference: jax.Array) -> jax.Array:
        """`[b, 1, h, w, c]` → `[b, n, image_width]`."""
        arch, patch = self.architecture, self.spec.image_patch
        dtype = jnp.dtype(arch.dtype)
        kernel = (1, patch, patch)
        x = Dense(arch.image_width, (None, "embed"), dtype=dtype, name="embed")(patchify(reference, kernel))
        positions = grid_positions(token_grid(reference.shape[1:4], kernel), POSITION_WIDTH)[:, POSITION_WIDTH:]
        x = x + Dense(arch.image_width, (None, "embed"), use_bias=False, dtype=dtype, name="positions")(positions)
        return x + FeedForward(2 * arch.image_width, dtype=dtype, name="mlp")(AffineLayerNorm(name="norm")(x))
