"""Meshes to plan for, where none is asked for."""

import math

from mpjax.parallel.mesh import MeshShape

# A TPU keeps bfloat16 in tiles of 16 rows. Shares of a kernel that are not whole tiles are gathered as sums of arrays
# that are zero elsewhere, which sends twice the bytes.
TILE_ROWS = 16


def spread(chips: int, width: int, *, context: int = 1, tensor: int = 1) -> MeshShape:
    """What context and tensor leave goes on fsdp as long as its shares of `width` rows are whole tiles, else on data.

    Args:
        chips: of the slice.
        width: of the network, the rows of most kernels.
        context, tensor: sizes of these axes; together they divide the chips.
    """
    shares = chips // (context * tensor)
    fsdp = 1 if width % TILE_ROWS else math.gcd(shares, width // TILE_ROWS)
    return MeshShape(data=shares // fsdp, fsdp=fsdp, context=context, tensor=tensor)
