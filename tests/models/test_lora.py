"""Low-rank updates: live and folded against each other and against NumPy, one and several."""

import copy

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mpjax.errors import InputError
from mpjax.models import lora
from mpjax.models.layers import Dense
from mpjax.models.lora import Lora
from mpjax.models.memorypack import Denoiser
from mpjax.parameters import merge, parameter_path, pruned
from tests.tiny import perturbed_params, tiny_architecture, tiny_batch

SPEC = Lora(rank=3, alpha=1.5)
EVERYWHERE = Lora(targets=".*", rank=2, alpha=3.0)


def random_adapter(spec, params, seed=0):
    """A and B drawn, with the scales."""
    key = jax.random.key(seed)
    adapter = jax.jit(lambda: merge(lora.init_adapter(spec, key, params), lora.scales(spec, params)))()
    rng = np.random.default_rng(seed)
    draw = lambda x: jnp.asarray(0.2 * rng.normal(size=x.shape), jnp.float32)  # noqa: E731
    return jax.tree.map_with_path(lambda path, x: draw(x) if path[-1].key == "b" else x, adapter)


@pytest.fixture(scope="module")
def network():
    """Two blocks of a kind, scanned and rematerialised: (parameters, function of parameters → velocity)."""
    denoiser = Denoiser(tiny_architecture(dual_blocks=2, single_blocks=2, remat="full"))
    batch = tiny_batch(denoiser.architecture)
    args = batch.first_prompts, batch.reference, batch.segments[:, 0]

    @jax.jit
    def velocity(params):
        return denoiser.module.apply({"params": params}, *args)

    return perturbed_params(denoiser, batch), velocity


def test_live_is_numpy(network):
    """Wherever there is a kernel, scanned or not."""
    params, velocity = network
    adapter = random_adapter(EVERYWHERE, params)
    count = sum(parameter_path(path).endswith("kernel") for path, _ in jax.tree.leaves_with_path(params))
    assert len(list(lora.entries_of(adapter))) == count > 40
    by_hand = copy.deepcopy(jax.device_get(params))
    for path, entry in lora.entries_of(adapter):
        a, b = (np.asarray(entry[name], np.float64) for name in "ab")
        place = by_hand
        for key in path:
            place = place[key]
        place["kernel"] = np.float32(place["kernel"] + 1.5 * (a @ b))  # s = 3 / 2
    live, plain = velocity(merge(params, adapter)), velocity(params)
    np.testing.assert_allclose(live, velocity(by_hand), atol=3e-6, rtol=0)  # values of 2, rounded in two ways
    assert np.abs(live - plain).max() > 0.05


def test_a_fresh_adapter_changes_no_bit(network):
    params, velocity = network
    key = jax.random.key(0)
    fresh = jax.jit(lambda: merge(lora.init_adapter(EVERYWHERE, key, params), lora.scales(EVERYWHERE, params)))()
    assert velocity(merge(params, fresh)).tobytes() == velocity(params).tobytes()
    assert all(np.abs(entry["a"]).min(axis=(-1, -2)).min() > 0 for _, entry in lora.entries_of(fresh))


def test_live_is_folded_for_several_with_weights(network):
    """Of other ranks, targets and scales: together and live, and added to the kernels one by one."""
    params, velocity = network
    other = random_adapter(Lora(targets=r"blocks/dual_blocks/.*/to_q|head/proj_out", rank=5, alpha=2.0), params, seed=1)
    adapter = random_adapter(Lora(targets=r"blocks/.*/to_q|.*/up", rank=3, alpha=1.5), params)
    live = merge(params, lora.combine([(adapter, 0.5), (other, -2.0)]))
    scaled = lambda tree, w: jax.tree.map_with_path(lambda p, x: w * x if p[-1].key == "scale" else x, tree)  # noqa: E731
    folded = lora.fold(jax.tree.map(jnp.copy, params), scaled(adapter, 0.5))
    folded = lora.fold(folded, scaled(other, -2.0))
    np.testing.assert_allclose(velocity(live), velocity(folded), atol=1e-6, rtol=0)
    assert live["blocks"]["dual_blocks"]["qkv"]["to_q"]["lora"]["a"].shape == (2, 16, 8)
    assert np.abs(velocity(live) - velocity(params)).max() > 0.05
    jax.tree.map(np.testing.assert_array_equal, jax.tree.map(jnp.shape, folded), jax.tree.map(jnp.shape, params))


