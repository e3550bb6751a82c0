"""Arrays that lie in files: known by shape and dtype, read a piece at a time, never whole unless one asks for it."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

Index = tuple[slice, ...]


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class StoredArray:
    """An array in a file.

    Attributes:
        shape: of the array.
        dtype: of what `read` returns.
        read: the piece at an index, one slice (of step 1) a dimension.
        block: layers (entries of the first axis) that are best read at once.
    """

    shape: tuple[int, ...]
    dtype: np.dtype
    read: Callable[[Index], np.ndarray]
    block: int

    @property
    def nbytes(self) -> int:
        """Bytes of the whole array."""
        return math.prod(self.shape) * self.dtype.itemsize

    def all(self) -> np.ndarray:
        """The whole array in memory."""
        return self.read(tuple(slice(0, size) for size in self.shape))


def place(array: StoredArray, like: Any) -> jax.Array:
    """Reads an array into devices; every process and device reads its own part only, and nothing else is kept.

    Args:
        array: what to read.
        like: gives shape, dtype and sharding: a `jax.Array`, or a `jax.ShapeDtypeStruct` with a sharding.

    Returns:
        the array, cast to the dtype.

    Raises:
        ValueError: another shape.
    """
    if array.shape != like.shape:
        raise ValueError(f"the array has shape {array.shape}, wanted {like.shape}")

    def piece(index: Index | None) -> np.ndarray:
        assert index is not None  # this process is asked for its own devices only
        bounds = (part.indices(size) for part, size in zip(index, array.shape, strict=True))
        return array.read(tuple(slice(start, stop) for start, stop, _ in bounds)).astype(like.dtype, copy=False)

    return jax.make_array_from_callback(array.shape, like.sharding, piece, dtype=like.dtype)


def place_tree(arrays: Any, like: Any) -> Any:
    """`place` for trees of one structure, an array after the other: the host holds parts of one at a time."""
    return jax.tree.map(lambda array, leaf: jax.block_until_ready(place(array, leaf)), arrays, like)
