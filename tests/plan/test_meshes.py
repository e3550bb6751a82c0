"""Meshes to plan for."""

import pytest

from mpjax.parallel.mesh import MeshShape
from mpjax.plan.meshes import TILE_ROWS, spread


@pytest.mark.parametrize(
    ("chips", "sizes", "expected"),
    [
        (512, {}, MeshShape(data=8, fsdp=64)),  # 3072 / 64 = 48 rows; 128 would have 24, one tile and a half
        (256, {}, MeshShape(data=4, fsdp=64)),
        (64, {}, MeshShape(fsdp=64)),
        (512, dict(context=8), MeshShape(fsdp=64, context=8)),
        (256, dict(context=2, tensor=2), MeshShape(fsdp=64, context=2, tensor=2)),
        (4, {}, MeshShape(fsdp=4)),
        (768, {}, MeshShape(data=4, fsdp=192)),
    ],
)
def test_shares_of_the_13b_are_whole_tiles(chips, sizes, expected):
    assert spread(chips, 3072, **sizes) == expected
    assert 3072 / expected.fsdp % TILE_ROWS == 0


def test_a_small_network_is_spread_too():
    assert spread(8, 32) == MeshShape(data=4, fsdp=2)
    assert spread(8, 8) == spread(8, 3080) == MeshShape(data=8)  # no whole tiles
