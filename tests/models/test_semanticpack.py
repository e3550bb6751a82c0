"""Long-term memory: constant size, masks, windows, and the fields that switch its parts."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mpjax.errors import InputError
from mpjax.models.architecture import FramePack
from mpjax.models.memorize import Memorize
from mpjax.models.memory import Memory
from mpjax.models.memorypack import Denoiser
from mpjax.models.semanticpack import SemanticPack, Squeeze
from tests.memories import KINDS, Harness
from tests.models.numpy_network import attend, feed_forward, heads, linear, norm, patch_embed
from tests.tiny import perturbed_params, tiny_architecture, tiny_batch

RNG = np.random.default_rng(0)
SPEC = SemanticPack(patch=(1, 2, 2), depth=1, heads=2)
WIDTH, MLP = 16, 64
SEGMENT = RNG.normal(size=(2, 4, 4, 4, 3))


def f32(tree):
    return jax.tree.map(lambda x: jnp.asarray(x, jnp.float32 if x.dtype == np.float64 else x.dtype), tree)


def random_params(module, *args):
    shapes = jax.eval_shape(module.init, jax.random.key(0), *args)["params"]
    unboxed = jax.tree.map(lambda x: x.value, shapes, is_leaf=lambda x: hasattr(x, "value"))
    return jax.tree.map(lambda x: RNG.normal(size=x.shape) * x.shape[0] ** -0.5, unboxed)


def attention(p, x, source, allowed, count=2):
    q, k, v = (heads(linear(p[name], y), count) for name, y in (("to_q", x), ("to_k", source), ("to_v", source)))
    return linear(p["to_out"], attend(q, k, v, allowed))


def positions(grid):
    rows = []
    for place in np.ndindex(*grid):
        angles = [i * 100.0 ** (-np.arange(8) / 8) for i in place]
        rows.append(np.concatenate([part for a in angles for part in (np.cos(a), np.sin(a))]))
    return np.stack(rows)


@pytest.mark.parametrize("window", [0, 2])
def test_memorize_is_self_attention_inside_windows(window):
    spec = dataclasses.replace(SPEC, window=window)
    module = Memorize(spec, WIDTH, MLP)
    p = random_params(module, f32(SEGMENT))
    x = patch_embed(p["embed"], SEGMENT, spec.patch) + linear(p["positions"], positions((4, 2, 2)))
    frame = np.repeat(np.arange(4), 4)
    same = np.ones((16, 16), bool) if not window else frame[:, None] // window == frame[None] // window
    h = norm(x, p["norm_attention_0"])
    x = x + attention(p["attention_0"], h, h, np.broadcast_to(same, (2, 16, 16)))
    want = x + feed_forward(p["mlp_0"], norm(x, p["norm_mlp_0"]))
    got = module.apply({"params": f32(p)}, f32(SEGMENT))
    np.testing.assert_allclose(got, want, atol=1e-5 * np.abs(want).max())


def test_a_change_in_one_window_stays_there():
    spec = dataclasses.replace(SPEC, window=2, depth=2)
    module = Memorize(spec, WIDTH, MLP)
    params = {"params": f32(random_params(module, f32(SEGMENT)))}
    changed = SEGMENT.copy()
    changed[:, 1] += 1.0
    difference = np.abs(module.apply(params, f32(changed)) - module.apply(params, f32(SEGMENT))).max((0, 2))
    assert (difference[:8] > 1e-4).all() and (difference[8:] == 0).all()


SIZE = Memory(tokens=RNG.normal(size=(2, 6, WIDTH)), valid=np.array([[1, 1, 0, 1, 0, 0], [1, 1, 1, 1, 1, 1]], bool))
QUERY = RNG.normal(size=(2, 4, WIDTH))


def squeezed(p, query, source, valid, residual=True):
    """Squeeze in NumPy, float64."""
    allowed = np.repeat(valid[:, None], query.shape[1], 1)
    x = attention(p["attention"], norm(query, p["norm_query"]), norm(source, p["norm_memory"]), allowed)
    x = x + query if residual else x
    x = x + feed_forward(p["mlp"], norm(x, p["norm_mlp"])) if "mlp" in p else x
    return norm(x, p["norm_out"])


@pytest.mark.parametrize(("residual", "mlp"), [(True, True), (False, True), (True, False), (False, False)])
def test_squeeze_reads_psi_with_the_segment_as_query(residual, mlp):
    module = Squeeze(dataclasses.replace(SPEC, residual=residual, mlp=mlp), MLP)
    p = random_params(module, f32(QUERY), f32(SIZE.tokens))
    assert ("mlp" in p) == mlp
    want = squeezed(p, QUERY, SIZE.tokens, SIZE.valid, residual)
    got = module.apply({"params": f32(p)}, f32(QUERY), f32(SIZE.tokens), SIZE.valid)
    np.testing.assert_allclose(got, want, atol=1e-5 * np.abs(want).max())


def test_invalid_psi_tokens_reach_nothing():
    module = Squeeze(SPEC, MLP)
    params = {"params": f32(random_params(module, f32(QUERY), f32(SIZE.tokens)))}
    other = np.where(SIZE.valid[..., None], SIZE.tokens, 1e4)
    plain, changed = (module.apply(params, f32(QUERY), f32(x), SIZE.valid) for x in (SIZE.tokens, other))
    np.testing.assert_array_equal(plain, changed)


@pytest.mark.parametrize(("patch", "tokens"), [((1, 2, 2), 8), ((2, 4, 4), 1)])
def test_psi_keeps_its_size_and_prompt_padding_stays_invalid(patch, tokens):
    """ψ_0 holds 1 image token and 4 of text; ψ_1 what Memorize emits; both are padded to the larger."""
    arch = tiny_architecture(memory=SemanticPack(patch=patch, depth=1, heads=2))
    denoiser = Denoiser(arch)
    reference, segment = jnp.ones((2, 1, 4, 4, 3)), jnp.ones((2, 2, 4, 4, 3))
    prompts = jnp.array([[5, 6, 7, 0, 0, 0, 0, 0], [5] * 8], jnp.int32)
    params = perturbed_params(denoiser, tiny_batch(denoiser.architecture))
    assert arch.memory.segment_tokens((2, 4, 4)) == tokens
    _, memory = denoiser.start(params, prompts, reference)
    size = max(5, tokens)
    assert memory.tokens.shape == (2, size, 16)
    padding = [False] * (size - 5)
    assert memory.valid.tolist() == [[True] * 3 + [False] * 2 + padding, [True] * 5 + padding]
    assert float(jnp.abs(memory.tokens[:, 5:]).sum()) == 0
    for _ in range(3):
        memory = denoiser.update_memory(params, memory, segment)
        assert memory.tokens.shape == (2, size, 16)
        assert memory.valid.tolist() == [[True] * tokens + [False] * (size - tokens)] * 2


def test_without_a_memory_psi_is_empty():
    denoiser = Denoiser(tiny_architecture(memory=None))
    reference, segment = jnp.ones((1, 1, 4, 4, 3)), jnp.ones((1, 2, 4, 4, 3))
    prompts = jnp.ones((1, 8), jnp.int32)
    params = perturbed_params(denoiser, tiny_batch(denoiser.architecture))
    _, memory = denoiser.start(params, prompts, reference)
    assert memory.tokens.shape == (1, 0, 16)
    assert denoiser.update_memory(params, memory, segment) is memory
    assert not {"memorize", "squeeze"} & set(params)


@pytest.mark.parametrize(("frames", "patch", "window"), [(4, 1, 3), (9, 2, 4), (3, 1, 2)])
def test_windows_that_do_not_divide_a_segment_are_refused(frames, patch, window):
    pack, spec = FramePack(segment_frames=frames), SemanticPack(patch=(patch, 2, 2), heads=2, window=window)
    with pytest.raises(InputError, match="window"):
        tiny_architecture(framepack=pack, memory=spec)
    with pytest.raises(ValueError, match=f"windows of {window} frames"):
        Memorize(spec, WIDTH, MLP).init(jax.random.key(0), jnp.zeros((1, frames, 4, 4, 3)))


def test_a_padded_last_window_is_allowed():
    """9 frames in patches of 2 are 5 patches, the last one padded: 5 windows of 2 frames."""
    spec = SemanticPack(patch=(2, 2, 2), heads=2, window=2, depth=1)
    tiny_architecture(framepack=FramePack(segment_frames=9), memory=spec)
    module, x = Memorize(spec, WIDTH, MLP), RNG.normal(size=(1, 9, 2, 2, 3))
    params = {"params": f32(random_params(module, f32(x)))}
    changed = x.copy()
    changed[:, 8] += 1.0
    difference = np.abs(module.apply(params, f32(changed)) - module.apply(params, f32(x))).max((0, 2))
    assert (difference > 0).tolist() == [False] * 4 + [True]


def test_full_size_memory_has_the_paper_s_token_counts():
    """(2, 4, 4) makes 1.9k tokens of a 480p segment and (1, 4, 4) makes 3.5k, above ψ_0's 1.2k."""
    segment = (FramePack().segment_frames, 60, 104)
    assert SemanticPack(patch=(2, 4, 4)).segment_tokens(segment) == 5 * 15 * 26 == 1950
    assert SemanticPack(patch=(1, 4, 4)).segment_tokens(segment) == 9 * 15 * 26 == 3510


