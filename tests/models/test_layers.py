"""Elementary pieces against float64 NumPy and against counts printed by the reference implementation."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mpjax.models.layers import (
    AffineLayerNorm,
    Dense,
    EmbeddingMLP,
    FeedForward,
    Modulation,
    RMSNorm,
    gelu,
    grid_positions,
    layer_norm,
    patchify,
    sinusoid,
    token_grid,
    unpatchify,
)

RNG = np.random.default_rng(0)
X = RNG.normal(3.0, 2.0, (2, 5, 12))


def f32(x):
    return jnp.asarray(x, jnp.float32)


def test_layer_norm_is_biased_with_epsilon_1e_6():
    want = (X - X.mean(-1, keepdims=True)) / np.sqrt(X.var(-1, keepdims=True) + 1e-6)
    np.testing.assert_allclose(layer_norm(f32(X)), want, atol=2e-6)
    tiny = 1e-3 * X[..., :2]  # where epsilon shows
    want = (tiny - tiny.mean(-1, keepdims=True)) / np.sqrt(tiny.var(-1, keepdims=True) + 1e-6)
    np.testing.assert_allclose(layer_norm(f32(tiny)), want, atol=1e-5)
    # A large mean costs no accuracy: E[x²] − E[x]² would.
    np.testing.assert_allclose(layer_norm(f32(1000 + X)), layer_norm(f32(X)), atol=2e-3)


def test_norms_with_parameters():
    scale, bias = RNG.normal(size=12), RNG.normal(size=12)
    got = AffineLayerNorm().apply({"params": {"scale": f32(scale), "bias": f32(bias)}}, f32(X))
    want = (X - X.mean(-1, keepdims=True)) / np.sqrt(X.var(-1, keepdims=True) + 1e-6) * scale + bias
    np.testing.assert_allclose(got, want, atol=5e-6)
    small = 1e-3 * X
    got = RMSNorm().apply({"params": {"scale": f32(scale)}}, f32(small))
    np.testing.assert_allclose(got, small / np.sqrt((small**2).mean(-1, keepdims=True) + 1e-6) * scale, atol=5e-6)


@pytest.mark.parametrize(("t", "tolerance"), [(0.0, 0.0), (3.7, 1e-6), (980.892, 1e-4), (10000.0, 1e-3)])
def test_sinusoid(t, tolerance):
    """[cos, sin] of t · 10000^(−i/128); an angle of float32 at 10,000 has an error of 1e-3."""
    angles = [float(np.float32(t)) * math.exp(-math.log(10000) * i / 128) for i in range(128)]
    want = [math.cos(a) for a in angles] + [math.sin(a) for a in angles]
    np.testing.assert_allclose(sinusoid(jnp.array([t]))[0], want, atol=tolerance)


def test_dense_computes_in_its_dtype_from_float32_parameters():
    layer = Dense(7, dtype=jnp.bfloat16)
    params = jax.tree.map(lambda x: x, layer.init(jax.random.key(0), f32(X)))
    assert {x.dtype for x in jax.tree.leaves(params)} == {jnp.dtype("float32")}
    assert layer.apply(params, f32(X)).dtype == jnp.bfloat16


def test_activations_and_order_of_the_two_mlps():
    shapes = {"up": (12, 20), "down": (20, 12)}
    p = {name: {"kernel": RNG.normal(size=s), "bias": RNG.normal(size=s[1])} for name, s in shapes.items()}
    h = X @ p["up"]["kernel"] + p["up"]["bias"]
    gelu = 0.5 * h * (1 + np.tanh(math.sqrt(2 / math.pi) * (h + 0.044715 * h**3)))
    silu = h / (1 + np.exp(-h))
    for name, activated in (("gelu", gelu), ("silu", silu)):
        got = FeedForward(20, name).apply({"params": jax.tree.map(f32, p)}, f32(X))
        want = activated @ p["down"]["kernel"] + p["down"]["bias"]
        np.testing.assert_allclose(got, want, atol=1e-5 * np.abs(want).max())
    p = {"linear_1": p["up"], "linear_2": {"kernel": RNG.normal(size=(20, 20)), "bias": RNG.normal(size=20)}}
    got = EmbeddingMLP(20).apply({"params": jax.tree.map(f32, p)}, f32(X))
    want = silu @ p["linear_2"]["kernel"] + p["linear_2"]["bias"]
    np.testing.assert_allclose(got, want, atol=1e-5 * np.abs(want).max())


def test_modulation_starts_at_zero_and_splits_in_order():
    temb = f32(RNG.normal(size=(2, 4)))
    fresh = Modulation(3).init(jax.random.key(0), temb)
    assert all(float(jnp.abs(part).max()) == 0 for part in Modulation(3).apply(fresh, temb))
    params = {"linear": {"kernel": jnp.zeros((4, 12)), "bias": jnp.arange(12.0)}}
    parts = Modulation(3).apply({"params": params}, temb)
    np.testing.assert_array_equal(parts, np.tile(np.arange(12.0).reshape(3, 1, 1, 4), (1, 2, 1, 1)))


def test_patchify_orders_channels_as_a_flattened_convolution():
    """Token (t, y, x), channel (c, kt, kh, kw); the end of each axis repeats its edge."""
    kernel, x = (2, 4, 3), RNG.normal(size=(2, 3, 6, 7, 5))
    got = np.asarray(patchify(f32(x), kernel)).astype(np.float32)
    grid = (2, 2, 3)
    assert got.shape == (2, math.prod(grid), 5 * math.prod(kernel))
    for t, y, z in np.ndindex(grid):
        for c, i, j, k in np.ndindex(5, *kernel):
            source = x[:, min(2 * t + i, 2), min(4 * y + j, 5), min(3 * z + k, 6), c]
            token, channel = (t * 2 + y) * 3 + z, ((c * 2 + i) * 4 + j) * 3 + k
            np.testing.assert_array_equal(got[:, token, channel], np.float32(source))


def test_unpatchify_inverts_patchify():
    x = f32(RNG.normal(size=(2, 3, 4, 6, 5)))
    np.testing.assert_array_equal(unpatchify(patchify(x, (1, 2, 2)), 3, 4, 6, 2), x)


@pytest.mark.parametrize(
    ("height", "width", "counts"),
    [(480, 832, (416, 390, 3120, 14040)), (640, 608, (400, 380, 3040, 13680)), (128, 128, (16, 16, 128, 576))],
)
def test_token_counts_of_framepack_f1(height, width, counts):
    """[4x, 2x, clean 1x, noisy]: the counts of the reference implementation, 17,966 tokens at 480 × 832."""
    h, w = height // 8, width // 8
    streams = [(16, (4, 8, 8)), (2, (2, 4, 4)), (2, (1, 2, 2)), (9, (1, 2, 2))]
    assert tuple(math.prod(token_grid((frames, h, w), kernel)) for frames, kernel in streams) == counts
    for frames, kernel in streams:  # `patchify` cuts as many as `token_grid` says
        video = jax.ShapeDtypeStruct((1, frames, h, w, 1), jnp.float32)
        tokens = jax.eval_shape(lambda x, k=kernel: patchify(x, k), video)
        assert tokens.shape[1] == math.prod(token_grid((frames, h, w), kernel))


def test_grid_positions_are_distinct_and_separable():
    features = np.asarray(grid_positions((2, 3, 4), 8)).reshape(2, 3, 4, 3, 8)
    for axis, i in ((0, 1), (1, 2), (2, 3)):
        place = [0, 0, 0]
        place[axis] = i
        angles = i * 100.0 ** (-np.arange(4) / 4)
        np.testing.assert_allclose(features[tuple(place)][axis], [*np.cos(angles), *np.sin(angles)], atol=1e-6)
    assert len({tuple(row) for row in features.reshape(24, -1)}) == 24


def test_gelu_keeps_its_input_alone():
    x = f32(X)
    _, pullback = jax.vjp(gelu, x)
    assert sum(leaf.size for leaf in jax.tree.leaves(pullback)) == x.size
