"""The rows of a batch that the devices of this process hold, and a global array out of them."""

from typing import Any

import jax
import numpy as np
from jax.sharding import Sharding


def local_rows(sharding: Sharding, batch_size: int) -> tuple[int, ...]:
    """The rows that this process needs, rising: all of them where it is alone.

    Processes may share rows, where a mesh axis other than those of the batch crosses them, and the rows of a process
    need not be neighbours.
    """
    parts = sharding.addressable_devices_indices_map((batch_size,)).values()
    assert all(part is not None for part in parts)
    return tuple(sorted({row for part in parts for row in range(*part[0].indices(batch_size))}))  # type: ignore[index]


def place_rows(local: Any, rows: tuple[int, ...], sharding: Sharding, batch_size: int) -> Any:
    """A tree of global arrays `[b, …]` from the rows that this process has.

    Args:
        local: tree of arrays `[len(rows), …]`.
        rows: as `local_rows` of this sharding.
        sharding: of every array.
        batch_size: b.
    """

    def place(x: np.ndarray) -> jax.Array:
        def piece(index: tuple[slice, ...] | None) -> np.ndarray:
            assert index is not None  # of the devices of this process
            start, stop, _ = index[0].indices(batch_size)
            first = rows.index(start)  # a device's rows are neighbours
            return x[first : first + stop - start]

        return jax.make_array_from_callback((batch_size, *x.shape[1:]), sharding, piece)

    return jax.tree.map(place, local)