def recurrence(harness, count):
    """ψ_count by hand: tokens and mask of the valid places, in the order of ψ."""
    spec, p = harness.spec, jax.tree.map(lambda x: np.asarray(x, np.float64), harness.params["squeeze"])
    image, text, mask = (np.asarray(x) for x in harness.context(spec.timestep))
    psi, valid = image, np.ones(image.shape[:2], bool)
    if spec.initial != "image":
        psi, valid = np.concatenate([image, text], 1), np.concatenate([valid, mask], 1)
    psi = psi * 0.0 if spec.initial == "zero" else psi.astype(np.float64)
    share = 1 / (1 + np.exp(-p["gate"])) if "gate" in p else 1.0
    for n in range(count):
        visual = harness.memorized(n)
        seen = np.ones(visual.shape[:2], bool)
        if spec.squeeze == "A":
            new = squeezed(p, visual, psi, valid)
            psi, valid = (new if n == 0 else psi + share * (new - psi)), seen
        else:
            if spec.squeeze == "C" and n == 0:
                window = visual[:, : visual.shape[1] // (SEGMENT_FRAMES // spec.window if spec.window else 1)]
                psi, valid = np.concatenate([psi, window], 1), np.concatenate([valid, seen[:, : window.shape[1]]], 1)
            psi = psi + share * (squeezed(p, psi, visual, seen) - psi)
    return psi, valid


SEGMENT_FRAMES = 2
VARIANTS = {name: KINDS[name] for name in KINDS if hasattr(KINDS[name], "squeeze")}
VARIANTS["C_window"] = dataclasses.replace(KINDS["C"], window=1)
VARIANTS["A_late_text"] = dataclasses.replace(KINDS["A"], timestep=0.75)


@pytest.mark.parametrize("count", [0, 1, 3])
@pytest.mark.parametrize("name", VARIANTS)
def test_every_variant_is_its_recurrence(name, count):
    harness = Harness(VARIANTS[name])
    memory = harness.after(count)
    want, valid = recurrence(harness, count)
    n = want.shape[1]
    np.testing.assert_array_equal(memory.valid[:, :n], valid)
    assert not np.asarray(memory.valid[:, n:]).any()
    got = np.asarray(memory.tokens)[:, :n]
    np.testing.assert_allclose(got[valid], want[valid], atol=1e-4)
    tokens, mask = harness.read(memory)
    np.testing.assert_array_equal(tokens, memory.tokens)
    np.testing.assert_array_equal(mask, memory.valid)


@pytest.mark.parametrize(("initial", "by"), [("prompt_and_image", (1, 1)), ("image", (0, 1)), ("zero", (0, 0))])
def test_what_psi_starts_from(initial, by):
    """Which of text and image ψ_2 depends on."""
    harness = Harness(dataclasses.replace(KINDS["A"], initial=initial))
    plain, changed = harness.after(2), {}
    for name in ("text", "image"):
        other = Harness(harness.spec)
        setattr(other, name, getattr(other, name) + 1.0 + jnp.arange(16.0) / 8)
        changed[name] = float(jnp.abs(other.after(2).tokens - plain.tokens).max())
    assert (changed["text"] > 1e-4, changed["image"] > 1e-4) == by
