"""Attention in portions, forward and backward, against float64; and how large the portions are."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mpjax.models.plain_attention import SAVED, Portions, fitting_portions, plain_attention
from tests.tracing import equations

B, N, M, HEADS, HEAD_DIM = 2, 7, 5, 3, 8
RNG = np.random.default_rng(0)
Q, DIRECTION = (2 * RNG.normal(size=(B, N, HEADS, HEAD_DIM)) for _ in range(2))
K, V = (RNG.normal(size=(B, M, HEADS, HEAD_DIM)) for _ in range(2))
KEYS = np.array([[1, 1, 0, 0, 1], [0, 0, 0, 1, 0]], bool)
PAIRS = RNG.random((B, N, M)) < 0.5
PAIRS[..., 2] = True
# All at once, groups of heads, one head at a time, and pieces that divide the 7 queries or leave a rest.
PORTIONS = [Portions(6, 1), Portions(3, 1), Portions(1, 1), Portions(6, 7), Portions(2, 2), Portions(1, 3)]


def attend(query, key, value, mask):
    """One head of one video, in float64: `[n, d]`, `[m, d]`, `[m, d]`, `[n, m]` → `[n, d]` and the weights."""
    scores = np.where(mask, query @ key.T / np.sqrt(query.shape[-1]), -np.inf)
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    weights /= weights.sum(-1, keepdims=True)
    return weights @ value, weights


def reference(query, key, value, mask, direction):
    """Head by head: the attention, and the gradients of its product with `direction`, query by query.

    The gradient of a softmax with weights w is the matrix diag(w) - w wᵀ.
    """
    results = [np.zeros(x.shape) for x in (query, query, key, value)]
    out, of_query, of_key, of_value = results
    for place in np.ndindex(B, HEADS):
        video, head = place
        q, k, v, g = (x[video, :, head] for x in (query, key, value, direction))
        out[video, :, head], weights = attend(q, k, v, mask[video])
        for i, w in enumerate(weights):
            of_scores = (np.diag(w) - np.outer(w, w)) @ (v @ g[i]) / np.sqrt(HEAD_DIM)
            of_query[video, i, head] = of_scores @ k
            of_key[video, :, head] += np.outer(of_scores, q[i])
            of_value[video, :, head] += np.outer(w, g[i])
    return results


@pytest.mark.parametrize("portions", PORTIONS, ids=lambda portions: f"{portions.heads}-{portions.pieces}")
@pytest.mark.parametrize("mask", [None, KEYS, PAIRS], ids=["none", "keys", "pairs"])
@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 2e-6), ("bfloat16", 2e-2)])
def test_forward_and_backward(mask, portions, dtype, tolerance):
    arguments = [jnp.asarray(x, dtype) for x in (Q, K, V)]
    direction = jnp.asarray(DIRECTION, dtype)

    @jax.jit
    def run(q, k, v):
        given = None if mask is None else jnp.asarray(mask)
        out, pullback = jax.vjp(lambda q, k, v: plain_attention(q, k, v, given, portions), q, k, v)
        return out, *pullback(direction)

    allowed = np.ones((B, N, M), bool)
    if mask is not None:
        allowed &= mask if mask.ndim == 3 else mask[:, None]
    exact = (np.asarray(x, np.float64) for x in arguments)
    wanted = reference(*exact, allowed, np.asarray(direction, np.float64))
    for got, want in zip(run(*arguments), wanted, strict=True):
        assert got.dtype == jnp.dtype(dtype) and np.abs(want).max() > 0.1
        np.testing.assert_allclose(np.asarray(got, np.float64), want, atol=tolerance * np.abs(want).max())


def test_the_backward_pass_keeps_no_scores():
    """What lies between the passes grows with the queries, not with queries times keys."""
    q, k = jnp.ones((1, 300, 2, 8)), jnp.ones((1, 400, 2, 8))
    _, pullback = jax.vjp(lambda q, k, v: plain_attention(q, k, v, None, Portions(2, 1)), q, k, k)
    assert 0 < max(leaf.size for leaf in jax.tree.leaves(pullback)) <= 400 * 2 * 8


def test_what_it_keeps_can_be_kept_by_name():
    """With it kept, rematerialisation computes no softmax again: one exp forward, one backward; without, one more."""
    q = jnp.ones((1, 6, 2, 8))

    def exponentials(policy):
        attend = lambda q: (plain_attention(q, q, q, None, Portions(2, 1)) ** 2).sum()  # noqa: E731
        gradient = jax.grad(jax.checkpoint(attend, policy=policy))
        return sum(e.primitive.name == "exp" for e in equations(jax.make_jaxpr(gradient)(q).jaxpr))

    assert exponentials(jax.checkpoint_policies.save_only_these_names(SAVED)) == 2
    assert exponentials(jax.checkpoint_policies.nothing_saveable) == 3


@pytest.mark.parametrize(
    ("largest", "portions"),
    [
        (10**9, Portions(12, 1)),
        (4 * 12 * 10 * 20, Portions(12, 1)),
        (4 * 12 * 10 * 20 - 1, Portions(6, 1)),
        (4 * 5 * 10 * 20, Portions(4, 1)),  # 5 do not divide 12
        (4 * 10 * 20, Portions(1, 1)),
        (4 * 9 * 20, Portions(1, 2)),
        (4 * 3 * 20, Portions(1, 4)),
        (1, Portions(1, 10)),
    ],
)
def test_portions(largest, portions):
    """12 heads of 10 queries and 20 keys."""
    assert fitting_portions(12, 10, 20, largest) == portions
