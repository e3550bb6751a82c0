"""What RAFT and AMT share: their layers in PyTorch's conventions, correlation of all pairs, sampling between pixels."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

EPS = 1e-5


def conv(x: jax.Array, features: int, size: int | tuple[int, int], name: str, stride: int = 1) -> jax.Array:
    """A convolution padded by half its size, inside a compact module."""
    height, width = (size, size) if isinstance(size, int) else size
    padding = ((height // 2, height // 2), (width // 2, width // 2))
    return nn.Conv(features, (height, width), stride, padding, name=name)(x)


def instance_norm(x: jax.Array) -> jax.Array:
    """Mean 0 and variance 1 of each channel of each picture."""
    mean, variance = x.mean((1, 2), keepdims=True), x.var((1, 2), keepdims=True)
    return (x - mean) * jax.lax.rsqrt(variance + EPS)


class BatchNorm(nn.Module):
    """Batch normalisation with the statistics of training."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """`[b, h, w, c]` → the same."""
        shape = x.shape[-1:]
        ones, zeros = nn.initializers.ones, nn.initializers.zeros
        scale = self.param("weight", ones, shape) * jax.lax.rsqrt(self.param("running_var", ones, shape) + EPS)
        return (x - self.param("running_mean", zeros, shape)) * scale + self.param("bias", zeros, shape)


def pad_to(images: jax.Array, multiple: int) -> tuple[jax.Array, tuple[slice, slice]]:
    """Pictures `[b, h, w, c]` whose edges are repeated up to a multiple, and where the picture is in them."""
    height, width = images.shape[1:3]
    down, across = -height % multiple, -width % multiple
    top, left = down // 2, across // 2
    padded = jnp.pad(images, ((0, 0), (top, down - top), (left, across - left), (0, 0)), mode="edge")
    return padded, (slice(top, top + height), slice(left, left + width))


def coordinates(height: int, width: int) -> jax.Array:
    """(x, y) of every pixel, float32 `[height, width, 2]`."""
    y, x = np.mgrid[:height, :width]
    return jnp.asarray(np.stack([x, y], -1), jnp.float32)


def _window(radius: int) -> int:
    """The side of what a look-up reads; each plane has a rim of zeros as wide."""
    return 2 * radius + 2


def correlation_pyramid(first: jax.Array, second: jax.Array, levels: int, radius: int) -> list[jax.Array]:
    """Inner products of all pairs of features over √d, and their means over 2 x 2, 4 x 4, … of the second picture.

    Args:
        first: `[b, h, w, d]`.
        second: `[b, h, w, d]`.
        levels: how many.
        radius: of the look-ups.

    Returns:
        for each level k a plane for each place in the first picture, `[b · h · w, h / 2^k, w / 2^k]`, within the rim of
        zeros that `look_up` needs. The first level without its rim takes 4 (h w)² bytes.
    """
    b, height, width, d = first.shape
    flat = first.reshape(b, height * width, d)
    volume = jnp.einsum("bnd,bhwd->bnhw", flat, second, precision=jax.lax.Precision.HIGHEST) / np.sqrt(d)
    pyramid = [volume]
    for _ in range(levels - 1):
        height, width = height // 2, width // 2
        cut = pyramid[-1][:, :, : 2 * height, : 2 * width]
        pyramid.append(cut.reshape(b, -1, height, 2, width, 2).mean((3, 5)))
    rim = (_window(radius), _window(radius))
    return [jnp.pad(level.reshape(-1, *level.shape[2:]), ((0, 0), rim, rim)) for level in pyramid]


def look_up(pyramid: list[jax.Array], centres: jax.Array, radius: int) -> jax.Array:
    """Correlations around a place, bilinear; 0 beyond the edge.

    Args:
        pyramid: as `correlation_pyramid` gives it for the same radius.
        centres: (x, y) in the second picture of every pixel of the first, `[b, h, w, 2]`.
        radius: r.

    Returns:
        `[b, h, w, levels · (2 r + 1)²]`; within a level x is the slow axis.
    """
    b, height, width, _ = centres.shape
    side = rim = _window(radius)
    out = []
    for level, planes in enumerate(pyramid):
        # A window that lies outside is pushed back into the rim, which is as wide: it still sees zeros alone.
        limit = jnp.asarray(planes.shape[2:0:-1]) - side
        centre = centres.reshape(-1, 2) / 2**level
        corner = jnp.floor(centre)
        fx, fy = jnp.moveaxis(centre - corner, -1, 0)[:, :, None, None]
        start = jnp.clip(corner - radius + rim, 0, limit).astype(jnp.int32)

        def window(plane: jax.Array, at: jax.Array) -> jax.Array:
            return jax.lax.dynamic_slice(plane, (at[1], at[0]), (side, side))

        near = jax.vmap(window)(planes, start)
        across = near[:, :, :-1] * (1 - fx) + near[:, :, 1:] * fx
        both = across[:, :-1] * (1 - fy) + across[:, 1:] * fy
        out.append(jnp.swapaxes(both, 1, 2).reshape(b, height, width, -1))
    return jnp.concatenate(out, axis=-1)


def warp(images: jax.Array, flow: jax.Array) -> jax.Array:
    """Pictures read at each pixel plus its flow, bilinear, the edge repeated: both `[b, h, w, …]`."""
    height, width = images.shape[1:3]
    at = coordinates(height, width) + flow
    x, y = jnp.clip(at[..., 0], 0, width - 1), jnp.clip(at[..., 1], 0, height - 1)
    left, top = (jnp.floor(each).astype(jnp.int32) for each in (x, y))
    right, bottom = jnp.minimum(left + 1, width - 1), jnp.minimum(top + 1, height - 1)
    fx, fy = (x - left)[..., None], (y - top)[..., None]

    def read(image: jax.Array, rows: jax.Array, columns: jax.Array) -> jax.Array:
        return image[rows, columns]

    pick = jax.vmap(read)
    upper = pick(images, top, left) * (1 - fx) + pick(images, top, right) * fx
    lower = pick(images, bottom, left) * (1 - fx) + pick(images, bottom, right) * fx
    return upper * (1 - fy) + lower * fy
