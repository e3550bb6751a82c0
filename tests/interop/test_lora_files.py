"""LoRA files: names and bytes of every format, updates through fused layers, and the forward pass of PEFT."""

import functools
import json
from pathlib import Path

import jax
import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file

from mpjax.errors import InputError
from mpjax.interop.checkpoint_files import TensorInfo
from mpjax.interop.checkpoint_writer import CheckpointWriter
from mpjax.interop.lora_files import LoraFile, LowRank, read_lora, write_lora
from mpjax.interop.lora_trees import to_adapter, to_layers
from mpjax.interop.transformer_names import linear_layers
from mpjax.models import layers as model_layers
from mpjax.models import lora
from mpjax.parameters import merge
from tests.fixtures.lora_cases import EVERYWHERE, QUERIES, WEIGHTS
from tests.fixtures.transformer_cases import ONE
from tests.interop.checkpoints import write_safetensors
from tests.models.test_transformer_parity import architecture, arguments, parameters, predict

GOLDEN = Path(__file__).parents[1] / "fixtures" / "lora.safetensors"
ARCH = architecture(ONE)
WIDTH = 32


def peft_metadata(adapter):
    return {
        "format": "pt",
        "lora_adapter_metadata": json.dumps({"transformer.r": 4, "transformer.lora_alpha": adapter.alpha}),
    }


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Both adapters of the cases as diffusers writes them."""
    folder = tmp_path_factory.mktemp("lora")
    found = {}
    for adapter in (EVERYWHERE, QUERIES):
        found[adapter.name] = folder / f"{adapter.name}.safetensors"
        write_safetensors(found[adapter.name], adapter.tensors(linear_layers(ARCH)), peft_metadata(adapter))
    return found


def update(layer):
    """scale · up · down in float64."""
    return layer.scale * layer.up.astype(np.float64) @ layer.down.astype(np.float64)


def integers(rng, *shape, dtype=np.float32):
    """Small ones, of whose products no bit is lost."""
    return rng.integers(-4, 5, shape).astype(dtype)


@pytest.fixture
def torch_frequencies(monkeypatch):
    """torch's sinusoid table, as in tests/models/test_transformer_parity.py."""
    frequencies = load_file(GOLDEN.with_name("transformer.safetensors"))["sinusoid frequencies"]
    monkeypatch.setattr(model_layers, "SINUSOID_FREQUENCIES", frequencies)


def test_the_forward_pass_is_that_of_peft(files, torch_frequencies):
    golden = load_file(GOLDEN)
    one, other = (to_adapter(read_lora(files[case.name], ARCH).layers, ARCH) for case in (EVERYWHERE, QUERIES))
    params, args = parameters(ARCH), arguments(ONE)[0]
    forward = jax.jit(functools.partial(predict, ARCH))
    both = lora.combine([(one, WEIGHTS[0]), (other, WEIGHTS[1])])
    np.testing.assert_allclose(forward(merge(params, one), args), golden["everywhere"], atol=1e-5, rtol=0)
    np.testing.assert_allclose(forward(merge(params, both), args), golden["both"], atol=1e-5, rtol=0)
    folded = lora.fold(jax.tree.map(jax.numpy.array, params), both)
    np.testing.assert_allclose(forward(folded, args), golden["both"], atol=1e-5, rtol=0)
    assert np.abs(golden["both"] - golden["everywhere"]).max() > 0.01


def test_diffusers_bytes(files, tmp_path):
    """As read, and through the arrays of the network."""
    for path in files.values():
        file = read_lora(path, ARCH)
        write_lora(tmp_path / "a.safetensors", file, "diffusers", ARCH)
        assert (tmp_path / "a.safetensors").read_bytes() == path.read_bytes()
        layers, strange = to_layers(to_adapter(file.layers, ARCH), ARCH)
        again = LoraFile(layers=layers, order=file.order, metadata=file.metadata)
        if path == files["everywhere"]:  # the other one leaves layers of a stack out, which become zeros
            write_lora(tmp_path / "b.safetensors", again, "diffusers", ARCH)
            assert (tmp_path / "b.safetensors").read_bytes() == path.read_bytes() and not strange


def test_the_order_of_a_file_stays(files, tmp_path):
    """Whoever wrote it."""
    tensors = load_file(files["queries"])
    infos = [TensorInfo(name=name, shape=array.shape, dtype=array.dtype) for name, array in tensors.items()]
    order = {"a.safetensors": sorted(tensors, reverse=True)}
    with CheckpointWriter(tmp_path, infos, order, {}) as writer:
        for name, array in tensors.items():
            writer.write(name, array)
    write_lora(tmp_path / "b.safetensors", read_lora(tmp_path / "a.safetensors", ARCH), "diffusers", ARCH)
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()


