"""The whole network against the float64 NumPy one, and its size."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mpjax.models.architecture import Architecture, FramePack
from mpjax.models.encoders import Condition
from mpjax.models.framepack import History, empty_history
from mpjax.models.memory import Memory
from mpjax.models.memorypack import Denoiser, MemoryPack
from mpjax.models.refiner import TokenRefiner
from tests.models import numpy_network
from tests.tiny import perturbed_params, tiny_architecture, tiny_batch
from tests.tracing import equations

SMALL = tiny_architecture(
    heads=3,
    dual_blocks=2,
    single_blocks=2,
    refiner_blocks=2,
    guidance_embeds=True,
    framepack=FramePack(segment_frames=2, history_frames=(1, 3, 5), rope_layout="global"),
    memory=None,
)
# Small, because an angle of float32 loses digits as it grows; 12 × 10 patches to 6 × 5: no multiple of 2 or 4.
TIMESTEP, GUIDANCE = np.array([0.3, 7.1]), np.array([2.5, 0.7])
HEIGHT, WIDTH = 12, 10


def small_inputs(seed=1):
    """(x_t, history, condition, memory) with ragged text and ψ, float64."""
    rng = np.random.default_rng(seed)
    pack = SMALL.framepack
    condition = Condition(
        text=rng.normal(size=(2, 5, SMALL.text_width)),
        text_mask=np.array([[1, 1, 1, 1, 1], [1, 1, 0, 0, 0]], bool),
        pooled=rng.normal(size=(2, SMALL.pooled_width)),
        image=rng.normal(size=(2, 4, SMALL.image_width)),
    )
    memory = Memory(
        tokens=rng.normal(size=(2, 6, SMALL.width)), valid=np.array([[1, 0, 1, 1, 0, 0], [1, 1, 1, 1, 1, 0]], bool)
    )
    history = History(
        reference=rng.normal(size=(2, 1, HEIGHT, WIDTH, 3)),
        frames=rng.normal(size=(2, pack.reach, HEIGHT, WIDTH, 3)),
        segments=np.int32(3),
        total=np.int32(0),
    )
    return rng.normal(size=(2, pack.segment_frames, HEIGHT, WIDTH, 3)), history, condition, memory


def to_float32(tree):
    return jax.tree.map(lambda x: jnp.asarray(x, jnp.float32 if x.dtype == np.float64 else x.dtype), tree)


@pytest.fixture(scope="module")
def small():
    """(float32 parameters, compiled prediction of them and (x_t, timestep, history, condition, memory, guidance))."""
    denoiser = Denoiser(SMALL)
    params = perturbed_params(denoiser, tiny_batch(SMALL), scale=0.3)
    run = jax.jit(lambda params, *args: denoiser.module.apply({"params": params}, *args, method="prediction"))
    return params, run


def predict(small, x_t, history, condition, memory, params=None):
    args = to_float32((x_t, TIMESTEP, history, condition, memory, GUIDANCE))
    return np.asarray(small[1](small[0] if params is None else params, *args))


def test_prediction_is_that_of_the_float64_network(small):
    x_t, history, condition, memory = small_inputs()
    params = jax.tree.map(lambda x: np.asarray(x, np.float64), small[0])
    want = numpy_network.prediction(SMALL, params, x_t, TIMESTEP, history, condition, memory, GUIDANCE)
    got = predict(small, x_t, history, condition, memory)
    assert want.std() > 0.5
    np.testing.assert_allclose(got, want, atol=1e-5 * np.abs(want).max())
    # A batch row equals that video alone: nothing leaks between rows, whatever the other's mask.
    alone = jax.tree.map(lambda x: x[1:] if x.ndim else x, (x_t, history, condition, memory))
    row = numpy_network.prediction(SMALL, params, alone[0], TIMESTEP[1:], *alone[1:], GUIDANCE[1:])
    np.testing.assert_allclose(got[1:], row, atol=1e-5 * np.abs(want).max())


def test_padded_text_and_invalid_memory_reach_nothing(small):
    x_t, history, condition, memory = small_inputs()
    other = small_inputs(seed=2)
    text = np.where(condition.text_mask[..., None], condition.text, 100 * other[2].text)
    tokens = np.where(memory.valid[..., None], memory.tokens, 100 * other[3].tokens)
    plain = predict(small, x_t, history, condition, memory)
    changed = predict(small, x_t, history, condition.replace(text=text), memory.replace(tokens=tokens))
    np.testing.assert_array_equal(plain, changed)
    tokens = np.where(memory.valid[..., None], other[3].tokens, memory.tokens)
    shown = predict(small, x_t, history, condition, memory.replace(tokens=tokens))
    assert np.abs(plain - shown).max() > 1e-3


def test_refiner_always_shows_key_0_and_survives_an_empty_mask(small):
    """Key 0 is attended to even where the mask leaves it out; without any valid token the output stays finite."""
    _, _, condition, _ = small_inputs()
    mask = np.array([[0, 1, 1, 0, 1], [0, 0, 0, 0, 0]], bool)
    params = small[0]["context_embedder"]
    module = TokenRefiner(SMALL.width, SMALL.heads, SMALL.mlp_width, SMALL.refiner_blocks)
    args = to_float32((condition.text, mask, TIMESTEP))
    got = np.asarray(jax.jit(lambda p: module.apply({"params": p}, *args))(params))
    exact = jax.tree.map(lambda x: np.asarray(x, np.float64), params)
    first = (condition.text[:1], mask[:1], TIMESTEP[:1])
    want = numpy_network.refiner(exact, *first, SMALL.heads, SMALL.refiner_blocks)
    np.testing.assert_allclose(got[:1], want, atol=1e-5 * np.abs(want).max())
    assert np.isfinite(got).all()


def test_empty_history_is_attended_to(small):
    """Zero frames are bias-valued tokens, not absent ones: their embedding's bias changes the output."""
    x_t, history, condition, memory = small_inputs()
    history = empty_history(jnp.asarray(history.reference), SMALL.framepack)
    plain = predict(small, x_t, history, condition, memory)
    for rate in ("proj_2x", "proj_4x"):
        params = jax.tree.map(lambda x: x, small[0])
        embedder = params["clean_x_embedder"][rate]
        # Doubled rather than shifted: LayerNorm cannot see a shift that all channels share.
        params["clean_x_embedder"] = {**params["clean_x_embedder"], rate: {**embedder, "bias": 2 * embedder["bias"]}}
        assert np.abs(plain - predict(small, x_t, history, condition, memory, params)).max() > 1e-3


