"""Pictures resized as PyTorch and Pillow do it, by one matrix an axis.

An output pixel i lies at s = (i + ½) r − ½ in the input, r = input size / output size. Without antialiasing it is the
mean of the 2 (bilinear) or 4 (bicubic, a = −¾) pixels around s, those beyond the edge replaced by the edge. With it the
kernel (bicubic: a = −½) is r times as wide where the picture shrinks, and what lies beyond the edge is left out.
`jax.image.resize` has a = −½ in both cases.
"""

import functools
import math
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np

Method = Literal["bilinear", "bicubic"]


def _triangle(x: np.ndarray) -> np.ndarray:
    return np.maximum(0.0, 1 - np.abs(x))


def _cubic(x: np.ndarray, a: float) -> np.ndarray:
    """Keys' kernel (1981)."""
    x = np.abs(x)
    inner = ((a + 2) * x - (a + 3)) * x * x + 1
    outer = ((a * x - 5 * a) * x + 8 * a) * x - 4 * a
    return np.where(x <= 1, inner, np.where(x < 2, outer, 0.0))


@functools.cache
def matrix(size: int, new: int, method: Method, antialias: bool, ratio: float | None = None) -> np.ndarray:
    """What each output pixel takes of each input pixel, float32 `[new, size]`.

    Args:
        size: pixels of the input.
        new: pixels of the output.
        method: kernel.
        antialias: as above.
        ratio: r, where it is not size / new (positions that are interpolated by a factor).
    """
    ratio = size / new if ratio is None else ratio
    centre = (np.arange(new) + 0.5) * ratio - 0.5
    weights = np.zeros((new, size))
    if antialias:
        reach = (1.0 if method == "bilinear" else 2.0) * max(ratio, 1.0)
        distance = (np.arange(size)[None] - centre[:, None]) / max(ratio, 1.0)
        # The window is cut to whole pixels first: on its rim a kernel that is not quite 0 would differ.
        first = np.maximum(np.trunc(centre + 0.5 - reach + 0.5), 0)[:, None]
        last = np.minimum(np.trunc(centre + 0.5 + reach + 0.5), size)[:, None]
        inside = (np.arange(size) >= first) & (np.arange(size) < last)
        weights = np.where(inside, _triangle(distance) if method == "bilinear" else _cubic(distance, -0.5), 0.0)
        weights /= weights.sum(1, keepdims=True)
    else:
        if method == "bilinear":
            centre = np.maximum(centre, 0.0)
        left = np.floor(centre)
        taps = range(2) if method == "bilinear" else range(-1, 3)
        for tap in taps:
            distance = centre - (left + tap)
            weight = _triangle(distance) if method == "bilinear" else _cubic(distance, -0.75)
            np.add.at(weights, (np.arange(new), np.clip(left + tap, 0, size - 1).astype(int)), weight)
    return weights.astype(np.float32)


def resize(
    images: jax.Array, size: tuple[int, int], method: Method, *, antialias: bool, uint8: bool = False
) -> jax.Array:
    """Images of another size.

    Args:
        images: `[..., height, width, c]` float.
        size: height and width.
        method: kernel.
        antialias: as in the head of this file.
        uint8: round to 0..255 after each axis, as Pillow does.

    Returns:
        `[..., *size, c]` float32; bicubic may leave the range of the input.
    """
    height, width = images.shape[-3:-1]

    def rounded(x: jax.Array) -> jax.Array:
        return jnp.clip(jnp.floor(x + 0.5), 0, 255) if uint8 else x

    images = images.astype(jnp.float32)
    across = jnp.asarray(matrix(width, size[1], method, antialias))
    down = jnp.asarray(matrix(height, size[0], method, antialias))
    precision = jax.lax.Precision.HIGHEST
    images = rounded(jnp.einsum("...hwc,vw->...hvc", images, across, precision=precision))
    return rounded(jnp.einsum("...hwc,uh->...uwc", images, down, precision=precision))


def shorter_side(shape: tuple[int, ...], length: int) -> tuple[int, int]:
    """Height and width of pictures `[..., height, width, c]` whose shorter side becomes `length`; cut, not rounded."""
    height, width = shape[-3:-1]
    if height <= width:
        return length, int(length * width / height)
    return int(length * height / width), length


def centre_crop(images: jax.Array, length: int) -> jax.Array:
    """The middle `[..., length, length, c]`; halves are rounded to even, as torchvision does."""
    height, width = images.shape[-3:-1]
    top, left = round((height - length) / 2), round((width - length) / 2)
    return images[..., top : top + length, left : left + length, :]


def interpolate_positions(table: jax.Array, grid: tuple[int, int]) -> jax.Array:
    """DINO's position embedding of a square grid for another grid.

    The factor is (new + 0.1) / old, as in its code, and not new / old.

    Args:
        table: `[n * n, d]`.
        grid: rows and columns of patches.

    Returns:
        `[rows * columns, d]`; the table itself where the grid is its own.
    """
    side = math.isqrt(table.shape[0])
    if grid == (side, side):
        return table
    rows, columns = (jnp.asarray(matrix(side, new, "bicubic", False, side / (new + 0.1))) for new in grid)
    square = table.reshape(side, side, -1)
    both = jnp.einsum("hwd,uh,vw->uvd", square, rows, columns, precision=jax.lax.Precision.HIGHEST)
    return both.reshape(-1, table.shape[-1])
