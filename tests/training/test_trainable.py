"""Trainable sets by name."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mpjax.errors import InputError
from mpjax.parameters import merge, parameter_path
from mpjax.training.trainable import partition, trains_memory

PARAMS = {
    "head": {"proj_out": {"bias": jnp.ones(1)}},
    "memorize": {"embed": {"kernel": jnp.ones((2, 2))}},
    "squeeze": {"attention": {"kernel": jnp.ones(3)}},
    "recall": {"entries": {"age": {"kernel": jnp.ones((2, 3))}}},
    "x_embedder": {"kernel": jnp.ones(4)},
    "frame_encoder": {"kernel": jnp.ones(5)},
}


@pytest.mark.parametrize(
    ("name", "rooms", "memory"),
    [
        ("all", set(PARAMS), True),
        ("output_head", {"head"}, False),
        ("memory", {"memorize", "squeeze", "recall"}, True),
    ],
)
def test_sets(name, rooms, memory):
    trainable, frozen = partition(PARAMS, name)
    kept = {parameter_path(path).split("/")[0] for path, _ in jax.tree.leaves_with_path(trainable)}
    rest = {parameter_path(path).split("/")[0] for path, _ in jax.tree.leaves_with_path(frozen)}
    assert kept == rooms and rest == set(PARAMS) - rooms
    assert trains_memory(trainable) == memory
    joined = merge(trainable, frozen)
    assert jax.tree.structure(joined) == jax.tree.structure(PARAMS)
    for a, b in zip(jax.tree.leaves(joined), jax.tree.leaves(PARAMS), strict=True):
        np.testing.assert_array_equal(a, b)


def test_unknown_and_empty_sets_are_refused():
    with pytest.raises(InputError, match="output_head"):
        partition(PARAMS, "head")
    with pytest.raises(InputError, match="matches no parameter"):
        partition({"head": PARAMS["head"]}, "memory")


@pytest.mark.parametrize(
    ("room", "expected"),
    [
        ("memorize", True),
        ("squeeze", True),
        ("recall", True),
        ("context_embedder", True),
        ("image_projection", True),
        ("prompt_encoder", True),
        ("frame_encoder", True),
        ("head", False),
        ("blocks", False),
        ("x_embedder", False),
        ("clean_x_embedder", False),
        ("time_text_embed", False),
    ],
)
def test_what_memory_is_computed_from(room, expected):
    assert trains_memory({room: {"kernel": jnp.ones(1)}, "frozen": {"kernel": None}}) == expected
