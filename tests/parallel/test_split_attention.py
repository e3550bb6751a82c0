"""Attention split over meshes of 8 CPU devices, against float64; and which way is chosen."""

import pytest
from jax.sharding import AbstractMesh

from mpjax.parallel.mesh import AXES
from mpjax.parallel.sharded_attention import choose, explain
from tests.parallel.processes import run

RING, EXCHANGE = {"context": 4, "data": 2}, {"context": 2, "fsdp": 2, "tensor": 2}
CASES = {
    "ring": (RING, dict(b=4, n=24, m=16, heads=2, mask="keys"), "ring", 2e-6),
    "ring_none": (RING, dict(b=4, n=8, m=8, heads=3, mask="none"), "ring", 2e-6),
    # The 6 queries of a device go through two at a time.
    "ring_pieces": (RING, dict(b=4, n=24, m=16, heads=3, mask="keys", largest=2 * 4 * 3 * 4), "ring", 2e-6),
    "ring_bfloat16": (RING, dict(b=4, n=24, m=16, heads=2, mask="keys", dtype="bfloat16"), "ring", 3e-2),
    "ring_one_video": (RING, dict(b=1, n=24, m=16, heads=2, mask="keys"), "ring", 2e-6),
    "ulysses": (EXCHANGE, dict(b=4, n=6, m=10, heads=4, mask="keys"), "ulysses", 2e-6),
    "ulysses_pieces": (EXCHANGE, dict(b=3, n=6, m=10, heads=4, mask="none", largest=2 * 4 * 10), "ulysses", 2e-6),
    # All scores of a device's one head, of its two videos, at once: 4 heads would be beyond the limit.
    "ulysses_share": (EXCHANGE, dict(b=4, n=6, m=10, heads=4, mask="keys", largest=2 * 6 * 4 * 10), "ulysses", 2e-6),
    "ulysses_bfloat16": (EXCHANGE, dict(b=4, n=6, m=10, heads=4, mask="keys", dtype="bfloat16"), "ulysses", 3e-2),
    "pairs": (EXCHANGE, dict(b=4, n=6, m=10, heads=4, mask="pairs"), "whole", 2e-6),
    "odd": (EXCHANGE, dict(b=3, n=5, m=7, heads=3, mask="keys"), "whole", 2e-6),
}


@pytest.fixture(scope="module")
def found():
    return run("split_attention.py", {name: {"mesh": mesh, **fields} for name, (mesh, fields, *_) in CASES.items()})


@pytest.mark.parametrize("name", CASES)
def test_forward_and_backward(found, name):
    *_, kind, tolerance = CASES[name]
    row = found[name]
    assert row["kind"] == kind and row["ring"] == (kind == "ring") and row["exchange"] == (kind == "ulysses")
    assert row["loop"] == (kind == "ring" or name == "ulysses_pieces")
    assert max(row["errors"]) < tolerance


@pytest.mark.parametrize(
    ("shape", "kind"),
    [
        ((21168, 21168, 24, 1), "whole"),
        ((21168, 21168, 24, 8), "ulysses"),
        ((21168, 21168, 12, 8), "ring"),
        ((21168, 21168, 6, 16), "ring"),
        ((21157, 21157, 24, 8), "whole"),
        ((16, 17, 24, 8), "whole"),
    ],
)
def test_the_way_goes_by_shape(shape, kind):
    assert choose(*shape).kind == kind and choose(*shape, pairs=True).kind == "whole"


def test_the_choice_is_explained():
    mesh = AbstractMesh((1, 1, 4, 2), AXES)
    assert explain(24, mesh) == "ulysses, since the 12 heads of a device divide into 4 parts"
    assert explain(20, mesh) == "ring, since the 10 heads of a device do not divide into 4 parts"
