"""Attention by matrix products, some of the scores at a time, in either pass.

Heads go through in groups and the queries of a group in pieces; each query sees all keys at once. With
s = q kᵀ / √head_dim, the forward pass keeps for every query

    top = max s,    share = 1 / Σ exp(s − top),    out = Σ exp(s − top) v / Σ exp(s − top)

and the backward pass, which computes the scores of a piece anew, has for a cotangent g of out

    p = share exp(s − top),    ∂v = pᵀ g,    ∂s = p (g vᵀ − g · out)
    ∂q = ∂s k / √head_dim,     ∂k = ∂sᵀ q / √head_dim

(Dao et al. 2022, "FlashAttention", appendix B.2). Scores, softmax and sums over pieces are float32. What the backward
pass needs carries the name `SAVED`, so that rematerialisation may keep it.
"""

import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

SAVED = "attention"
LOWEST = float(jnp.finfo(jnp.float32).min)


class Portions(NamedTuple):
    """How much is computed at a time.

    Attributes:
        heads: of all videos together; divides their number.
        pieces: of the queries.
    """

    heads: int
    pieces: int


def fitting_portions(heads: int, queries: int, keys: int, largest: int) -> Portions:
    """The largest portions whose float32 scores take at most `largest` bytes; at least one query of one head."""
    one = 4 * queries * keys
    together = max((n for n in range(1, heads + 1) if heads % n == 0 and n * one <= largest), default=1)
    return Portions(together, min(math.ceil(together * one / largest), queries))


@functools.partial(jax.custom_vjp, nondiff_argnums=(4,))
def plain_attention(
    query: jax.Array, key: jax.Array, value: jax.Array, mask: jax.Array | None, portions: Portions
) -> jax.Array:
    """softmax(q kᵀ / √head_dim) v.

    Args:
        query: `[b, n, heads, head_dim]`.
        key, value: `[b, m, heads, head_dim]`.
        mask: bool, True = attend: keys `[b, m]`, or pairs `[b, n, m]`. Every query needs at least one True key.
        portions: of b · heads heads and n queries.

    Returns:
        `[b, n, heads, head_dim]` in the dtype of `query`.
    """
    return _forward(query, key, value, mask, portions)[0]


def _forward(query, key, value, mask, portions):
    def group(inputs: tuple) -> tuple:
        q, k, v, seen = inputs

        def piece(_: None, cuts: tuple) -> tuple[None, tuple]:
            q, pairs = cuts
            scores = _scores(q, k, seen if pairs is None else pairs)
            top = scores.max(-1, keepdims=True)
            weights = jnp.exp(scores - top)
            total = weights.sum(-1, keepdims=True)
            # Divided behind the product, which has fewer numbers than the weights.
            return None, (_product("hnm,hmd->hnd", weights.astype(v.dtype), v) / total, top, 1 / total)

        (out, top, share), _ = _over_pieces(piece, None, (q, _pairs(seen)), portions.pieces)
        return out.astype(query.dtype), top, share

    b, _, heads, _ = query.shape
    kept = _over_groups(group, (*map(_heads_first, (query, key, value)), _by_head(mask, heads)), portions.heads)
    out, top, share = (checkpoint_name(x, SAVED) for x in kept)
    return _heads_last(out, b), (query, key, value, mask, out, top, share)


