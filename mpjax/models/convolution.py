"""Causal convolutions over (t, h, w) of channels-last arrays, by what is fastest on the device that they run on.

Borders repeat the edge: in time all of it in front, in space on both sides.

On a CPU, XLA's own three-dimensional convolution reaches less than half the rate of its matrix product where channels
are few. There a convolution of stride 1 is a product instead: the patches of some rows of a frame, `[pixels, k³ · in]`,
with the kernel, `[k³ · in, out]`. Patches exist for as many rows at a time as the cache holds, but for no fewer pixels
than the result has channels, so that reading the kernel is not what takes the time. Frames in front of the first one
are not copied: the first one is read for them.
"""

import jax
import jax.numpy as jnp

from mpjax.parallel.target import target_device

CACHED_PATCHES = 2**23  # bytes


def causal_convolve(x: jax.Array, kernel: jax.Array, strides: tuple[int, int, int]) -> jax.Array:
    """x `[b, t, h, w, in]`, kernel `[k, k, k, in, out]`, k odd → `[b, ⌈t/s⌉, ⌈h/s⌉, ⌈w/s⌉, out]`, s the strides."""
    k, *_, channels, features = kernel.shape
    if k == 1 and strides == (1, 1, 1):
        return x @ kernel.reshape(channels, features)
    x = jnp.pad(x, ((0, 0), (0, 0), (k // 2, k // 2), (k // 2, k // 2), (0, 0)), mode="edge")
    if target_device()[0] == "cpu" and strides == (1, 1, 1):
        return _by_rows(x, kernel)
    x = jnp.pad(x, ((0, 0), (k - 1, 0), (0, 0), (0, 0), (0, 0)), mode="edge")
    return jax.lax.conv_general_dilated(x, kernel, strides, "VALID", dimension_numbers=("NDHWC", "DHWIO", "NDHWC"))


def _by_rows(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Of stride 1 for x padded in space, `[b, t, h + k − 1, w + k − 1, in]`."""
    k, *_, channels, features = kernel.shape
    b, t, h, w = x.shape[0], x.shape[1], x.shape[2] - k + 1, x.shape[3] - k + 1
    matrix = kernel.reshape(-1, features)
    pixels = max(CACHED_PATCHES // (x.dtype.itemsize * len(matrix)), features)
    rows = min(-(-pixels // w), h)
    bands = -(-h // rows)

    def band(number: int, out: jax.Array) -> jax.Array:
        video, frame = number // (t * bands), number // bands % t
        # The last band ends with the picture, and computes some rows of the one before it again.
        row = jnp.minimum(number % bands * rows, h - rows)
        shifted = []
        for back in reversed(range(k)):
            place = video, jnp.maximum(frame - back, 0), row, 0, 0
            seen = jax.lax.dynamic_slice(x, place, (1, 1, rows + k - 1, w + k - 1, channels))[0, 0]
            shifted += [seen[i : i + rows, j : j + w] for i in range(k) for j in range(k)]
        patches = jnp.concatenate(shifted, -1).reshape(rows * w, -1)
        found = (patches @ matrix).reshape(1, 1, rows, w, features)
        return jax.lax.dynamic_update_slice(out, found, (video, frame, row, 0, 0))

    return jax.lax.fori_loop(0, b * t * bands, band, jnp.zeros((b, t, h, w, features), x.dtype))
