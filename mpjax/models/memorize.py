"""Memorize (paper, Eq. 1): a segment of latents → compact tokens, by self-attention inside windows of the segment.

Keys carry no bias: softmax cannot see one.
"""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp

from mpjax.errors import InputError
from mpjax.models.attention import attention, split_heads
from mpjax.models.layers import AffineLayerNorm, Dense, FeedForward, grid_positions, patchify, token_grid

POSITION_WIDTH = 16  # position features per axis


@dataclasses.dataclass(frozen=True, kw_only=True)
class Memorizing:
    """Memorize's shape: what every kind of memory has in common. All fields are the paper's open points.

    Attributes:
        patch: (time, height, width) of latents that become one memory token.
        depth: windowed self-attention blocks of Memorize.
        heads: attention heads.
        window: latent frames in one attention window; 0 makes the whole segment one window.
    """

    patch: tuple[int, int, int] = (2, 4, 4)
    depth: int = 2
    heads: int = 24
    window: int = 0

    def __post_init__(self):
        if min(self.patch) < 1 or self.heads < 1 or self.depth < 0 or self.window < 0:
            raise InputError(
                f"patch {self.patch} and heads {self.heads} start at 1, depth {self.depth}, window {self.window} at 0"
            )
        if self.window % self.patch[0]:
            raise InputError(f"window is {self.window} frames: it must be a multiple of patch[0] = {self.patch[0]}")

    def check(self, width: int, frames: int) -> None:
        """Whether it fits a network of this token width and segments of this many latent frames.

        Raises:
            InputError: it does not.
        """
        if width % self.heads:
            raise InputError(f"memory.heads is {self.heads}: it must divide the width {width}")
        if self.window and -(-frames // self.patch[0]) % (self.window // self.patch[0]):
            raise InputError(f"memory.window is {self.window}: it must divide the {frames} frames of a segment")

    def segment_tokens(self, segment: tuple[int, int, int]) -> int:
        """Tokens Memorize emits for one segment of (frames, height, width) latents."""
        t, h, w = token_grid(segment, self.patch)
        return t * h * w

    def window_tokens(self, segment: tuple[int, int, int]) -> int:
        """Those of one window of it."""
        frames, *picture = segment
        return self.segment_tokens((self.window or frames, picture[0], picture[1]))


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

    spec: Memorizing
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