@pytest.mark.parametrize(
    ("alpha", "shape"), [(np.float32(3), ()), (np.int64(3), ()), (ml_dtypes.bfloat16(3), (1,))], ids=str
)
def test_musubi_bytes(tmp_path, alpha, shape):
    rng = np.random.default_rng(0)
    dtype = np.dtype({"float32": np.float16, "int64": np.float32, "bfloat16": ml_dtypes.bfloat16}[alpha.dtype.name])
    tensors = {}
    for layer, (fan_out, fan_in) in linear_layers(ARCH).items():
        if layer.startswith(("transformer_blocks", "single")) and "norm" not in layer:
            name = "lora_unet_" + layer.replace(".", "_")
            tensors[f"{name}.lora_down.weight"] = integers(rng, 2, fan_in, dtype=dtype)
            tensors[f"{name}.lora_up.weight"] = integers(rng, fan_out, 2, dtype=dtype)
            tensors[f"{name}.alpha"] = np.reshape(alpha, shape)
    metadata = {"ss_network_module": "networks.lora_framepack", "ss_network_dim": "2"}
    write_safetensors(tmp_path / "a.safetensors", tensors, metadata)
    file = read_lora(tmp_path / "a.safetensors", ARCH)
    write_lora(tmp_path / "b.safetensors", file, "musubi", ARCH)
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()
    write_lora(tmp_path / "c.safetensors", LoraFile(layers=file.layers), "musubi", ARCH)
    write_safetensors(tmp_path / "d.safetensors", tensors)
    assert (tmp_path / "c.safetensors").read_bytes() == (tmp_path / "d.safetensors").read_bytes()  # a new file
    for form in ("diffusers", "hunyuan"):  # there and back: the same updates
        write_lora(tmp_path / "c.safetensors", file, form, ARCH)
        again = read_lora(tmp_path / "c.safetensors", ARCH).layers
        assert again.keys() == file.layers.keys()
        for name, layer in again.items():
            assert (update(layer) == update(file.layers[name])).all(), name
    write_lora(tmp_path / "c.safetensors", file, "diffusers", ARCH)
    back = read_lora(tmp_path / "c.safetensors", ARCH)
    assert all(layer.scale == 1.5 and layer.down.dtype == dtype for layer in back.layers.values())


HUNYUAN = {  # module: (rows of each of its layers, columns, what they are here), at width 32
    "double_blocks.0.img_attn_qkv": ([32] * 3, 32, ["to_q", "to_k", "to_v"]),
    "double_blocks.1.txt_attn_qkv": ([32] * 3, 32, ["add_q_proj", "add_k_proj", "add_v_proj"]),
    "double_blocks.1.txt_attn_proj": ([32], 32, ["to_add_out"]),
    "double_blocks.0.img_mod.linear": ([192], 32, ["norm1.linear"]),
    "double_blocks.0.img_mlp.fc1": ([128], 32, ["ff.net.0.proj"]),
    "double_blocks.0.txt_mlp.fc2": ([32], 128, ["ff_context.net.2"]),
    "single_blocks.1.linear1": ([32, 32, 32, 128], 32, ["to_q", "to_k", "to_v", "proj_mlp"]),
    "single_blocks.1.linear2": ([32], 160, ["proj_out"]),
    "single_blocks.0.modulation.linear": ([96], 32, ["norm.linear"]),
}


@pytest.mark.parametrize("style", ["flat", "transformer.", "diffusion_model."])
def test_fused_layers(tmp_path, style):
    """A shared down, rows of up; HunyuanVideo's names with underscores, or with dots and lora_A."""
    rng = np.random.default_rng(1)
    tensors, expected = {}, {}
    for module, (rows, columns, names) in HUNYUAN.items():
        down, up = integers(rng, 3, columns), integers(rng, sum(rows), 3)
        if style == "flat":
            flat = "lora_unet_" + module.replace(".", "_")
            tensors |= {f"{flat}.lora_down.weight": down, f"{flat}.lora_up.weight": up, f"{flat}.alpha": np.float32(6)}
        else:
            tensors |= {f"{style}{module}.lora_A.weight": down, f"{style}{module}.lora_B.weight": up}
        stack = "transformer_blocks" if module.startswith("double") else "single_transformer_blocks"
        whole = (2.0 if style == "flat" else 1.0) * up @ down
        for name, part in zip(names, np.split(whole, np.cumsum(rows)[:-1]), strict=True):
            attention = "attn." if name.startswith(("to_", "add_")) else ""
            expected[f"{stack}.{module.split('.')[1]}.{attention}{name}"] = part
    path = tmp_path / "a.safetensors"
    write_safetensors(path, tensors)
    file = read_lora(path, ARCH)
    assert file.layers.keys() == expected.keys() and len(expected) == 16
    for name, layer in file.layers.items():
        assert (update(layer) == expected[name]).all(), name
    if style == "flat":
        write_lora(tmp_path / "b.safetensors", file, "hunyuan", ARCH)
        assert (tmp_path / "b.safetensors").read_bytes() == path.read_bytes()