def _backward(portions, kept, cotangent):
    query, key, value, mask, out, top, share = kept
    scale = query.shape[-1] ** -0.5

    def group(inputs: tuple) -> tuple:
        q, k, v, seen, out, top, share, g = inputs
        delta = (g.astype(jnp.float32) * out.astype(jnp.float32)).sum(-1, keepdims=True)

        def piece(sums: tuple, cuts: tuple) -> tuple[tuple, tuple]:
            q, pairs, top, share, g, delta = cuts
            weights = share * jnp.exp(_scores(q, k, seen if pairs is None else pairs) - top)
            of_value = _product("hnm,hnd->hmd", weights.astype(v.dtype), g)
            of_scores = (weights * (_product("hnd,hmd->hnm", g, v) - delta) * scale).astype(k.dtype)
            sums = sums[0] + _product("hnm,hnd->hmd", of_scores, q), sums[1] + of_value
            return sums, (_product("hnm,hmd->hnd", of_scores, k),)

        zeros = jnp.zeros(k.shape, jnp.float32), jnp.zeros(v.shape, jnp.float32)
        cuts = (q, _pairs(seen), top, share, g, delta)
        (of_query,), (of_key, of_value) = _over_pieces(piece, zeros, cuts, portions.pieces)
        return of_query.astype(q.dtype), of_key.astype(k.dtype), of_value.astype(v.dtype)

    b, _, heads, _ = query.shape
    arrays = map(_heads_first, (query, key, value))
    inputs = (*arrays, _by_head(mask, heads), out, top, share, _heads_first(cotangent))
    gradients = _over_groups(group, inputs, portions.heads)
    return *(_heads_last(x, b) for x in gradients), None


plain_attention.defvjp(_forward, _backward)


def _scores(query: jax.Array, key: jax.Array, mask: jax.Array | None) -> jax.Array:
    """Float32 `[h, n, m]` of `[h, n, d]`, `[h, m, d]` and a mask `[h, 1 or n, m]`."""
    scores = _product("hnd,hmd->hnm", query, key) * query.shape[-1] ** -0.5
    return scores if mask is None else jnp.where(mask, scores, LOWEST)


_product = functools.partial(jnp.einsum, preferred_element_type=jnp.float32)


def _heads_first(x: jax.Array) -> jax.Array:
    """`[b, n, heads, d]` → `[b · heads, n, d]`: a head's matrix lies in one piece, and a product has one batch axis."""
    return x.swapaxes(1, 2).reshape(-1, x.shape[1], x.shape[3])


def _heads_last(x: jax.Array, b: int) -> jax.Array:
    """The inverse of `_heads_first` for b videos."""
    return x.reshape(b, -1, *x.shape[1:]).swapaxes(1, 2)


def _by_head(mask: jax.Array | None, heads: int) -> jax.Array | None:
    """A mask of keys or pairs as `[b · heads, 1 or n, m]`."""
    if mask is None:
        return None
    mask = mask[:, None, None] if mask.ndim == 2 else mask[:, None]
    return jnp.broadcast_to(mask, (mask.shape[0], heads, *mask.shape[2:])).reshape(-1, *mask.shape[2:])


def _pairs(mask: jax.Array | None) -> jax.Array | None:
    """The mask if it is one that differs from query to query."""
    return mask if mask is not None and mask.shape[1] > 1 else None


def _over_groups(group, arrays: tuple, heads: int) -> tuple:
    """`group` of arrays `[heads, …]`, for so many heads of `[b · heads, …]` at a time."""
    count = arrays[0].shape[0] // heads
    if count == 1:
        return group(arrays)
    split = jax.tree.map(lambda x: x.reshape(count, heads, *x.shape[1:]), arrays)
    return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), jax.lax.map(group, split))


def _over_pieces(piece, sums, arrays: tuple, pieces: int) -> tuple:
    """Scans `piece` over rows of the arrays `[h, n, …]`; returns its results as such arrays, and the sums.

    Zeros fill the last piece: what they give is dropped, and their share of the sums is nothing.
    """
    if pieces == 1:
        sums, results = piece(sums, arrays)
        return results, sums
    n = arrays[0].shape[1]
    rows = -(-n // pieces)

    def cut(x: jax.Array) -> jax.Array:
        x = jnp.pad(x, ((0, 0), (0, pieces * rows - n), (0, 0)))
        return x.reshape(x.shape[0], pieces, rows, -1).swapaxes(0, 1)

    def join(x: jax.Array) -> jax.Array:
        return x.swapaxes(0, 1).reshape(x.shape[1], pieces * rows, -1)[:, :n]

    sums, results = jax.lax.scan(piece, sums, jax.tree.map(cut, arrays))
    return jax.tree.map(join, results), sums
