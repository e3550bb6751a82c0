"""The transformer against diffusers 0.42.1 `HunyuanVideoFramepackTransformer3DModel`: same weights, same inputs.

The golden file holds what `tests/fixtures/reference_transformer.py` computed; weights and inputs are drawn anew here.
The tests marked `parity` run diffusers itself and compare every entry.
"""

import functools
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file

from mpjax.interop.transformer_names import transformer_entries
from mpjax.models import layers
from mpjax.models.architecture import Architecture, FramePack
from mpjax.models.encoders import Condition
from mpjax.models.framepack import History
from mpjax.models.memory import Memory
from mpjax.models.memorypack import Denoiser
from mpjax.models.mmdit import DualBlock, SingleBlock
from tests.fixtures import seeded
from tests.fixtures.transformer_cases import INVERTED, MEDIUM_CASE, ONE, RAGGED
from tests.interop.trees import to_tensors, to_tree

GOLDEN = Path(__file__).parents[1] / "fixtures" / "transformer.safetensors"


@pytest.fixture(scope="module")
def golden():
    return load_file(GOLDEN)


@pytest.fixture
def torch_frequencies(golden, monkeypatch):
    """torch's sinusoid table, whose last bits differ from NumPy's: at 10,000 that moves an angle by up to 1e-3."""
    monkeypatch.setattr(layers, "SINUSOID_FREQUENCIES", golden["sinusoid frequencies"])


def architecture(case):
    size = case.size
    return Architecture(
        heads=size.heads,
        head_dim=size.head_dim,
        dual_blocks=size.dual,
        single_blocks=size.single,
        refiner_blocks=size.refiner,
        text_width=size.text,
        pooled_width=size.pooled,
        image_width=size.image,
        rope_axes=size.rope,
        framepack=FramePack(segment_frames=case.frames, rope_layout=case.layout),
        memory=None,
        encoders=None,
        dtype="float32",
        remat="none",
    )


@functools.cache
def parameters(arch):
    entries = transformer_entries(arch)
    tensors = seeded.weights({name: entry.shape for entry in entries for name in entry.names})
    return to_tree(entries, tensors)


def arguments(case):
    """Arguments of `MemoryPack.prediction` and the target of the loss."""
    inputs = case.inputs()
    batch = case.batch
    rates = ("1x", "2x", "4x") if case.layout == "framepack_f0" else ("4x", "2x", "1x")
    history = History(
        reference=inputs["start"],
        frames=np.concatenate([inputs[rate] for rate in rates], 1),
        segments=np.int32(1 if case.padding else 0),
        total=np.int32(case.padding + 2 if case.padding else 0),
    )
    condition = Condition(text=inputs["text"], text_mask=inputs["mask"], pooled=inputs["pooled"], image=inputs["image"])
    width = case.size.heads * case.size.head_dim
    memory = Memory(tokens=np.zeros((batch, 0, width), np.float32), valid=np.zeros((batch, 0), bool))
    args = (inputs["noisy"], inputs["timestep"], history, condition, memory, inputs["guidance"])
    return jax.tree.map(jnp.asarray, args), jnp.asarray(inputs["target"])


def predict(arch, params, args):
    return Denoiser(arch).module.apply({"params": params}, *args, method="prediction")


def streams(arch, params, args):
    """The latents after each block, by diffusers' name: the scanned stacks, one layer at a time."""
    inputs = Denoiser(arch).module.apply({"params": params}, *args, method="embed")
    temb, table, n = inputs.temb, inputs.table, inputs.latents.shape[1]
    mask = jnp.concatenate([jnp.ones((inputs.latents.shape[0], n), bool), inputs.context_mask], 1)
    found = {}

    @jax.jit
    def dual(params, both):
        return DualBlock(arch.heads, arch.mlp_width).apply({"params": params}, both, temb, table, mask)[0]

    @jax.jit
    def single(params, both):
        return SingleBlock(arch.heads, arch.mlp_width).apply({"params": params}, both, temb, table, mask)[0]

    def layer(stack, number):
        return jax.tree.map(lambda leaf: leaf[number], params["blocks"][stack])

    both = (inputs.latents, inputs.context)
    for number in range(arch.dual_blocks):
        both = dual(layer("dual_blocks", number), both)
        found[f"transformer_blocks.{number}"] = both[0]
    z = jnp.concatenate(both, 1)
    for number in range(arch.single_blocks):
        z = single(layer("single_blocks", number), z)
        found[f"single_transformer_blocks.{number}"] = z[:, :n]
    return found