def test_bfloat16_is_close_to_float32(small):
    x_t, history, condition, memory = small_inputs()
    module = MemoryPack(dataclasses.replace(SMALL, dtype="bfloat16"))
    args = to_float32((x_t, TIMESTEP, history, condition, memory, GUIDANCE))
    got = jax.jit(lambda p: module.apply({"params": p}, *args, method="prediction"))(small[0])
    want = predict(small, x_t, history, condition, memory)
    assert got.dtype == jnp.float32
    assert np.abs(got - want).max() > 0 and np.sqrt(np.square(got - want).mean()) < 0.03 * want.std()


def test_sign_time_and_guidance_change_in_one_place():
    """velocity(t, scale) = −prediction(1000 · (1 − t), 1000 · scale)."""

    class Recorder(MemoryPack):
        def prediction(self, x_t, timestep, history, condition, memory, guidance=None):
            return x_t * timestep[:, None] + guidance[:, None]

    class Recording(Denoiser):
        @property
        def module(self):
            return Recorder(self.architecture)

    t, x = jnp.array([0.0, 0.25]), jnp.array([[2.0], [3.0]])
    got = Recording(SMALL, guidance=10.0).velocity({}, x, t, None, None, None)
    np.testing.assert_allclose(got, -np.array([[2.0 * 1000 + 10000], [3.0 * 750 + 10000]]))


