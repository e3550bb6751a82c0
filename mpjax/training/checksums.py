"""Checksums of arrays on devices: the same on every mesh, for a fraction of the time that writing the arrays takes.

The files of a checkpoint have none for their data: a damaged block may decompress to other numbers, and a missing one
reads as zeros.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp

from mpjax.parallel.host_memory import brought_back


@jax.jit
def checksums(tree: Any) -> jax.Array:
    """A sum of every array, in which each entry is mixed with its position.

    The sum of h(bits + h(position + 1)) modulo 2^32, where h is the finaliser of MurmurHash3 (a bijection of 32 bits)
    and positions count the entries in C order.

    Args:
        tree: arrays of at most 32 bits an entry.

    Returns:
        uint32 `[leaves]`, in the order of `jax.tree.leaves`. One changed entry always changes the sum of its array,
        any other change (entries or shards in another order, a part read as zeros) all but one time in 2^32. The order
        of additions does not matter, since integers wrap around.
    """
    return jnp.stack([_sum(brought_back(x)) for x in jax.tree.leaves(tree)])


def _sum(x: jax.Array) -> jax.Array:
    return _mixed(_bits(x) + _mixed(_positions(x.shape) + 1)).sum(dtype=jnp.uint32)


def _positions(shape: tuple[int, ...]) -> jax.Array:
    positions = jnp.zeros(shape, jnp.uint32)
    for axis in range(len(shape)):
        stride = math.prod(shape[axis + 1 :]) % 2**32
        positions += jax.lax.broadcasted_iota(jnp.uint32, shape, axis) * jnp.uint32(stride)
    return positions


def _mixed(x: jax.Array) -> jax.Array:
    x = (x ^ (x >> 16)) * jnp.uint32(0x85EBCA6B)
    x = (x ^ (x >> 13)) * jnp.uint32(0xC2B2AE35)
    return x ^ (x >> 16)


def _bits(x: jax.Array) -> jax.Array:
    if x.dtype == jnp.bool_:
        return x.astype(jnp.uint32)
    return jax.lax.bitcast_convert_type(x, jnp.dtype(f"uint{8 * x.dtype.itemsize}")).astype(jnp.uint32)
