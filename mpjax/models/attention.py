"""The one entry to attention. Every block of every network here calls it, so a kernel is chosen in one place."""

import jax
import jax.numpy as jnp


def attention(query: jax.Array, key: jax.Array, value: jax.Array, mask: jax.Array | None = None) -> jax.Array:
    """softmax(q kᵀ / √head_dim) v, not causal, softmax in float32.

    Args:
        query: `[b, n, heads, head_dim]`.
        key, value: `[b, m, heads, head_dim]`.
        mask: bool, True = attend: keys `[b, m]`, or pairs `[b, n, m]`. Every query needs at least one True key.

    Returns:
        `[b, n, heads · head_dim]` in the dtype of `query`.
    """
    b, n, heads, head_dim = query.shape
    query, key, value = (x.swapaxes(1, 2) for x in (query, key, value))
    if mask is not None:
        mask = mask[:, None, None] if mask.ndim == 2 else mask[:, None]
    merge = jax.default_backend() == "cpu"
    if merge:
        # One batched product over batch · heads is twice as fast there as one over two axes. Elsewhere the two stay
        # apart: merged, they would lose their sharding.
        query, key, value = (x.reshape(b * heads, -1, head_dim) for x in (query, key, value))
        mask = None if mask is None else jnp.repeat(mask[:, 0], heads, axis=0)
    scores = jnp.einsum("...nd,...md->...nm", query, key, preferred_element_type=jnp.float32) * head_dim**-0.5
    if mask is not None:
        scores = jnp.where(mask, scores, jnp.finfo(jnp.float32).min)
    weights = jax.nn.softmax(scores, -1).astype(value.dtype)
    out = jnp.einsum("...nm,...md->...nd", weights, value)
    if merge:
        out = out.reshape(b, heads, n, head_dim)
    return out.swapaxes(1, 2).reshape(b, n, heads * head_dim)


def split_heads(x: jax.Array, heads: int) -> jax.Array:
    """`[b, n, heads · head_dim]` → `[b, n, heads, head_dim]`."""
    return x.reshape(*x.shape[:-1], heads, -1)
