"""Ring attention (Liu et al. 2023, "Ring Attention with Blockwise Transformers"): inside `jax.shard_map`.

Every device keeps its queries; keys and values go around, a block a step. With s = q kᵀ / √head_dim, a device carries
for each of its queries

    m = max s,    z = Σ exp(s − m),    o = Σ exp(s − m) v        (over the keys seen so far)

and the attention is o / z. The backward pass goes around once more with the final m and z: p = exp(s − m) / z is exact
for every block by itself, and the gradients of a block travel with it until it is home. Masked scores are the lowest
finite number: a block of masked keys alone adds exp(lowest − m) = 0, and a query without any key sees the mean of all
values, as in the plain product.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp

from mpjax.parallel.pieces import count_pieces, cut, join

LOWEST = float(jnp.finfo(jnp.float32).min)


@functools.partial(jax.custom_vjp, nondiff_argnums=(4, 5))
def ring_attention(
    query: jax.Array, key: jax.Array, value: jax.Array, mask: jax.Array, axis: str, largest_scores: int
) -> jax.Array:
    """softmax(q kᵀ / √head_dim) v over the keys of all devices along a mesh axis; softmax in float32.

    Args:
        query: this device's, `[b, n, heads, head_dim]`.
        key, value: this device's, `[b, m, heads, head_dim]`.
        mask: of its keys, bool `[b, m]`, True = attend.
        axis: mesh axis.
        largest_scores: bytes of float32 scores of one video that may exist at once; above, queries go through a piece
            at a time.

    Returns:
        `[b, n, heads, head_dim]` in the dtype of `query`.
    """
    return _forward(query, key, value, mask, axis, largest_scores)[0]


def _forward(query, key, value, mask, axis, largest_scores):
    pieces = count_pieces(query, key, largest_scores)
    queries = cut(query, pieces)
    _, b, rows, heads, _ = queries.shape
    state = (
        jnp.zeros(queries.shape, jnp.float32),
        jnp.full((pieces, b, heads, rows), LOWEST),
        jnp.zeros((pieces, b, heads, rows)),
    )

    def absorb(state: tuple, block: tuple) -> tuple:
        key, value, mask = block

        def piece(_: None, inputs: tuple) -> tuple[None, tuple]:
            query, (out, top, total) = inputs
            scores = _scores(query, key, mask)
            higher = jnp.maximum(top, scores.max(-1))
            weights, fade = jnp.exp(scores - higher[..., None]), jnp.exp(top - higher)
            seen = jnp.einsum("bhnm,bmhd->bnhd", weights.astype(value.dtype), value, preferred_element_type=jnp.float32)
            return None, (out * _by_query(fade) + seen, higher, total * fade + weights.sum(-1))

        return jax.lax.scan(piece, None, (queries, state))[1]

    def step(carry: tuple, _: None) -> tuple[tuple, None]:
        state, block = carry
        following = _pass_on(block, axis)  # sent before this block is computed with, so that both may overlap
        return (absorb(state, block), following), None

    (state, last), _ = jax.lax.scan(step, (state, (key, value, mask)), length=jax.lax.axis_size(axis) - 1)
    out, top, total = absorb(state, last)
    result = join(out / jax.vmap(_by_query)(total), query)
    return result, (query, key, value, mask, result, top, total)


def _backward(axis, largest_scores, kept, cotangent):
    query, key, value, mask, result, top, total = kept
    pieces = count_pieces(query, key, largest_scores)
    scale = query.shape[-1] ** -0.5
    delta = jnp.einsum("bnhd,bnhd->bnh", cotangent.astype(jnp.float32), result.astype(jnp.float32))
    queries, cotangents, deltas = (cut(x, pieces) for x in (query, cotangent, delta))

    def through(gradients: jax.Array, travelling: tuple) -> tuple[jax.Array, tuple]:
        key, value, mask, of_key, of_value = travelling

        def piece(carry: tuple, inputs: tuple) -> tuple[tuple, jax.Array]:
            of_key, of_value = carry
            query, cotangent, delta, top, total, of_query = inputs
            einsum = functools.partial(jnp.einsum, preferred_element_type=jnp.float32)
            weights = jnp.exp(_scores(query, key, mask) - top[..., None]) / total[..., None]
            of_value = of_value + einsum("bhnm,bnhd->bmhd", weights.astype(value.dtype), cotangent)
            of_weights = einsum("bnhd,bmhd->bhnm", cotangent, value)
            of_scores = weights * (of_weights - delta.swapaxes(1, 2)[..., None]) * scale
            # Where masked, the score is a constant.
            of_scores = jnp.where(mask[:, None, None], of_scores, 0.0).astype(key.dtype)
            of_key = of_key + einsum("bhnm,bnhd->bmhd", of_scores, query)
            return (of_key, of_value), of_query + einsum("bhnm,bmhd->bnhd", of_scores, key)

        inputs = (queries, cotangents, deltas, top, total, gradients)
        (of_key, of_value), gradients = jax.lax.scan(piece, (of_key, of_value), inputs)
        return gradients, (key, value, mask, of_key, of_value)

    def step(carry: tuple, _: None) -> tuple[tuple, None]:
        gradients, travelling = through(*carry)
        return (gradients, _pass_on(travelling, axis)), None

    zeros = [jnp.zeros(x.shape, jnp.float32) for x in (queries, key, value)]
    start = (zeros[0], (key, value, mask, *zeros[1:]))
    (gradients, (*_, of_key, of_value)), _ = jax.lax.scan(step, start, length=jax.lax.axis_size(axis))
    return join(gradients, query), of_key.astype(key.dtype), of_value.astype(value.dtype), None


ring_attention.defvjp(_forward, _backward)


def _scores(query: jax.Array, key: jax.Array, mask: jax.Array) -> jax.Array:
    """Float32 `[b, heads, n, m]`."""
    scores = jnp.einsum("bnhd,bmhd->bhnm", query, key, preferred_element_type=jnp.float32) * query.shape[-1] ** -0.5
    return jnp.where(mask[:, None, None], scores, LOWEST)


def _by_query(x: jax.Array) -> jax.Array:
    """`[b, heads, n]` → `[b, n, heads, 1]`."""
    return x.swapaxes(1, 2)[..., None]


def _pass_on(tree: Any, axis: str) -> Any:
    """Every device's arrays to the next one along the axis."""
    size = jax.lax.axis_size(axis)
    return jax.tree.map(lambda x: jax.lax.ppermute(x, axis, [(i, (i + 1) % size) for i in range(size)]), tree)
