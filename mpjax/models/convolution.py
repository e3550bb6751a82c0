"""Causal convolutions over (t, h, w) of channels-last arrays, by what is fastest on the device that they run on.

Borders repeat the edge: in time all of it in front, in space on both sides.

On a CPU, XLA's own three-dimensional convolution reaches less than half the rate of its matrix product where channels
are few. There a kernel of 3 and stride 1 in float32 goes by Winograd's minimal filtering in space (Lavin and Gray 2016,
"Fast Algorithms for Convolutional Neural Networks", F(2 × 2, 3 × 3)). Two outputs of three taps g on four inputs d are

    u = [d0 − d2, d1 + d2, d2 − d1, d1 − d3]       v = [g0, (g0 + g1 + g2) / 2, (g0 − g1 + g2) / 2, g2]
    m = u · v                                      y = [m0 + m1 + m2, m1 − m2 − m3]

along rows, and the same along columns: 16 products for four pixels instead of 36. With channels and the three taps of
time together, each of the 16 is a matrix product, `[tiles, 3 in] × [3 in, out]`. There are as many tiles at a time as
the cache holds, but no fewer than the result has channels, so that reading the kernel is not what takes the time.
Frames in front of the first one are not copied: the first one is read for them.
"""

import jax
import jax.numpy as jnp

from mpjax.parallel.target import target_device

CACHED_TILES = 2**23  # bytes


def causal_convolve(x: jax.Array, kernel: jax.Array, strides: tuple[int, int, int]) -> jax.Array:
    """x `[b, t, h, w, in]`, kernel `[k, k, k, in, out]`, k odd → `[b, ⌈t/s⌉, ⌈h/s⌉, ⌈w/s⌉, out]`, s the strides."""
    k, *_, channels, features = kernel.shape
    if k == 1 and strides == (1, 1, 1):
        return x @ kernel.reshape(channels, features)
    if k == 3 and strides == (1, 1, 1) and x.dtype == jnp.float32 and target_device()[0] == "cpu":
        return _winograd(x, kernel)
    x = jnp.pad(x, ((0, 0), (k - 1, 0), (k // 2, k // 2), (k // 2, k // 2), (0, 0)), mode="edge")
    return jax.lax.conv_general_dilated(x, kernel, strides, "VALID", dimension_numbers=("NDHWC", "DHWIO", "NDHWC"))


def _winograd(x: jax.Array, kernel: jax.Array) -> jax.Array:
    b, t, h, w, channels = x.shape
    features = kernel.shape[-1]
    # The matrices take more memory than the kernel. That they depend on x keeps XLA from making those of every layer
    # before the first one runs, which it does behind an optimization barrier too.
    kernel = kernel + jnp.nan_to_num(0 * x[0, 0, 0, 0, 0])  # 0 also where x is not finite
    matrices = _of_taps(_of_taps(kernel, 1), 2)  # [3, 4, 4, in, out]
    matrices = matrices.transpose(1, 2, 0, 3, 4).reshape(16, 3 * channels, features)
    # Whole tiles of 2 × 2; what is added behind is cut off again.
    height, columns = (h + 1) // 2, (w + 1) // 2
    x = jnp.pad(x, ((0, 0), (0, 0), (1, 1 + h % 2), (1, 1 + w % 2), (0, 0)), mode="edge")
    tiles = max(CACHED_TILES // (x.dtype.itemsize * 16 * 3 * channels), features)
    rows = -(-height // -(-height * columns // tiles))  # of tiles, about as many in every band
    bands = -(-height // rows)

    def band(number: int, out: jax.Array) -> jax.Array:
        video, frame = number // (t * bands), number // bands % t
        # The last band ends with the picture, and computes some rows of the one before it again.
        row = 2 * jnp.minimum(number % bands * rows, height - rows)
        size = (1, 1, 2 * rows + 2, 2 * columns + 2, channels)
        frames = [
            jax.lax.dynamic_slice(x, (video, jnp.maximum(frame - back, 0), row, 0, 0), size)[0, 0] for back in (2, 1, 0)
        ]
        u = _of_inputs(_of_inputs(jnp.concatenate(frames, -1), 0), 2)  # [4, rows, 4, columns, 3 in]
        u = u.swapaxes(1, 2).reshape(16, rows * columns, 3 * channels)
        m = jnp.einsum("kni,kio->kno", u, matrices).reshape(4, 4, rows, columns, features)
        y = _of_products(_of_products(m, 1), 0)  # [2, 2, rows, columns, out]
        y = y.transpose(2, 0, 3, 1, 4).reshape(1, 1, 2 * rows, 2 * columns, features)
        return jax.lax.dynamic_update_slice(out, y, (video, frame, row, 0, 0))

    out = jnp.zeros((b, t, 2 * height, 2 * columns, features), x.dtype)
    return jax.lax.fori_loop(0, b * t * bands, band, out)[:, :, :h, :w]


def _of_taps(g: jax.Array, axis: int) -> jax.Array:
    """v: the axis of 3 taps becomes one of 4."""
    g0, g1, g2 = (jnp.take(g, i, axis) for i in range(3))
    return jnp.stack([g0, (g0 + g1 + g2) / 2, (g0 - g1 + g2) / 2, g2], axis)


def _of_inputs(d: jax.Array, axis: int) -> jax.Array:
    """u: an axis of 2 n + 2 becomes two, 4 and n."""
    pairs = d.reshape(*d.shape[:axis], d.shape[axis] // 2, 2, *d.shape[axis + 1 :])
    even, odd = (jnp.take(pairs, i, axis + 1) for i in range(2))
    n = even.shape[axis] - 1
    d0, d2 = (jax.lax.slice_in_dim(even, i, i + n, axis=axis) for i in range(2))
    d1, d3 = (jax.lax.slice_in_dim(odd, i, i + n, axis=axis) for i in range(2))
    return jnp.stack([d0 - d2, d1 + d2, d2 - d1, d1 - d3], axis)


def _of_products(m: jax.Array, axis: int) -> jax.Array:
    """y: the axis of 4 becomes one of 2."""
    m0, m1, m2, m3 = (jnp.take(m, i, axis) for i in range(4))
    return jnp.stack([m0 + m1 + m2, m1 - m2 - m3], axis)