def full_size_shapes():
    arch = Architecture(memory=None, encoders=None)

    def init():
        condition = Condition(
            text=jnp.zeros((1, 4, 4096)),
            text_mask=jnp.ones((1, 4), bool),
            pooled=jnp.zeros((1, 768)),
            image=jnp.zeros((1, 5, 1152)),
        )
        history = empty_history(jnp.zeros((1, 1, 8, 8, 16)), arch.framepack)
        memory = Memory(tokens=jnp.zeros((1, 0, arch.width)), valid=jnp.zeros((1, 0), bool))
        args = (jnp.zeros((1, 9, 8, 8, 16)), jnp.zeros(1), history, condition, memory, jnp.zeros(1))
        return MemoryPack(arch).init(jax.random.key(0), *args, method="prediction")

    return nn.unbox(jax.eval_shape(init))["params"]


def test_parameters_of_the_full_size():
    """docs/backbone.md, section 1: FramePack-F1's count to the last parameter, part by part."""
    shapes = full_size_shapes()
    count = lambda tree: sum(x.size for x in jax.tree.leaves(tree))  # noqa: E731
    assert count(shapes) == 12_874_314_816
    parts = {
        "x_embedder": 199_680,
        "clean_x_embedder": 14_361_600,
        "context_embedder": 309_175_296,
        "image_projection": 38_940_672,
        "time_text_embed": 32_262_144,
        "head": 18_880_512 + 196_672,
    }
    assert {name: count(shapes[name]) for name in parts} == parts
    assert count(shapes["blocks"]["dual_blocks"]) == 20 * 339_831_296
    assert count(shapes["blocks"]["single_blocks"]) == 40 * 141_591_808


def gradient(small, remat):
    """Gradient of one dual and one single block's network, the dots that its program computes, and its arrays in
    the host's memory.
    """
    x_t, history, condition, memory = small_inputs()
    arch = dataclasses.replace(SMALL, remat=remat, dual_blocks=1, single_blocks=1, refiner_blocks=1)
    params = jax.tree.map_with_path(lambda path, x: x[:1] if path[0].key == "blocks" else x, small[0])
    args = to_float32((x_t, TIMESTEP, history, condition, memory, GUIDANCE))

    def loss(params):
        return jnp.square(MemoryPack(arch).apply({"params": params}, *args, method="prediction")).mean()

    lowered = jax.jit(jax.grad(loss)).lower(params)
    traced = equations(jax.make_jaxpr(jax.grad(loss))(params).jaxpr)
    spaces = (x.aval.memory_space for e in traced for x in e.outvars if isinstance(x.aval, jax.core.ShapedArray))
    host = sum(space == jax.memory.Space.Host for space in spaces)
    return lowered.compile()(params), lowered.as_text().count("stablehlo.dot_general"), host


@pytest.fixture(scope="module")
def kept(small):
    return gradient(small, "none")


@pytest.mark.parametrize("remat", ["full", "offload", pytest.param("dots", marks=pytest.mark.slow)])
def test_remat_computes_more_and_changes_no_gradient(small, kept, remat):
    (got, dots, host), (want, fewest, _) = gradient(small, remat), kept
    assert bool(host) == (remat == "offload")
    # `full` and `offload` repeat every product of a block in their backward pass. Attention by plain products repeats
    # its own under every policy, and `dots` keeps what it needs for that.
    assert dots == fewest if remat == "dots" else dots > fewest
    scale = max(float(jnp.abs(g).max()) for g in jax.tree.leaves(want))
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6 * scale)


def test_parameters_may_be_bfloat16(tiny):
    """Converted weights often are: every module casts them to what it computes in."""
    denoiser, batch, params = tiny
    half = jax.tree.map(lambda x: x.astype(jnp.bfloat16), params)

    @jax.jit
    def run(params):
        history, memory = denoiser.start(params, batch.prompts[:, 0], batch.reference)
        segment = batch.segments[:, 0]
        memory = denoiser.update_memory(params, memory, segment)
        condition = denoiser.condition(params, batch.prompts[:, 1], batch.reference)
        return denoiser.velocity(params, segment, jnp.full(2, 0.5), history, condition, memory)

    rounded = jax.tree.map(lambda x: x.astype(jnp.float32), half)
    assert run(half).dtype == jnp.float32
    np.testing.assert_allclose(run(half), run(rounded), atol=1e-5)