@pytest.mark.parametrize("alphas", [(4.0, 2.0), (4.0, 8.0)], ids=["one scale", "two scales"])
def test_separate_layers_become_one_of_all_their_ranks(tmp_path, alphas):
    """Of ranks 2 and 1; the third has no update."""
    rng = np.random.default_rng(2)
    q, v = (
        LowRank(down=integers(rng, rank, WIDTH), up=integers(rng, WIDTH, rank), alpha=np.asarray(alpha, np.float32))
        for rank, alpha in zip((2, 1), alphas, strict=True)
    )
    path, prefix = tmp_path / "a.safetensors", "transformer_blocks.1.attn."
    write_lora(path, LoraFile(layers={f"{prefix}to_q": q, f"{prefix}to_v": v}), "hunyuan", ARCH)
    written = load_file(path)
    name = "lora_unet_double_blocks_1_img_attn_qkv"
    down, up, alpha = (written.pop(f"{name}.{part}") for part in ("lora_down.weight", "lora_up.weight", "alpha"))
    assert not written and down.shape == (3, WIDTH) and up.shape == (3 * WIDTH, 3)
    whole = float(alpha) / 3 * up.astype(np.float64) @ down
    np.testing.assert_array_equal(whole, np.concatenate([update(q), np.zeros((WIDTH, WIDTH)), update(v)]))
    again = read_lora(path, ARCH).layers
    assert {name: layer.rank for name, layer in again.items()} == {f"{prefix}to_{x}": 3 for x in "qkv"}


def test_layers_of_a_stack_with_ranks_of_their_own():
    rng = np.random.default_rng(3)
    layers = {
        f"single_transformer_blocks.{i}.proj_out": LowRank(
            down=integers(rng, i + 1, 160), up=integers(rng, WIDTH, i + 1), alpha=np.asarray(2.0, np.float32)
        )
        for i in range(2)
    }
    entry = to_adapter(layers, ARCH)["blocks"]["single_blocks"]["proj_out"]["lora"]
    assert entry["a"].shape == (2, 160, 2) and (entry["scale"] == [2.0, 1.0]).all()
    for i, layer in enumerate(layers.values()):
        assert (entry["scale"][i] * (entry["a"][i] @ entry["b"][i]).T == update(layer)).all()


def test_layers_that_others_lack_are_named():
    entry = {"a": np.ones((4, 1)), "b": np.ones((1, 4)), "scale": np.ones(())}
    assert to_layers({"memorize": {"embed": {"lora": entry}}}, ARCH) == ({}, ["memorize/embed"])


LAYER = "transformer.transformer_blocks.0.attn.to_q"
DOWN, UP = np.zeros((2, WIDTH), np.float32), np.zeros((WIDTH, 2), np.float32)


@pytest.mark.parametrize(
    ("tensors", "metadata", "said"),
    [
        ({f"{LAYER}.lora_A.weight": DOWN}, None, "has no up factor"),
        ({f"{LAYER}.lora_A.weight": DOWN, f"{LAYER}.lora_B.weight": UP[:, :1]}, None, r"\[2, 32\] and \[32, 1\]"),
        ({f"{LAYER}.lora_A.weight": DOWN[:, :8], f"{LAYER}.lora_B.weight": UP}, None, r"wants \[rank, 32\]"),
        ({f"{LAYER}x.lora_A.weight": DOWN, f"{LAYER}x.lora_B.weight": UP}, None, "no linear layer of this network"),
        ({"lora_unet_double_blocks_7_img_attn_proj.lora_down.weight": DOWN}, None, "no linear layer of this network"),
        ({"lora_unet_double_blocks_0_img.lora_down.weight": DOWN}, None, "no linear layer of this network"),
        ({f"{LAYER}.lokr_w1": DOWN}, None, "is neither lora_A"),
        ({}, None, "holds no tensor"),
        (
            {f"{LAYER}.lora_A.weight": DOWN, f"{LAYER}.lora_B.weight": UP, f"{LAYER}.alpha": np.ones(2, np.float32)},
            None,
            "it must be one number",
        ),
        (
            {
                f"{LAYER}.lora_A.weight": DOWN,
                f"{LAYER}.lora_B.weight": UP,
                "lora_unet_transformer_blocks_0_attn_to_q.lora_down.weight": DOWN,
                "lora_unet_transformer_blocks_0_attn_to_q.lora_up.weight": UP,
            },
            None,
            "adapts transformer_blocks.0.attn.to_q twice",
        ),
        ({f"{LAYER}.lora_A.weight": DOWN}, {"lora_adapter_metadata": "{"}, "a.safetensors"),
        ({f"{LAYER}.lora_A.weight": DOWN}, {"lora_adapter_metadata": '{"transformer.use_dora": true}'}, "is a DoRA"),
        ({f"{LAYER}.lora_A.weight": DOWN}, {"lora_adapter_metadata": '{"alpha_pattern": {"(": 1}}'}, "is damaged"),
    ],
)
def test_what_is_refused(tmp_path, tensors, metadata, said):
    path = tmp_path / "a.safetensors"
    write_safetensors(path, tensors, metadata)
    with pytest.raises(InputError, match=said) as error:
        read_lora(path, ARCH)
    assert "\n" not in str(error.value)


