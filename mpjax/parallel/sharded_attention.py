"""Attention on a mesh, by `jax.shard_map`: a device computes its own videos and heads, and where the mesh has a context
axis, its own part of the sequence.

Two ways lead to the keys of the other parts; `choose` says which one a shape takes.

    Ulysses (Jacobs et al. 2023, "DeepSpeed Ulysses")   one exchange, tokens for heads, before the attention and one
                                                        after it: a device sees whole sequences of some heads
    ring (Liu et al. 2023, "Ring Attention")            keys and values go around, a block a step (`ring.py`)

With n queries, m keys and C devices along the axis, a device sends 2 (n + m) / C vectors by Ulysses and 2 m by the
ring, C / 2 times as many where n = m. Ulysses runs the kernel of one device on whole rows, but needs heads that divide
by C.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from mpjax.parallel.ring import ring_attention
from mpjax.parallel.rules import devices_along, fitting_spec, mesh_axes

# query `[b, n, heads, head_dim]`, key and value `[b, m, …]`, mask bool `[b, m]` or `[b, n, m]` → as query
Attend = Callable[[jax.Array, jax.Array, jax.Array, jax.Array | None], jax.Array]


class Choice(NamedTuple):
    """How a sequence is split, and why."""

    kind: Literal["whole", "ulysses", "ring"]
    why: str


def choose(queries: int, keys: int, heads: int, parts: int, pairs: bool = False) -> Choice:
    """How attention of this shape is split over the context axis.

    Args:
        queries, keys: tokens of the whole sequences.
        heads: that a device holds.
        parts: devices along the context axis.
        pairs: whether the mask is one of pairs.
    """
    if parts == 1:
        return Choice("whole", "the mesh has no context axis")
    if pairs:
        return Choice("whole", "a mask of pairs is that of a short sequence, the prompt")
    if queries % parts or keys % parts:
        return Choice("whole", f"{queries} queries and {keys} keys do not divide into {parts} parts")
    if heads % parts == 0:
        return Choice("ulysses", f"the {heads} heads of a device divide into {parts} parts")
    return Choice("ring", f"the {heads} heads of a device do not divide into {parts} parts")


def explain(heads: int, mesh: Mesh) -> str:
    """How the blocks of a network with so many heads split their sequence, which is padded to divide, and why."""
    parts = mesh.shape["context"]
    kind, why = choose(parts, parts, _own_heads(heads, mesh.shape), parts)
    return f"{kind}, since {why}"


def sharded_attention(
    attend: Attend,
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    mask: jax.Array | None,
    largest_scores: int,
) -> jax.Array:
    """`attend` over the current mesh; arguments and result as its own.

    Args:
        attend: attention on one device, for its part of videos and heads.
        query, key, value, mask: whole arrays.
        largest_scores: bytes of float32 scores of one video that may exist at once on a device, for the ring.
    """
    sizes = jax.sharding.get_abstract_mesh().shape
    (axis,) = mesh_axes("length")
    pairs, parts = mask is not None and mask.ndim == 3, devices_along("length")
    kind = choose(query.shape[1], key.shape[1], _own_heads(query.shape[2], sizes), parts, pairs).kind
    length = None if kind == "whole" else "length"

    arrays = [query, key, value]
    specs = [fitting_spec(("batch", length, "heads", None), x.shape, sizes) for x in arrays]
    if mask is not None:
        arrays.append(mask)
        specs.append(fitting_spec(("batch", *[None] * 2) if pairs else ("batch", length), mask.shape, sizes))

    def part(query: jax.Array, key: jax.Array, value: jax.Array, mask: jax.Array | None = None) -> jax.Array:
        if kind == "ulysses":
            return _ulysses(attend, query, key, value, mask, axis)
        if kind == "ring":
            mask = jnp.ones(key.shape[:2], bool) if mask is None else mask
            return ring_attention(query, key, value, mask, axis, largest_scores)
        return attend(query, key, value, mask)

    # Kernels do not say along which axes their results vary, which is what `check_vma` would check.
    over_mesh = jax.shard_map(part, in_specs=tuple(specs), out_specs=specs[0], check_vma=False)
    return over_mesh(*arrays)


def _own_heads(heads: int, sizes: Mapping[str, int]) -> int:
    """Heads that a device holds."""
    (axis,) = mesh_axes("heads")
    return heads if heads % sizes[axis] else heads // sizes[axis]


def _ulysses(
    attend: Attend, query: jax.Array, key: jax.Array, value: jax.Array, mask: jax.Array | None, axis: str
) -> jax.Array:
    """Parts of the sequence with all heads → whole sequences with a part of the heads, and back."""
    exchange = functools.partial(jax.lax.all_to_all, axis_name=axis, tiled=True)
    query, key, value = (exchange(x, split_axis=2, concat_axis=1) for x in (query, key, value))
    mask = None if mask is None else jax.lax.all_gather(mask, axis, axis=1, tiled=True)
    return exchange(attend(query, key, value, mask), split_axis=1, concat_axis=2)
