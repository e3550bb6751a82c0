"""A long array a piece at a time: `[b, n, …]` as `[pieces, b, rows, …]`, for loops over queries."""

import math

import jax
import jax.numpy as jnp


def count_pieces(query: jax.Array, key: jax.Array, largest_scores: int) -> int:
    """Pieces of the queries whose scores with all of these keys stay within the limit; at least 1.

    Args:
        query: `[b, n, heads, head_dim]`.
        key: `[b, m, heads, head_dim]`.
        largest_scores: bytes of float32 scores of one video.
    """
    _, n, heads, _ = query.shape
    return max(math.ceil(4 * heads * n * key.shape[1] / largest_scores), 1)


def cut(x: jax.Array, pieces: int) -> jax.Array:
    """`[b, n, …]` → `[pieces, b, rows, …]`; zeros fill the last piece."""
    rows = -(-x.shape[1] // pieces)
    x = jnp.pad(x, [(0, pieces * rows - x.shape[1] if axis == 1 else 0) for axis in range(x.ndim)])
    return x.reshape(x.shape[0], pieces, rows, *x.shape[2:]).swapaxes(0, 1)


def join(x: jax.Array, like: jax.Array) -> jax.Array:
    """The inverse of `cut`, in shape and dtype of `like`; what the zeros gave is dropped."""
    x = x.swapaxes(0, 1).reshape(like.shape[0], -1, *like.shape[2:])
    return x[:, : like.shape[1]].astype(like.dtype)