def test_what_cannot_be_written(files, tmp_path):
    with pytest.raises(InputError, match="no such file"):
        read_lora(tmp_path / "a.safetensors", ARCH)
    file = read_lora(files["everywhere"], ARCH)
    with pytest.raises(InputError, match=r"know layers of blocks alone, not .*: choose diffusers or musubi"):
        write_lora(tmp_path / "a.safetensors", file, "hunyuan", ARCH)
    with pytest.raises(InputError, match="one of diffusers, musubi, hunyuan"):
        write_lora(tmp_path / "a.safetensors", file, "kohya", ARCH)
    assert not list(tmp_path.iterdir())


def test_scales_of_peft(tmp_path):
    """By pattern, by default, and by the square root of the rank."""
    said = {"r": 2, "lora_alpha": 6.0, "alpha_pattern": {"^transformer_blocks.0.attn.to_q": 8.0, "to_v": 1.0}}
    for rslora, expected in ((False, (4.0, 3.0, 0.5)), (True, (8 / 2**0.5, 6 / 2**0.5, 1 / 2**0.5))):
        words = json.dumps({f"transformer.{key}": value for key, value in {**said, "use_rslora": rslora}.items()})
        tensors = {}
        for name in "qkv":
            key = LAYER.replace("to_q", f"to_{name}")
            tensors |= {f"{key}.lora_A.weight": DOWN, f"{key}.lora_B.weight": UP}
        write_safetensors(tmp_path / "a.safetensors", tensors, {"lora_adapter_metadata": words})
        layers = read_lora(tmp_path / "a.safetensors", ARCH).layers
        found = [layers[f"transformer_blocks.0.attn.to_{name}"].scale for name in "qkv"]
        np.testing.assert_allclose(found, expected, rtol=1e-6)


@pytest.mark.parity
def test_what_is_written_is_what_diffusers_loads(files, tmp_path, torch_frequencies):
    """Our file with other ranks and scales by layer, and the file that diffusers makes of it."""
    pytest.importorskip("peft")
    from tests.fixtures import reference_lora, reference_transformer

    layers = dict(read_lora(files["everywhere"], ARCH).layers)
    for number, name in enumerate(list(layers)[:20]):
        rank = 1 + number % 4
        layer = layers[name]
        layers[name] = LowRank(
            down=layer.down[:rank].copy(), up=layer.up[:, :rank].copy(), alpha=np.asarray(2.0 + number % 3, np.float32)
        )
    ours = tmp_path / "pytorch_lora_weights.safetensors"
    write_lora(ours, LoraFile(layers=layers), "diffusers", ARCH)
    model = reference_transformer.build(ONE)
    model.load_lora_adapter(str(tmp_path), prefix="transformer", weight_name=ours.name)
    expected = reference_lora.output(model)
    adapter = to_adapter(layers, ARCH)
    output = jax.jit(functools.partial(predict, ARCH))(merge(parameters(ARCH), adapter), arguments(ONE)[0])
    np.testing.assert_allclose(output, expected, atol=1e-5, rtol=0)
    model.save_lora_adapter(str(tmp_path / "theirs"), adapter_name="default_0")
    theirs = next((tmp_path / "theirs").iterdir())
    file = read_lora(theirs, ARCH)
    assert file.layers.keys() == layers.keys()
    for name, layer in file.layers.items():
        np.testing.assert_allclose(update(layer), update(layers[name]), rtol=1e-6, atol=1e-9, err_msg=name)
