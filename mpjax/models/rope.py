"""3-axis rotary position embedding with pooled tables (docs/backbone.md, section 1.7)."""

import jax
import jax.numpy as jnp
import numpy as np

from mpjax.models.layers import pad_to_multiple

Table = tuple[jax.Array, jax.Array]


def rope_table(
    frames: jax.Array, grid: tuple[int, int], axes: tuple[int, int, int], theta: float, rate: int = 1
) -> Table:
    """cos and sin for tokens at the given frame indices on a token grid, pooled for history at 2x and 4x.

    Args:
        frames: frame indices, any real numbers, `[n]`; may be traced.
        grid: (height, width) of the *noisy* latents in tokens, for every rate.
        axes: channels per (t, y, x), summing to head_dim.
        theta: frequency base.
        rate: pooling factor. cos and sin are averaged separately over rate³ neighbours after edge padding at the end,
            so pooled pairs are not unit length; the network was trained that way.

    Returns:
        cos, sin: float32 `[n', head_dim]` with n' = ⌈n/rate⌉·⌈h/rate⌉·⌈w/rate⌉, each value repeated twice in place.
    """
    positions = jnp.meshgrid(
        frames.astype(jnp.float32),
        jnp.arange(grid[0], dtype=jnp.float32),
        jnp.arange(grid[1], dtype=jnp.float32),
        indexing="ij",
    )
    angles = []
    for position, channels in zip(positions, axes, strict=True):
        frequencies = (1.0 / theta ** (np.arange(0, channels, 2) / channels)).astype(np.float32)
        angles.append(position[..., None] * frequencies)
    angle = jnp.repeat(jnp.concatenate(angles, -1), 2, axis=-1)
    cos, sin = _pool(jnp.cos(angle), rate), _pool(jnp.sin(angle), rate)
    return cos.reshape(-1, sum(axes)), sin.reshape(-1, sum(axes))


def _pool(table: jax.Array, rate: int) -> jax.Array:
    if rate == 1:
        return table
    table = pad_to_multiple(table, (rate, rate, rate), 0)
    t, h, w, d = table.shape
    return table.reshape(t // rate, rate, h // rate, rate, w // rate, rate, d).mean((1, 3, 5))


def apply_rope(x: jax.Array, table: Table) -> jax.Array:
    """Turns interleaved channel pairs (a, b) → (a·cos − b·sin, b·cos + a·sin) in float32.

    Args:
        x: queries or keys `[b, n, heads, head_dim]`.
        table: cos, sin `[m, head_dim]` for the first m ≤ n tokens; the rest (context) is returned unturned.
    """
    cos, sin = (part[:, None] for part in table)
    m = cos.shape[0]
    turned = x[:, :m].astype(jnp.float32)
    pairs = turned.reshape(*turned.shape[:-1], -1, 2)
    rotated = jnp.stack([-pairs[..., 1], pairs[..., 0]], -1).reshape(turned.shape)
    turned = (turned * cos + rotated * sin).astype(x.dtype)
    return turned if m == x.shape[1] else jnp.concatenate([turned, x[:, m:]], 1)