def test_how_it_begins():
    kernel = {"blocks": {"a": {"to_q": {"kernel": jax.ShapeDtypeStruct((3, 100, 50), jnp.float32)}}}}
    a = {}
    for initial in ("kaiming", "normal"):
        spec = Lora(rank=8, initial=initial)
        entry = lora.init_adapter(spec, jax.random.key(0), kernel)["blocks"]["a"]["to_q"]["lora"]
        a[initial] = np.asarray(entry["a"])
        assert a[initial].shape == (3, 100, 8) and entry["b"].shape == (3, 8, 50) and not entry["b"].any()
    np.testing.assert_allclose(a["kaiming"].std(), 0.1 / 3**0.5, rtol=0.05)
    assert 0.099 < np.abs(a["kaiming"]).max() <= 0.1
    np.testing.assert_allclose(a["normal"].std(), 1 / 8, rtol=0.05)
    assert len({layer.tobytes() for layer in a["kaiming"]}) == 3


def test_the_default_targets_are_the_linear_layers_of_the_blocks(network):
    params, _ = network
    shapes = jax.eval_shape(lambda: lora.init_adapter(SPEC, jax.random.key(0), params))
    paths = {"/".join(path) for path, _ in lora.entries_of(shapes)}
    blocks = {
        parameter_path(path).removesuffix("/kernel")
        for path, _ in jax.tree.leaves_with_path(params["blocks"])
        if path[-1].key == "kernel" and "norm" not in parameter_path(path)
    }
    assert paths == {f"blocks/{path}" for path in blocks} and len(paths) == 17


def test_logical_axes_are_those_of_the_kernel():
    kernel = nn.LogicallyPartitioned(jnp.zeros((2, 6, 4)), ("layers", "embed", "heads"))
    params = {"blocks": {"x": {"to_q": {"kernel": kernel}}}}
    entry = lora.init_adapter(SPEC, jax.random.key(0), params)["blocks"]["x"]["to_q"]["lora"]
    assert (entry["a"].names, entry["b"].names) == (("layers", "embed", None), ("layers", None, "heads"))
    assert lora.scales(SPEC, params)["blocks"]["x"]["to_q"]["lora"]["scale"].names == ("layers",)


def test_bfloat16_kernels_stay_so():
    params = {"x": {"kernel": jnp.ones((4, 4), jnp.bfloat16)}}
    adapter = {"x": {"lora": {"a": jnp.ones((4, 1)), "b": jnp.full((1, 4), 0.5), "scale": jnp.ones(())}}}
    assert lora.fold(jax.tree.map(jnp.copy, params), adapter)["x"]["kernel"].dtype == jnp.bfloat16
    x = jnp.ones((1, 4), jnp.bfloat16)
    y = Dense(4, use_bias=False, dtype=jnp.bfloat16).apply({"params": merge(params, adapter)["x"]}, x)
    assert y.dtype == jnp.bfloat16 and float(y[0, 0]) == 6.0  # 4 of the kernel, 4 · 0.5 of the adapter


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"targets": "blocks/("}, "no regular expression"),
        ({"rank": 0}, "rank is 0: it must be at least 1"),
        ({"alpha": float("inf")}, "alpha is inf: it must be above 0"),
        ({"initial": "ones"}, "one of kaiming, normal"),
    ],
)
def test_what_is_refused(fields, said):
    with pytest.raises(InputError, match=said):
        Lora(**fields)


def test_a_target_that_is_no_module():
    with pytest.raises(InputError, match="'to_x', which is no module: modules are x/to_q"):
        lora.init_adapter(Lora(targets="to_x"), jax.random.key(0), {"x": {"to_q": {"kernel": jnp.ones((2, 2))}}})


def test_trees_of_parts():
    whole = {"a": {"x": 1, "y": 2}, "b": {"z": 3}}
    assert merge({"a": {"x": 1}}, {"a": {"y": 2}, "b": {"z": 3}}) == whole
    assert merge({"a": {"x": 1, "y": None}, "b": {"z": None}}, {"a": {"x": None, "y": 2}, "b": {"z": 3}}) == whole
    assert merge(whole, None) == merge(None, whole) == whole
    assert pruned({"a": {"x": None, "y": 2}, "b": {"z": None}}) == {"a": {"y": 2}}
    assert pruned({"a": {"x": None}}) is None
