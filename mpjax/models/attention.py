"""The one entry to attention. Every block of every network here calls it, so a kernel is chosen in one place.

On TPU and NVIDIA it is one of `attention_kernels`, where the shapes allow it; elsewhere the plain product. The choice
is logged.

The scores of FramePack-F1 at 480×832, 24 heads times 21,157² tokens, would be 43 GB in float32. Where those of a video
exceed `LARGEST_SCORES`, queries go through a piece at a time: each still sees all keys at once, so its softmax is the
same, and the backward pass computes the scores of a piece anew. No array of all scores ever exists, in either pass.

On a mesh all this is what one device does with its own videos, heads and, along the context axis, its own part of the
sequence (`parallel.sharded_attention`); the limit holds for its share.
"""

import functools
import logging

import jax
import jax.numpy as jnp

from mpjax.models.attention_kernels import choose
from mpjax.parallel.pieces import count_pieces, cut, join
from mpjax.parallel.rules import on_mesh
from mpjax.parallel.sharded_attention import sharded_attention
from mpjax.parallel.target import target_device

LARGEST_SCORES = 2**30  # bytes of float32, of one video on one device


def attention(query: jax.Array, key: jax.Array, value: jax.Array, mask: jax.Array | None = None) -> jax.Array:
    """softmax(q kᵀ / √head_dim) v, not causal, softmax in float32.

    Args:
        query: `[b, n, heads, head_dim]`.
        key, value: `[b, m, heads, head_dim]`.
        mask: bool, True = attend: keys `[b, m]`, or pairs `[b, n, m]`. Every query needs at least one True key.

    Returns:
        `[b, n, heads · head_dim]` in the dtype of `query`.
    """
    if on_mesh():
        out = sharded_attention(_on_one_device, query, key, value, mask, LARGEST_SCORES)
    else:
        out = _on_one_device(query, key, value, mask)
    b, n, heads, head_dim = query.shape
    return out.reshape(b, n, heads * head_dim)


def _on_one_device(query: jax.Array, key: jax.Array, value: jax.Array, mask: jax.Array | None) -> jax.Array:
    """`attention` with heads apart, `[b, n, heads, head_dim]`."""
    device = target_device()
    choice = choose(device, query, key, value, mask)
    _log(choice.words, logging.DEBUG if device[0] == "cpu" else logging.INFO)
    if choice.kernel:
        return choice.kernel(query, key, value, mask)
    pieces = count_pieces(query, key, LARGEST_SCORES)
    return _whole(query, key, value, mask) if pieces == 1 else _in_pieces(query, key, value, mask, pieces)


@functools.cache
def _log(words: str, level: int) -> None:
    """Once for each choice; a CPU has none."""
    logging.getLogger(__name__).log(level, "attention: %s", words)


def _in_pieces(query: jax.Array, key: jax.Array, value: jax.Array, mask: jax.Array | None, pieces: int) -> jax.Array:
    """`_whole` for so many pieces of the queries, one after the other."""
    # Keys and values enter in float32, so that the backward pass adds up in float32 what the pieces say of them.
    wide, dtypes = [x.astype(jnp.float32) for x in (key, value)], (key.dtype, value.dtype)
    pairs = mask if mask is not None and mask.ndim == 3 else None

    def piece(cuts: tuple[jax.Array, jax.Array | None]) -> jax.Array:
        key, value = (x.astype(dtype) for x, dtype in zip(wide, dtypes, strict=True))
        return _whole(cuts[0], key, value, mask if pairs is None else cuts[1])

    inputs = (cut(query, pieces), None if pairs is None else cut(pairs, pieces))
    return join(jax.lax.map(jax.checkpoint(piece, prevent_cse=False), inputs), query)


def _whole(query: jax.Array, key: jax.Array, value: jax.Array, mask: jax.Array | None) -> jax.Array:
    """`attention` with all scores at once; `[b, n, heads, head_dim]`."""
    b, n, heads, head_dim = query.shape
    query, key, value = (x.swapaxes(1, 2) for x in (query, key, value))
    if mask is not None:
        mask = mask[:, None, None] if mask.ndim == 2 else mask[:, None]
    merge = target_device()[0] == "cpu"
    if merge:
        # One batched product over batch · heads is twice as fast there as one over two axes.
        query, key, value = (x.reshape(b * heads, -1, head_dim) for x in (query, key, value))
        mask = None if mask is None else jnp.repeat(mask[:, 0], heads, axis=0)
    scores = jnp.einsum("...nd,...md->...nm", query, key, preferred_element_type=jnp.float32) * head_dim**-0.5
    if mask is not None:
        scores = jnp.where(mask, scores, jnp.finfo(jnp.float32).min)
    weights = jax.nn.softmax(scores, -1).astype(value.dtype)
    out = jnp.einsum("...nm,...md->...nd", weights, value)
    if merge:
        out = out.reshape(b, heads, n, head_dim)
    return out.swapaxes(1, 2)


def split_heads(x: jax.Array, heads: int) -> jax.Array:
    """`[b, n, heads · head_dim]` → `[b, n, heads, head_dim]`."""
    return x.reshape(*x.shape[:-1], heads, -1)
