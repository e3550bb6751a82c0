"""Every way to compute attention that runs on a CPU against one float64 reference, forward and backward.

What needs another device is compiled as far as this one can: splash for TPU, cuDNN's flash attention for CUDA.
"""

import functools
import logging

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax._src.cudnn import fused_attention_stablehlo

from mpjax.models import attention as module
from mpjax.models import attention_kernels
from mpjax.models.attention import attention
from mpjax.models.attention_kernels import choose, cudnn, splash
from mpjax.models.plain_attention import SAVED
from tests.tracing import equations

TPU, H200, CPU = ("tpu", "TPU v6 lite"), ("gpu", "NVIDIA H200"), ("cpu", "cpu")
B, N, M, HEADS, HEAD_DIM = 2, 300, 200, 2, 64
RNG = np.random.default_rng(0)
Q, DIRECTION = (RNG.normal(size=(B, N, HEADS, HEAD_DIM)) for _ in range(2))
K, V = (RNG.normal(size=(B, M, HEADS, HEAD_DIM)) for _ in range(2))
KEYS = RNG.random((B, M)) < 0.6  # valid keys are no prefix
KEYS[0, :150] = False  # a whole tile of 128 without a key
KEYS[:, 190] = True


def reference(q, k, v, direction, keys):
    """Attention `[b, n, heads, head_dim]` in float64 and the gradients of its product with `direction`."""
    scale = q.shape[-1] ** -0.5
    scores = np.einsum("bnhd,bmhd->bhnm", q, k) * scale
    scores = np.where(keys[:, None, None], scores, -np.inf)
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    weights /= weights.sum(-1, keepdims=True)
    out = np.einsum("bhnm,bmhd->bnhd", weights, v)
    by_weight = np.einsum("bnhd,bmhd->bhnm", direction, v)
    by_score = weights * (by_weight - (weights * by_weight).sum(-1, keepdims=True)) * scale
    return (
        out,
        np.einsum("bhnm,bmhd->bnhd", by_score, k),
        np.einsum("bhnm,bnhd->bmhd", by_score, q),
        np.einsum("bhnm,bnhd->bmhd", weights, direction),
    )


def entry(q, k, v, mask):
    return attention(q, k, v, mask).reshape(q.shape)


WAYS = {
    "plain": entry,
    "pieces": entry,
    "splash": functools.partial(splash, interpret=True),
    "cudnn": functools.partial(cudnn, implementation="xla"),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("masked", "dtype", "tolerance"),
    [(False, "float32", 3e-6), (True, "float32", 3e-6), (True, "bfloat16", 2e-2)],
    ids=["all", "keys", "bfloat16"],
)
def test_forward_and_backward(way, masked, dtype, tolerance, monkeypatch):
    if way == "pieces":
        monkeypatch.setattr(module, "CACHED_SCORES", 4 * 128 * M)
    arguments = [jnp.asarray(x, dtype) for x in (Q, K, V)]
    direction = jnp.asarray(DIRECTION, dtype)
    mask = jnp.asarray(KEYS) if masked else None

    @jax.jit
    def run(q, k, v):
        out, pullback = jax.vjp(lambda q, k, v: WAYS[way](q, k, v, mask), q, k, v)
        return out, *pullback(direction)

    exact = (np.asarray(x, np.float64) for x in (*arguments, direction))
    wanted = reference(*exact, KEYS if masked else np.ones_like(KEYS))
    for got, want in zip(run(*arguments), wanted, strict=True):
        assert got.dtype == jnp.dtype(dtype)
        np.testing.assert_allclose(np.asarray(got, np.float64), want, atol=tolerance * np.abs(want).max())


@pytest.mark.parametrize("way", ["splash", "cudnn"])
def test_masked_keys_weigh_exactly_nothing(way):
    mask = KEYS[:, :, None, None]
    usual = [jnp.asarray(x, jnp.float32) for x in (Q, K, V)]
    wild = [usual[0], jnp.where(mask, usual[1], 50.0), jnp.where(mask, usual[2], 1e30)]
    np.testing.assert_array_equal(WAYS[way](*usual, jnp.asarray(KEYS)), WAYS[way](*wild, jnp.asarray(KEYS)))


