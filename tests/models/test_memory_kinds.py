"""What every kind of long-term memory promises, whatever it keeps."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mpjax.errors import InputError
from mpjax.interop.transformer_names import transformer_entries
from mpjax.models.bank_memory import LongWindow, Retrieval
from mpjax.models.segment_memory import FirstSegment, MeanPool
from mpjax.models.semanticpack import SemanticPack
from mpjax.parallel.rules import spec
from tests.memories import KINDS, MLP, SEGMENT, WIDTH, Harness
from tests.tiny import tiny_architecture

# Image 1 token, prompt 4, a segment 8; (tokens held, tokens read).
SIZES = {
    "A": (8, 8),
    "A_gate": (8, 8),
    "A_zero": (8, 8),
    "B": (5, 5),
    "B_image_gate": (1, 1),
    "C": (13, 13),
    "C_gate": (13, 13),
    "mean_pool": (8, 8),
    "first_segment": (8, 8),
    "retrieval": (24, 16),
    "long_window": (24, 24),
}


@pytest.mark.parametrize("name", KINDS)
def test_psi_has_one_size_and_type_for_ever(name):
    harness, (held, read) = Harness(KINDS[name]), SIZES[name]
    assert {"memorize"} < set(harness.params) <= {"memorize", "squeeze", "recall"}
    start = harness.start()
    context = 1 if "image" in name else 5
    assert start.tokens.shape == (2, held, WIDTH) and KINDS[name].size(SEGMENT, context) == held
    for count in (0, 1, 5):
        memory = harness.after(count)
        assert int(memory.updates) == count
        assert jax.tree.map(lambda x: (x.shape, x.dtype), memory) == jax.tree.map(lambda x: (x.shape, x.dtype), start)
        tokens, valid = harness.read(memory)
        assert tokens.shape == (2, read, WIDTH) and valid.shape == (2, read)
        assert tokens.dtype == np.float32
        assert np.isfinite(tokens).all() and valid.any(1).all() == (count > 0 or "squeeze" in harness.params)


@pytest.mark.parametrize("name", KINDS)
def test_psi_stays_float32_where_the_network_computes_in_bfloat16(name):
    harness = Harness(KINDS[name])
    half = KINDS[name].module(WIDTH, MLP, jnp.bfloat16)

    def update(memory):
        return half.apply({"params": harness.params}, memory, harness.segments[0], method="update")

    for memory in (harness.start(), harness.after(1)):
        after = jax.eval_shape(update, memory)
        assert jax.tree.map(lambda x: x.dtype, after) == jax.tree.map(lambda x: x.dtype, memory)


@pytest.mark.parametrize("name", ["C_gate", "mean_pool", "retrieval", "long_window"])
def test_parameters_name_their_axes_and_lie_beside_a_checkpoint_s(name):
    """Every array is sharded by the table, and goes into a checkpoint under its own path."""
    arch = tiny_architecture(memory=KINDS[name])
    module = arch.memory.module(arch.width, arch.mlp_width, jnp.float32)

    def context(t):
        return jnp.zeros((1, 1, 16)), jnp.zeros((1, 4, 16)), jnp.ones((1, 4), bool)

    def everything(module):
        memory = module.update(module.start(1, context, SEGMENT), jnp.zeros((1, *SEGMENT, 3)))
        return module.read(memory, jnp.zeros((1, 10)), jnp.zeros((1, 3, 14)))

    boxed = jax.eval_shape(lambda key: module.init(key, method=everything), jax.random.key(0))["params"]
    leaves = jax.tree.leaves(boxed, is_leaf=lambda x: isinstance(x, nn.LogicallyPartitioned))
    for leaf in leaves:
        assert len(spec(leaf.names)) == len(leaf.value.shape)
        assert len(leaf.value.shape) == 1 or "embed" in leaf.names or "heads" in leaf.names
    entries = {entry.path: entry for entry in transformer_entries(arch)}
    own = [path for path in entries if path[0] in boxed]
    assert len(own) == len(leaves)
    assert all(entries[path].names == ("mpjax." + ".".join(path),) for path in own)


@pytest.mark.parametrize("name", KINDS)
def test_what_is_invalid_in_psi_reaches_no_valid_token(name):
    harness = Harness(KINDS[name])
    for count in (0, 1, 2):
        memory = harness.after(count)
        spoilt = memory.replace(tokens=jnp.where(memory.valid[..., None], memory.tokens, 50.0))
        assert bool((spoilt.tokens != memory.tokens).any()) or bool(memory.valid.all())
        pairs = [(memory, spoilt), tuple(harness.update(x, harness.segments[5]) for x in (memory, spoilt))]
        for plain, changed in pairs:
            (tokens, valid), (others, still) = harness.read(plain), harness.read(changed)
            np.testing.assert_array_equal(valid, still)
            np.testing.assert_allclose(tokens[valid], others[valid], atol=1e-6)


@pytest.mark.parametrize(
    "patch", [(4, 4, 8), (2, 8, 8), (4, 4, 4), (2, 4, 4), (1, 4, 4), (4, 2, 2), (1, 8, 4), (4, 8, 2)]
)
def test_two_to_sixteen_tokens_of_four_frames_of_eight_by_eight(patch):
    """Also below the transformer's own patch of 4."""
    pack = SemanticPack(patch=patch, depth=1, heads=2)
    tokens = (4 // patch[0]) * (8 // patch[1]) * (8 // patch[2])
    assert pack.segment_tokens((4, 8, 8)) == tokens and 2 <= tokens <= 16
    arch = tiny_architecture(memory=pack, patch=4)
    module = arch.memory.module(arch.width, arch.mlp_width, jnp.float32)

    def memorized(segment):
        return module.init_with_output(jax.random.key(0), segment, method=lambda m, x: m.memorize(x))[0]

    segment = jax.ShapeDtypeStruct((1, 4, 8, 8, 3), jnp.float32)
    assert jax.eval_shape(memorized, segment).shape == (1, tokens, 16)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: SemanticPack(squeeze="D"), "squeeze is 'D': it must be one of A, B, C"),
        (lambda: SemanticPack(initial="text"), "initial is 'text': it must be one of prompt_and_image, image, zero"),
        (lambda: SemanticPack(gate="on"), "gate is 'on': it must be one of none, scalar, channel"),
        (lambda: Retrieval(segments=2, top_k=3), "top_k is 3: it must lie between 1 and segments = 2"),
        (lambda: Retrieval(top_k=0), "top_k is 0"),
        (lambda: LongWindow(segments=0), "segments is 0: the bank must keep at least 1"),
        (lambda: MeanPool(heads=0), "heads 0"),
        (lambda: tiny_architecture(memory=FirstSegment(heads=3)), r"memory\.heads is 3: it must divide the width 16"),
    ],
)
def test_bad_fields_are_refused(make, said):
    with pytest.raises(InputError, match=said):
        make()
