"""Long window and retrieval against loops in NumPy."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.memories import KINDS, WIDTH, Harness
from tests.models.numpy_network import linear, norm

N, TOKENS = 3, 8


def params_of(harness):
    return jax.tree.map(lambda x: np.asarray(x, np.float64), harness.params["recall"])


def entries(harness, count):
    """(video, age) → tokens `[n, d]` as they are read, for those that a bank of N holds after `count` segments."""
    p, out = params_of(harness)["entries"], {}
    for n in range(max(0, count - N), count):
        age = count - 1 - n
        angles = [age * 100.0 ** (-i / 8) for i in range(8)]
        feature = np.array([math.cos(a) for a in angles] + [math.sin(a) for a in angles]) @ p["age"]["kernel"]
        for video in range(2):
            out[video, age] = norm(harness.memorized(n)[video], p["norm"]) + feature
    return out


@pytest.mark.parametrize("count", [0, 1, 3, 5])
def test_the_long_window_shows_the_last_n_segments_in_their_order(count):
    harness = Harness(KINDS["long_window"])
    tokens, valid = harness.read(harness.after(count))
    held, tokens, valid = min(count, N), tokens.reshape(2, N, TOKENS, WIDTH), valid.reshape(2, N, TOKENS)
    assert (valid == (np.arange(N) >= N - held)[None, :, None]).all()
    for (video, age), want in entries(harness, count).items():
        np.testing.assert_allclose(tokens[video, N - 1 - age], want, atol=1e-5)


def test_the_age_of_a_segment_is_told():
    harness = Harness(KINDS["long_window"])
    swapped = harness.read(harness.after(2, harness.segments[:2][::-1]))[0].reshape(2, N, TOKENS, WIDTH)
    plain = harness.read(harness.after(2))[0].reshape(2, N, TOKENS, WIDTH)
    difference = plain[:, 2] - swapped[:, 1]  # the same segment, now the newest, now the one before
    np.testing.assert_allclose(difference, np.broadcast_to(difference[:, :1], difference.shape), atol=1e-5)
    assert np.abs(difference).max() > 1e-2


def most_similar(harness, count, k):
    """Tokens of the k best entries per video, best first."""
    p, held = params_of(harness), entries(harness, count)
    pooled, image = (np.asarray(x, np.float64) for x in harness.condition)
    for video in range(2):
        ages = sorted(age for v, age in held if v == video)
        query = linear(p["from_prompt"], pooled[video]) + linear(p["from_image"], image[video].mean(0))
        query = query + linear(p["from_newest"], held[video, 0].mean(0))
        score = {age: float(query @ linear(p["to_k"], held[video, age].mean(0))) / math.sqrt(WIDTH) for age in ages}
        best = sorted(ages, key=lambda age: -score[age])[:k]
        yield best, [held[video, age] * 2 / (1 + math.exp(-score[age])) for age in best]


@pytest.mark.parametrize(("count", "k"), [(1, 2), (2, 1), (3, 2), (5, 2), (5, 3)])
def test_retrieval_finds_what_a_search_by_hand_finds(count, k):
    harness = Harness(dataclasses.replace(KINDS["retrieval"], top_k=k), seed=1)
    tokens, valid = harness.read(harness.after(count))
    tokens, valid = tokens.reshape(2, k, TOKENS, WIDTH), valid.reshape(2, k, TOKENS)
    for video, (best, want) in enumerate(most_similar(harness, count, k)):
        assert valid[video].all(1).tolist() == valid[video].any(1).tolist() == [i < len(best) for i in range(k)]
        for i, entry in enumerate(want):
            np.testing.assert_allclose(tokens[video, i], entry, atol=1e-4)


def test_retrieval_chooses_by_prompt_and_per_video():
    """Over many prompts every entry is chosen, and two videos choose apart."""
    harness = Harness(dataclasses.replace(KINDS["retrieval"], top_k=1), seed=1)
    memory, held, rng = harness.after(3), entries(harness, 3), np.random.default_rng(0)
    read = jax.jit(lambda pooled: harness.apply("read", memory, pooled, harness.condition[1])[0])
    chosen = set()
    for _ in range(20):
        pooled = jnp.asarray(rng.normal(size=harness.condition[0].shape) * 5, jnp.float32)
        tokens = np.asarray(read(pooled))

        def nearest(video, tokens=tokens):
            return min(range(N), key=lambda age: np.abs(norm(tokens[video]) - norm(held[video, age])).max())

        chosen.add((nearest(0), nearest(1)))
    assert {a for a, _ in chosen} == {b for _, b in chosen} == {0, 1, 2}
    assert any(a != b for a, b in chosen)


def test_gradients_go_through_the_chosen_segments_and_their_score():
    harness = Harness(dataclasses.replace(KINDS["retrieval"], top_k=1), seed=1)
    memory = harness.after(3)

    def total(tokens, params):
        return jnp.square(
            harness.apply("read", memory.replace(tokens=tokens), *harness.condition, params=params)[0]
        ).sum()

    by_tokens, by_params = jax.grad(total, argnums=(0, 1))(memory.tokens, harness.params)
    strength = np.abs(by_tokens).reshape(2, N, -1).max(2)
    for video, (best, _) in enumerate(most_similar(harness, 3, 1)):
        # The newest segment also takes part in the query.
        reached = {N - 1 - best[0], N - 1}
        assert set(np.flatnonzero(strength[video] > 0)) == reached
    for name, leaf in jax.tree.leaves_with_path(by_params["recall"]):
        assert float(jnp.abs(leaf).max()) > 1e-5, name
