"""Causal convolutions, on a CPU by minimal filtering, against float64, tap by tap."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mpjax.models import convolution
from mpjax.models.convolution import causal_convolve

RNG = np.random.default_rng(0)


def reference(x, kernel, strides):
    """The sum over the taps of a shifted, thinned input times the tap's matrix."""
    k = kernel.shape[0]
    size = [-(-n // s) for n, s in zip(x.shape[1:4], strides, strict=True)]
    total = 0.0
    for tap in np.ndindex(k, k, k):
        places = np.ix_(
            *(
                np.clip(np.arange(m) * s + i - before, 0, n - 1)
                for i, m, s, n, before in zip(tap, size, strides, x.shape[1:4], (k - 1, k // 2, k // 2), strict=True)
            )
        )
        total = total + np.stack([video[places] for video in x]) @ kernel[tap]
    return total


@pytest.mark.parametrize(
    ("k", "features", "strides", "cached"),
    [
        (3, 2, (1, 1, 1), 2**23),  # a frame at once
        (3, 3, (1, 1, 1), 0),  # a row of 3 tiles at a time, as many as channels
        (3, 5, (1, 1, 1), 0),  # 2 rows of the 3, and the last band computes one of them again
        (5, 2, (1, 1, 1), 2**23),
        (1, 3, (1, 1, 1), 2**23),
        (1, 3, (2, 2, 2), 2**23),
        (3, 2, (2, 2, 2), 2**23),
        (3, 2, (1, 2, 2), 2**23),
    ],
)
@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-6), ("bfloat16", 2e-2)])
def test_causal_convolve(k, features, strides, cached, dtype, tolerance, monkeypatch):
    """Two videos of 4 frames, 5 × 6."""
    monkeypatch.setattr(convolution, "CACHED_TILES", cached)
    x, weight = (jnp.asarray(RNG.normal(size=shape), dtype) for shape in ((2, 4, 5, 6, 4), (k, k, k, 4, features)))
    got = jax.jit(lambda x, weight: causal_convolve(x, weight, strides))(x, weight)
    want = reference(np.asarray(x, np.float64), np.asarray(weight, np.float64), strides)
    assert got.dtype == jnp.dtype(dtype) and got.shape == want.shape
    np.testing.assert_allclose(np.asarray(got, np.float64), want, atol=tolerance * np.abs(want).max())


def test_what_is_not_finite_stays_where_it_is():
    x = jnp.ones((2, 4, 5, 6, 4)).at[0, 0, 0, 0, 0].set(jnp.inf)
    out = causal_convolve(x, jnp.ones((3, 3, 3, 4, 2)), (1, 1, 1))
    assert not jnp.isfinite(out[0, 0, 0, 0]).any() and jnp.isfinite(out[1]).all() and jnp.isfinite(out[0, :, 3:]).all()


def test_tiles_exist_for_a_part_of_a_frame_at_a_time():
    """Compiled only: 128 channels of 256 × 256 pixels, 34 MB a frame; the tiles of one would be 0.4 GB."""
    x = jax.ShapeDtypeStruct((1, 1, 256, 256, 128), jnp.float32)
    weight = jax.ShapeDtypeStruct((3, 3, 3, 128, 128), jnp.float32)
    program = jax.jit(lambda x, weight: causal_convolve(x, weight, (1, 1, 1))).lower(x, weight).compile()
    assert program.memory_analysis().temp_size_in_bytes < 1e8


def test_layers_do_not_hold_their_matrices_at_once():
    """Compiled only: 8 layers, whose matrices take 12.6 MB each."""
    x = jax.ShapeDtypeStruct((1, 1, 8, 8, 256), jnp.float32)
    kernels = jax.ShapeDtypeStruct((8, 3, 3, 3, 256, 256), jnp.float32)

    def run(x, kernels):
        for kernel in kernels:
            x = causal_convolve(x, kernel, (1, 1, 1))
        return x

    assert jax.jit(run).lower(x, kernels).compile().memory_analysis().temp_size_in_bytes < 6e7
