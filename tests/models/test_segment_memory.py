"""Mean pool and first segment: what ψ holds after n segments."""

import jax
import jax.numpy as jnp
import numpy as np

from tests.memories import KINDS, Harness
from tests.models.numpy_network import norm


def kept(harness, n):
    """Segment n as it enters ψ."""
    return norm(harness.memorized(n), jax.tree.map(np.asarray, harness.params["recall"]))


def test_mean_pool_is_the_mean_of_all_segments_without_their_order():
    harness = Harness(KINDS["mean_pool"])
    for count in (1, 2, 5):
        want = np.mean([kept(harness, n) for n in range(count)], 0)
        np.testing.assert_allclose(harness.after(count).tokens, want, atol=1e-5)
    backwards = harness.after(5, harness.segments[:5][::-1])
    np.testing.assert_allclose(backwards.tokens, harness.after(5).tokens, atol=1e-5)


def test_the_first_segment_stays_and_nothing_else_enters():
    harness = Harness(KINDS["first_segment"])
    first = harness.after(1)
    np.testing.assert_allclose(first.tokens, kept(harness, 0), atol=1e-5)
    np.testing.assert_array_equal(harness.after(6).tokens, first.tokens)
    others = harness.segments.at[1:].add(1.0)
    np.testing.assert_array_equal(harness.after(6, others).tokens, first.tokens)

    def later(segment):
        return harness.update(harness.update(harness.start(), harness.segments[0]), segment).tokens.sum()

    assert not jax.grad(later)(harness.segments[1]).any()
    changed = harness.after(6, harness.segments.at[0].add(jnp.arange(4.0)[:, None]))
    assert float(jnp.abs(changed.tokens - first.tokens).max()) > 1e-3
