"""The one entry to attention. Every block of every network here calls it, so a kernel is chosen in one place.

On TPU and NVIDIA it is one of `attention_kernels`, where the shapes allow it; elsewhere the plain product. The choice
is logged.

The scores of FramePack-F1 at 480×832, 24 heads times 21,157² tokens, would be 43 GB in float32. Where those of a video
exceed `LARGEST_SCORES`, queries go through a piece at a time: each still sees all keys at once, so its softmax is the
same, and the backward pass computes the scores of a piece anew. No array of all scores ever exists, in either pass
(`plain_attention`). A CPU takes so few at a time that they stay in its cache.

On a mesh all this is what one device does with its own videos, heads and, along the context axis, its own part of the
sequence (`parallel.sharded_attention`); the limit holds for its share.
"""

import functools
import logging

import jax

from mpjax.models.attention_kernels import choose
from mpjax.models.plain_attention import Portions, fitting_portions, plain_attention
from mpjax.parallel.pieces import count_pieces
from mpjax.parallel.rules import on_mesh
from mpjax.parallel.sharded_attention import sharded_attention
from mpjax.parallel.target import target_device

LARGEST_SCORES = 2**30  # bytes of float32, of one video on one device
CACHED_SCORES = 2**22  # bytes of float32 at once on a CPU: written and read again before they leave its cache


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
    return plain_attention(query, key, value, mask, _portions(device[0], query, key))


def _portions(platform: str, query: jax.Array, key: jax.Array) -> Portions:
    b, n, heads, _ = query.shape
    m = key.shape[1]
    if platform == "cpu":
        return fitting_portions(b * heads, n, m, CACHED_SCORES)
    return Portions(b * heads, count_pieces(query, key, LARGEST_SCORES))


@functools.cache
def _log(words: str, level: int) -> None:
    """Once for each choice; a CPU has none."""
    logging.getLogger(__name__).log(level, "attention: %s", words)


def split_heads(x: jax.Array, heads: int) -> jax.Array:
    """`[b, n, heads · head_dim]` → `[b, n, heads, head_dim]`."""
    return x.reshape(*x.shape[:-1], heads, -1)
