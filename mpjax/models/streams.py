"""Two streams of tokens as one sequence, for a mesh that splits the sequence over devices.

Put one behind the other, latents and context would have to move between devices at every block: the first devices would
hold latents alone. Attention does not care for the order of tokens, so each device puts its own share of both together:
with C devices and streams x, c the sequence is [x_1, c_1, x_2, c_2, …, x_C, c_C]. With one device it is [x, c].
"""

import jax
import jax.numpy as jnp

from mpjax.models.rope import Table
from mpjax.parallel.rules import devices_along


def pad_stream(x: jax.Array) -> jax.Array:
    """`[b, n, …]` filled up behind with zeros, until its length divides over the devices."""
    missing = -x.shape[1] % devices_along("length")
    return jnp.pad(x, [(0, missing if axis == 1 else 0) for axis in range(x.ndim)]) if missing else x


def join_streams(x: jax.Array, c: jax.Array) -> jax.Array:
    """`[b, n, …]` and `[b, m, …]`, both padded → `[b, n + m, …]`."""
    parts = devices_along("length")
    if parts == 1:
        return jnp.concatenate([x, c], 1)
    x, c = (y.reshape(y.shape[0], parts, -1, *y.shape[2:]) for y in (x, c))
    return _flat(jnp.concatenate([x, c], 2))


def part_streams(z: jax.Array, n: int) -> tuple[jax.Array, jax.Array]:
    """The inverse of `join_streams`, for the length n of its first stream."""
    parts = devices_along("length")
    if parts == 1:
        return z[:, :n], z[:, n:]
    z = z.reshape(z.shape[0], parts, -1, *z.shape[2:])
    return _flat(z[:, :, : n // parts]), _flat(z[:, :, n // parts :])


def table_of_first(table: Table) -> Table:
    """The RoPE table of the first stream, padded as its tokens are."""
    if devices_along("length") == 1:
        return table
    cos, sin = (pad_stream(part[None])[0] for part in table)
    return cos, sin


def table_of_both(table: Table, m: int) -> Table:
    """The RoPE table of the joined streams, for a second one of length m that is not turned."""
    if devices_along("length") == 1:
        return table  # of the first tokens; those behind it are not turned
    cos, sin = table_of_first(table)
    still = jnp.ones((m, cos.shape[1])), jnp.zeros((m, cos.shape[1]))
    cos, sin = (join_streams(x[None], c[None])[0] for x, c in zip((cos, sin), still, strict=True))
    return cos, sin


def _flat(z: jax.Array) -> jax.Array:
    """`[b, C, n, …]` → `[b, C · n, …]`."""
    return z.reshape(z.shape[0], -1, *z.shape[3:])
