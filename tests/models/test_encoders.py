"""The built-in encoders: padding is invisible, order and place are not."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mpjax.models.encoders import FrameEncoder, PromptEncoder
from tests.tiny import tiny_architecture

ARCH = tiny_architecture()


@pytest.fixture(scope="module")
def prompt_encoder():
    module = PromptEncoder(ARCH, ARCH.encoders)
    params = jax.jit(module.init)(jax.random.key(0), jnp.ones((1, 8), jnp.int32))
    return jax.jit(lambda prompts: module.apply(params, prompts))


def test_tokens_are_valid_where_bytes_are(prompt_encoder):
    """Two bytes share a token; an empty prompt keeps one token, so that attention always has a key."""
    text, mask, pooled = prompt_encoder(jnp.array([[9, 9, 9, 0, 0, 0, 0, 0], [0] * 8], jnp.int32))
    assert text.shape == (2, 4, 12) and pooled.shape == (2, 10)
    assert mask.tolist() == [[True, True, False, False], [True, False, False, False]]
    assert np.isfinite(text).all() and np.isfinite(pooled).all()


def test_the_rest_of_a_batch_and_padding_change_nothing(prompt_encoder):
    prompt = [72, 101, 0, 0, 0, 0, 0, 0]
    first, second = (prompt_encoder(jnp.array([prompt, other], jnp.int32)) for other in ([1] * 8, [200] + [0] * 7))
    for a, b in zip(first, second, strict=True):
        np.testing.assert_array_equal(a[0], b[0])


def test_the_order_of_words_matters(prompt_encoder):
    _, _, pooled = prompt_encoder(jnp.array([[1, 2, 3, 4, 0, 0, 0, 0], [3, 4, 1, 2, 0, 0, 0, 0]], jnp.int32))
    assert np.abs(pooled[0] - pooled[1]).max() > 1e-3


def test_frame_encoder_makes_a_token_a_patch():
    module = FrameEncoder(ARCH, ARCH.encoders)
    x = jnp.zeros((1, 1, 8, 12, 3))
    params = jax.jit(module.init)(jax.random.key(0), x)
    run = jax.jit(lambda x: module.apply(params, x))
    plain = run(x)
    assert plain.shape == (1, 6, 14)
    assert np.abs(plain[0, 0] - plain[0, 1]).max() > 1e-3  # equal content, another place
    changed = np.abs(run(x.at[:, :, 5, 9].set(1.0)) - plain).max((0, 2))
    assert (changed > 0).tolist() == [False] * 5 + [True]