def loss_and_gradients(arch, params, args, target):
    def loss(params):
        return jnp.mean(jnp.square(predict(arch, params, args) - target))

    value, gradients = jax.jit(jax.value_and_grad(loss))(params)
    found = to_tensors(transformer_entries(arch), gradients)
    return {"loss": np.asarray(value)[None]} | {f"gradient {name}": array for name, array in found.items()}


@pytest.mark.parametrize("case", [ONE, RAGGED, INVERTED], ids=lambda case: case.name)
def test_output(case, golden, torch_frequencies):
    arch = architecture(case)
    output = jax.jit(functools.partial(predict, arch))(parameters(arch), arguments(case)[0])
    np.testing.assert_allclose(np.asarray(output), golden[f"{case.name} output"], atol=1e-6, rtol=0)


def test_output_with_our_own_sinusoids(golden):
    arch = architecture(ONE)
    output = jax.jit(functools.partial(predict, arch))(parameters(arch), arguments(ONE)[0])
    np.testing.assert_allclose(np.asarray(output), golden["one output"], atol=2e-4, rtol=0)


@pytest.mark.parametrize("case", [ONE, RAGGED, INVERTED], ids=lambda case: case.name)
def test_streams(case, golden, torch_frequencies):
    arch = architecture(case)
    found = streams(arch, parameters(arch), arguments(case)[0])
    assert len(found) == 4
    for name, array in found.items():
        key = f"{case.name} {name}"
        kept = seeded.picked(key, np.asarray(array))
        np.testing.assert_allclose(kept[1:], golden[key][1:], atol=1e-5, rtol=0, err_msg=name)
        np.testing.assert_allclose(kept[0], golden[key][0], rtol=1e-6, err_msg=name)


@pytest.mark.parametrize("case", [ONE, RAGGED], ids=lambda case: case.name)
def test_loss_and_gradients(case, golden, torch_frequencies):
    arch = architecture(case)
    found = loss_and_gradients(arch, parameters(arch), *arguments(case))
    np.testing.assert_allclose(found.pop("loss"), golden[f"{case.name} loss"], rtol=1e-6)
    assert len(found) == 166
    for name, array in found.items():
        key = f"{case.name} {name}"
        kept = seeded.picked(key, array)
        np.testing.assert_allclose(kept[1:], golden[key][1:], atol=1e-5, rtol=0, err_msg=name)
        np.testing.assert_allclose(kept[0], golden[key][0], rtol=1e-4, atol=1e-5, err_msg=name)


@pytest.mark.slow
def test_medium(golden, torch_frequencies):
    """270 million parameters, 849 tokens, heads of full size."""
    arch = architecture(MEDIUM_CASE)
    params, (args, _) = parameters(arch), arguments(MEDIUM_CASE)
    output = jax.jit(functools.partial(predict, arch))(params, args)
    np.testing.assert_allclose(np.asarray(output), golden["medium output"], atol=5e-5, rtol=0)


@pytest.mark.parity
@pytest.mark.parametrize("case", [ONE, RAGGED], ids=lambda case: case.name)
def test_every_entry(case, torch_frequencies):
    pytest.importorskip("diffusers")
    from tests.fixtures import reference_transformer

    expected = reference_transformer.run(case, gradients=True)
    arch = architecture(case)
    params, (args, target) = parameters(arch), arguments(case)
    found = streams(arch, params, args) | loss_and_gradients(arch, params, args, target)
    found["output"] = predict(arch, params, args)
    assert found.keys() == expected.keys() and len(found) == 172
    for name, array in found.items():
        np.testing.assert_allclose(np.asarray(array), expected[name], atol=1e-5, rtol=0, err_msg=name)
