"""Attention kernels that come with JAX, and when each can be taken: splash on TPU, cuDNN's flash attention on NVIDIA.

Both keep a tile of the scores at a time, forward and backward. What the backward pass of splash needs carries the name
`plain_attention.SAVED`, so that rematerialisation may keep it; that of cuDNN has no name.

A mask of keys costs next to nothing: splash reads it as segment numbers, and cuDNN, which knows only how many keys
there are, gets the True ones first, since the order of keys means nothing to attention. (As a mask it would make a bias
of n · m out of it.)

tokamax 0.0.12 wraps the same splash kernel, but takes one dense mask of n · m for all videos of a batch.
"""

import dataclasses
import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp

from mpjax.models.plain_attention import SAVED

# Below so many queries or keys the plain product is as good: its scores are small, and tiles would be mostly padding.
FEWEST_TOKENS = 512
LANES = 128
LARGEST_TILE = 1024  # queries, or keys, of which splash holds the scores at once

# query `[b, n, heads, head_dim]`, key and value `[b, m, heads, head_dim]`, mask of keys bool `[b, m]` or None →
# `[b, n, heads, head_dim]`
Kernel = Callable[[jax.Array, jax.Array, jax.Array, jax.Array | None], jax.Array]


@dataclasses.dataclass(frozen=True)
class Choice:
    """How an attention is computed.

    Attributes:
        kernel: None is the plain product.
        words: what was chosen and why, for the log.
    """

    kernel: Kernel | None
    words: str


def choose(
    device: tuple[str, str], query: jax.Array, key: jax.Array, value: jax.Array, mask: jax.Array | None
) -> Choice:
    """The kernel for these shapes on a device (platform, kind), as `parallel.target.target_device` says it."""
    platform, kind = device
    n, heads, head_dim = query.shape[1:]
    m = key.shape[1]
    kernel: Kernel
    if platform == "tpu":
        name, kernel, obstacle = "splash", splash, _splash_obstacle(head_dim)
    elif platform == "gpu" and "NVIDIA" in kind:
        name, kernel, obstacle = "cuDNN flash attention", cudnn, _cudnn_obstacle(head_dim, query, key, value)
    else:
        return Choice(None, f"plain products on {kind}: no kernel for it")
    if min(n, m) < FEWEST_TOKENS:
        obstacle = f"below {FEWEST_TOKENS} tokens"
    elif mask is not None and mask.ndim == 3:
        obstacle = "a mask of pairs"
    if obstacle:
        return Choice(None, f"plain products on {kind}: {obstacle}")
    return Choice(kernel, f"{name} on {kind}: {n} queries, {m} keys, {heads} heads of {head_dim}, {query.dtype}")


def _splash_obstacle(head_dim: int) -> str:
    return "" if head_dim % 8 == 0 and 64 <= head_dim <= 256 else f"heads of {head_dim}, not 64 to 256"


def _cudnn_obstacle(head_dim: int, *arrays: jax.Array) -> str:
    if any(x.dtype not in (jnp.bfloat16, jnp.float16) for x in arrays):
        return "arrays that are not all in 16 bits"
    return "" if head_dim % 8 == 0 and head_dim <= 128 else f"heads of {head_dim}, above 128 or not a multiple of 8"


# -- TPU -------------------------------------------------------------------------------------------------------------


def splash(
    query: jax.Array, key: jax.Array, value: jax.Array, mask: jax.Array | None, *, interpret: bool = False
) -> jax.Array:
    """`Kernel`: Pallas' splash attention, forward and backward; `interpret` runs it on a CPU, slowly.

    Queries and keys are padded to whole tiles, and padded keys are masked.
    """
    # Pallas takes a good part of JAX's own time to import, and only a TPU needs it.
    from jax.experimental.pallas.ops.tpu.splash_attention.splash_attention_kernel import SegmentIds

    b, n, heads, head_dim = query.shape
    m = key.shape[1]
    rows, columns = _padded(n), _padded(m)
    seen = jnp.ones((b, m), bool) if mask is None else mask
    seen = jnp.pad(seen, ((0, 0), (0, columns - m))).astype(jnp.int32)
    segments = SegmentIds(q=jnp.ones((b, rows), jnp.int32), kv=seen)
    scaled = (query.astype(jnp.float32) * head_dim**-0.5).astype(query.dtype)  # the kernel does not divide by √head_dim

    def arrange(x: jax.Array, length: int) -> jax.Array:
        """`[b, n, heads, head_dim]` → `[b, heads, length, head_dim]`."""
        return jnp.pad(x, ((0, 0), (0, length - x.shape[1]), (0, 0), (0, 0))).swapaxes(1, 2)

    tiled = _splash_kernel(rows, columns, heads, interpret)
    out = jax.vmap(tiled)(arrange(scaled, rows), arrange(key, columns), arrange(value, columns), segments)
    return out.swapaxes(1, 2)[:, :n].astype(query.dtype)


def _padded(length: int) -> int:
    """Tokens in whole tiles."""
    return length + -length % _tile(length)


def _tile(length: int) -> int:
    """The largest tile that wastes less than a twentieth, or the smallest there is."""
    for tile in (LARGEST_TILE, LARGEST_TILE // 2, LARGEST_TILE // 4):
        if -length % tile < length / 20:
            return tile
    return LANES


def _splash_kernel(rows: int, columns: int, heads: int, interpret: bool) -> Callable:
    from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_kernel, splash_attention_mask

    q, kv = _tile(rows), _tile(columns)
    compute = min(kv, LARGEST_TILE // 2)
    tiles = splash_attention_kernel.BlockSizes(
        block_q=q,
        block_kv=kv,
        block_kv_compute=compute,
        block_q_dkv=q,
        block_kv_dkv=kv,
        block_kv_dkv_compute=compute,
        block_q_dq=q,
        block_kv_dq=kv,
    )
    everything = splash_attention_mask.MultiHeadMask([splash_attention_mask.FullMask((rows, columns))] * heads)
    return splash_attention_kernel.make_splash_mha(
        mask=everything,
        head_shards=1,
        q_seq_shards=1,
        block_sizes=tiles,
        residual_checkpoint_name=SAVED,
        interpret=interpret,
    )


# -- NVIDIA ----------------------------------------------------------------------------------------------------------


def cudnn(
    query: jax.Array, key: jax.Array, value: jax.Array, mask: jax.Array | None, *, implementation: str = "cudnn"
) -> jax.Array:
    """`Kernel`: cuDNN's flash attention, forward and backward; with `implementation` "xla" the same on any device."""
    attend = functools.partial(jax.nn.dot_product_attention, implementation=implementation)
    if mask is None:
        return attend(query, key, value)
    first = jnp.argsort(~mask, axis=1, stable=True)[:, :, None, None]
    key, value = (jnp.take_along_axis(x, first, axis=1) for x in (key, value))
    lengths = mask.sum(1, dtype=jnp.int32)
    return attend(query, key, value, key_value_seq_lengths=lengths)
