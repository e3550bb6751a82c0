"""The one attention entry against float64, query by query."""

import jax.numpy as jnp
import numpy as np
import pytest

from mpjax.models.attention import attention, split_heads
from tests.models.numpy_network import attend

RNG = np.random.default_rng(0)
Q, K, V = (RNG.normal(size=(2, n, 3, 8)) for n in (5, 7, 7))
KEYS = np.array([[1, 1, 1, 0, 0, 1, 0], [1, 0, 0, 0, 0, 0, 0]], bool)
PAIRS = RNG.random((2, 5, 7)) < 0.5
PAIRS[..., 2] = True


@pytest.mark.parametrize("mask", [None, KEYS, PAIRS], ids=["none", "keys", "pairs"])
@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-6), ("bfloat16", 2e-2)])
def test_attention(mask, dtype, tolerance):
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
