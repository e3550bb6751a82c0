"""The one attention entry against float64, query by query."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mpjax.models import attention as module
from mpjax.models.attention import attention, split_heads
from tests.models.numpy_network import attend

RNG = np.random.default_rng(0)
Q, K, V = (RNG.normal(size=(2, n, 3, 8)) for n in (5, 7, 7))
KEYS = np.array([[1, 1, 1, 0, 0, 1, 0], [1, 0, 0, 0, 0, 0, 0]], bool)
PAIRS = RNG.random((2, 5, 7)) < 0.5
PAIRS[..., 2] = True


def in_pieces_of(rows, monkeypatch):
    """From now on the scores of so many queries of a head are all that may exist at once."""
    monkeypatch.setattr(module, "CACHED_SCORES", 4 * rows * 7)


@pytest.mark.parametrize("mask", [None, KEYS, PAIRS], ids=["none", "keys", "pairs"])
@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-6), ("bfloat16", 2e-2)])
@pytest.mark.parametrize("rows", [None, 1, 2, 3])
def test_attention(mask, dtype, tolerance, rows, monkeypatch):
    """All queries at once, and in pieces; 5 of them by 2 or 3 leave a rest."""
    if rows:
        in_pieces_of(rows, monkeypatch)
    q, k, v = (jnp.asarray(x, dtype) for x in (3 * Q, K, V))
    got = attention(q, k, v, None if mask is None else jnp.asarray(mask))
    allowed = np.ones((2, 5, 7), bool)
    if mask is not None:
        allowed &= mask if mask.ndim == 3 else mask[:, None]
    want = attend(*(np.asarray(x, np.float64) for x in (q, k, v)), allowed)
    assert got.dtype == jnp.dtype(dtype)
    np.testing.assert_allclose(np.asarray(got, np.float64), want, atol=tolerance * np.abs(want).max())


def test_masked_keys_weigh_exactly_nothing():
    huge = np.where(KEYS[:, :, None, None], V, 1e30)
    k = np.where(KEYS[:, :, None, None], K, 50.0)
    f32 = [jnp.asarray(x, jnp.float32) for x in (Q, K, V, k, huge)]
    plain = attention(*f32[:3], jnp.asarray(KEYS))
    np.testing.assert_array_equal(plain, attention(f32[0], f32[3], f32[4], jnp.asarray(KEYS)))


def test_heads_are_contiguous_channels():
    x = jnp.arange(24.0).reshape(1, 2, 12)
    np.testing.assert_array_equal(split_heads(x, 3)[0, 1, 2], [20, 21, 22, 23])


def test_gradients_of_many_pieces_add_up_in_float32(monkeypatch):
    """Every query weighs all keys alike, so each value's gradient is n / m, in bfloat16 as near as that can say it."""
    n, m = 3 * 128, 7
    query, key, value = (jnp.zeros((1, length, 3, 8), jnp.bfloat16) for length in (n, m, m))
    in_pieces_of(1, monkeypatch)
    gradient = jax.grad(lambda v: attention(query, key, v).astype(jnp.float32).sum())(value)
    np.testing.assert_allclose(np.float64(gradient), n / m, rtol=2**-8)


def test_memory_of_a_training_step_at_the_size_of_framepack_f1():
    """480×832 with SemanticPack, compiled only: with all scores at once it is 173 GB.

    Arguments and gradients take 0.9 GB.
    """
    x = jax.ShapeDtypeStruct((1, 21_157, 24, 128), jnp.bfloat16)
    gradient = jax.grad(lambda *args: attention(*args).astype(jnp.float32).sum(), (0, 1, 2))
    plan = jax.jit(gradient).lower(x, x, x).compile().memory_analysis()
    assert plan.temp_size_in_bytes < 3e9
