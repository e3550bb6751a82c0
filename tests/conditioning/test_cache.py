"""The cache of embeddings."""

import numpy as np
import pytest

from mpjax.conditioning.cache import ArrayCache, content_key
from mpjax.errors import InputError


def test_made_once_and_again_when_damaged(tmp_path):
    made = []

    def make():
        made.append(1)
        return {"a": np.arange(6, dtype=np.float32).reshape(2, 3).T}  # not contiguous

    cache = ArrayCache(tmp_path / "cache")
    for _ in range(2):
        np.testing.assert_array_equal(cache.get("k", make)["a"], [[0, 3], [1, 4], [2, 5]])
    assert len(made) == 1
    ArrayCache(tmp_path / "cache").get("k", make)
    assert len(made) == 1  # another process finds it
    cache.get("other", make)
    assert len(made) == 2
    (path,) = (tmp_path / "cache").glob("k.safetensors")
    path.write_bytes(path.read_bytes()[:20])
    np.testing.assert_array_equal(cache.get("k", make)["a"], [[0, 3], [1, 4], [2, 5]])
    assert len(made) == 3
    assert not list((tmp_path / "cache").glob("*.partial"))


def test_some_of_the_arrays(tmp_path):
    cache = ArrayCache(tmp_path)
    assert not cache.holds("k")
    cache.get("k", lambda: {"a": np.zeros(3), "b": np.ones(2)})
    assert cache.holds("k") and list(cache.read("k", "b")) == ["b"] and sorted(cache.read("k")) == ["a", "b"]
    path = tmp_path / "k.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    assert not cache.holds("k")
    with pytest.raises(InputError, match="missing or damaged: run the same command again"):
        cache.read("k")


def test_key_depends_on_every_part():
    zeros = np.zeros((2, 3), np.uint8)
    keys = [
        content_key("prompt", "x", "a"),
        content_key("prompt", "y", "a"),
        content_key("image", "x", zeros),
        content_key("image", "x", zeros.reshape(3, 2)),
        content_key("image", "x", zeros.astype(np.int8)),
        content_key("image", "x", zeros + 1),
        content_key("ab", "c"),
        content_key("a", "bc"),
    ]
    assert len(set(keys)) == len(keys)
    assert content_key("image", "x", zeros) == content_key("image", "x", zeros.copy())