def test_what_splash_keeps_can_be_kept_by_name():
    """With it kept, rematerialisation runs the forward kernel once; without, twice. The backward pass has two more."""
    q = jnp.ones((1, 600, 2, 64))

    def kernels(policy):
        attend = lambda q: (splash(q, q, q, None, interpret=True) ** 2).sum()  # noqa: E731
        gradient = jax.grad(jax.checkpoint(attend, policy=policy))
        return sum(e.primitive.name == "pallas_call" for e in equations(jax.make_jaxpr(gradient)(q).jaxpr))

    assert kernels(jax.checkpoint_policies.save_only_these_names(SAVED)) == 3
    assert kernels(jax.checkpoint_policies.nothing_saveable) == 4


# -- The choice ------------------------------------------------------------------------------------------------------


def shape(*sizes, dtype=jnp.bfloat16):
    return jax.ShapeDtypeStruct(sizes, dtype)


X = shape(1, 2048, 4, 128)


@pytest.mark.parametrize(
    ("device", "arrays", "kernel"),
    [
        (TPU, (X, X, X, None), splash),
        (TPU, (X, X, X, shape(1, 2048, dtype=bool)), splash),
        (TPU, (X, X, X, shape(1, 2048, 2048, dtype=bool)), None),
        (TPU, (shape(1, 2048, 4, 32),) * 3 + (None,), None),
        (TPU, (X, shape(1, 77, 4, 128), shape(1, 77, 4, 128), None), None),
        (H200, (X, X, X, None), cudnn),
        (H200, (X, X, shape(1, 2048, 4, 128, dtype=jnp.float32), None), None),
        (H200, (shape(1, 2048, 1, 512),) * 3 + (None,), None),
        (("gpu", "AMD Instinct MI300X"), (X, X, X, None), None),
        (CPU, (X, X, X, None), None),
    ],
)
def test_choice(device, arrays, kernel):
    choice = choose(device, *arrays)
    assert choice.kernel is kernel
    assert device[1] in choice.words and ("plain" in choice.words) == (kernel is None)


def test_the_choice_is_logged_once(monkeypatch, caplog):
    module._log.cache_clear()
    monkeypatch.setattr(module, "target_device", lambda: ("gpu", "a card"))
    x = jnp.zeros((1, 4, 1, 8))
    with caplog.at_level(logging.INFO, "mpjax"):
        for _ in range(2):
            attention(x, x, x)
    assert [record.getMessage() for record in caplog.records] == [
        "attention: plain products on a card: no kernel for it"
    ]


@pytest.mark.parametrize("length", [1, 127, 128, 129, 600, 1024, 1025, 18_432, 21_157])
def test_tiles_cover_the_tokens_and_waste_little(length):
    padded = attention_kernels._padded(length)
    assert padded >= length and padded % attention_kernels._tile(length) == 0
    assert padded - length < max(128, length / 20)


# -- Lowered for a device that is not here ----------------------------------------------------------------------------


class Block(nn.Module):
    """Attention the way the network has it: scanned over layers and rematerialised."""

    @nn.compact
    def __call__(self, x, mask):
        b, n, d = x.shape
        q, k, v = (nn.Dense(d, dtype=x.dtype)(x).reshape(b, n, -1, 128) for _ in range(3))
        return x + attention(q, k, v, mask), None


def lowered(platform):
    """StableHLO of the gradient of four blocks."""
    stack = nn.scan(
        nn.remat(Block, prevent_cse=False),
        variable_axes={"params": 0},
        split_rngs={"params": True},
        in_axes=nn.broadcast,
        length=4,
    )()
    x, mask = shape(2, 1100, 256), shape(2, 1100, dtype=bool)
    params = jax.eval_shape(stack.init, jax.random.key(0), x, mask)
    loss = lambda p, x, mask: stack.apply(p, x, mask)[0].astype(jnp.float32).sum()  # noqa: E731
    return jax.jit(jax.grad(loss)).trace(params, x, mask).lower(lowering_platforms=(platform,)).as_text()


def test_splash_lowers_for_tpu(monkeypatch):
    monkeypatch.setattr(module, "target_device", lambda: TPU)
    text = lowered("tpu")
    for kernel in ("splash_mha_fwd_segmented_residuals", "splash_mha_dq_segmented", "splash_mha_dkv_segmented"):
        assert kernel in text, kernel
    assert "1100x1100" not in text  # no array of scores


def test_flash_attention_lowers_for_cuda(monkeypatch):
    """JAX asks cuDNN for its version before it writes the call."""
    monkeypatch.setattr(module, "target_device", lambda: H200)
    monkeypatch.setattr(fused_attention_stablehlo, "check_cudnn_version", lambda: 91_000)
    text = lowered("cuda")
    assert "__cudnn$fmhaSoftmax(" in text.replace('"', "(") and "__cudnn$fmhaSoftmaxBackward" in text
    assert "1100x1100" not in text
