"""Segments and a context for one call of an arm; every array also in float64."""

import jax
import jax.numpy as jnp
import numpy as np

from mpjax.diffusion.forcing import ForcingContext

SHAPE = (2, 3, 4, 4, 2)
_RNG = np.random.default_rng(0)
X, X_T, V, NOISE = (jnp.asarray(_RNG.normal(size=SHAPE), jnp.float32) for _ in range(4))
T = jnp.array([0.2, 0.95])
KEY = jax.random.key(4)


def context(later=True, denoise=lambda x, t: 0.5 * x, index=1, starts=(False, False), key=KEY, trained=None):
    starts = jnp.asarray(starts)
    return ForcingContext(
        key=key,
        index=jnp.int32(index),
        starts_chain=starts,
        trained=jnp.ones_like(starts) if trained is None else jnp.asarray(trained),
        later=jnp.asarray(later),
        denoise=denoise,
    )


def f64(x):
    return np.asarray(x, np.float64)


def wide(t):
    """`[b]` in float64, ready to meet segments."""
    return f64(t)[:, None, None, None, None]


def assert_detached(arm, carry=None, **fields):
    """Nothing that an arm returns follows v, x_t or the network."""
    carry = arm.init((SHAPE[0], 3, *SHAPE[1:])) if carry is None else carry

    def total(scale, v, x_t):
        ctx = context(denoise=lambda x, t: scale * x, **fields)
        segment, after = arm.history(carry, ctx, X, x_t, v, T)
        floats = [x for x in jax.tree.leaves(after) if jnp.issubdtype(x.dtype, jnp.floating)]
        return segment.sum() + sum((x * x).sum() for x in floats)

    for gradient in jax.grad(total, (0, 1))(0.5, V, X_T):
        assert float(jnp.abs(gradient).max()) == 0
