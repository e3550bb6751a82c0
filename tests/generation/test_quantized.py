"""`generate --quantize`, from the command line and from Python."""

import jax
import numpy as np
import pytest

import mpjax
from mpjax.__main__ import main
from mpjax.errors import InputError
from mpjax.generation.adapters import Adapters
from mpjax.models import lora, quantization
from mpjax.models.quantization import Quantization
from mpjax.parameters import parameter_path
from mpjax.weights import load_run
from tests.generation.runs import recallworld_experiment, write_lora_run, write_run

SPEC = Quantization(format="int8", block=8)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A run, `base`, and one of an adapter beside it, `lora`."""
    folder = tmp_path_factory.mktemp("quantized")
    write_lora_run(folder / "lora", recallworld_experiment(), write_run(folder / "base", recallworld_experiment()))
    return folder


def leaves(params):
    return {parameter_path(path): np.asarray(leaf) for path, leaf in jax.tree.leaves_with_path(params)}


@pytest.mark.parametrize("name", quantization.FORMATS)
def test_what_is_loaded(folder, name):
    spec = Quantization(format=name, block=8)
    plain, eight = (leaves(load_run(folder / "base", quantization=q).params) for q in (None, spec))
    gone = {path.removesuffix("/kernel") for path in plain.keys() - eight.keys()}
    assert len(gone) == 17
    for path in gone:
        for number, layer in enumerate(plain[f"{path}/kernel"]):
            values, scales = quantization.quantize(spec, spec.block_of(layer.shape[0]), layer)
            assert eight[f"{path}/quantized/values"][number].tobytes() == values.tobytes()
            assert eight[f"{path}/quantized/scales"][number].tobytes() == scales.tobytes()
    assert all((eight[path] == plain[path]).all() for path in plain.keys() & eight.keys())


def test_generate(folder, tmp_path, capsys):
    """Frames are near those of the weights as they are; another format is another request."""
    out = tmp_path / "a.mp4"
    command = ["generate", f"--weights={folder / 'base'}", "--seconds=1", "--seed=3", "--least=1", f"--out={out}"]
    assert main([*command, "--quantize=int8:8"]) == 0
    assert main([*command, "--quantize=int8:8"]) == 0
    assert "finished already" in capsys.readouterr().out
    for other in ([], ["--quantize=int8"], ["--quantize=fp8:8"]):
        assert main([*command, *other]) == 2
        assert "generated from another request" in capsys.readouterr().err
    assert main([*command, "--quantize=int4"]) == 2
    assert "--quantize is 'int4': write int8 or fp8" in capsys.readouterr().err


def test_an_adapter_beside_eight_bits_is_live_whatever_is_said(folder):
    run = load_run(folder / "base", quantization=SPEC).run
    said, unsaid = (Adapters.parse([str(folder / "lora")], live).known_to(run).identity for live in (True, False))
    assert said == unsaid


def test_from_python(folder):
    plain, eight = (mpjax.load(folder / "base", quantization=q).generate(seconds=1, seed=3) for q in (None, SPEC))
    assert plain.shape == eight.shape and 0 < np.abs(plain.astype(int) - eight).mean() < 3
    with pytest.raises(InputError, match="'to_x', which is no module"):
        mpjax.load(folder / "base", quantization=Quantization(targets="to_x"))


def test_adapters_are_live(folder):
    """Beside quantised kernels, of the run's own or given; what is folded elsewhere has no room there."""
    own = leaves(load_run(folder / "lora", quantization=SPEC).params)
    adapters = Adapters.parse([str(folder / "lora")], live=False)
    given = leaves(adapters.put_on(load_run(folder / "base", quantization=SPEC)).params)
    entries = list(lora.entries_of(load_run(folder / "lora").params))
    assert own.keys() == given.keys() and len(entries) == 17
    for path, entry in entries:
        place = "/".join(path)
        assert (given[f"{place}/quantized/values"] == own[f"{place}/quantized/values"]).all()
        wanted = 1.5 * np.asarray(entry["a"], np.float64) @ np.asarray(entry["b"], np.float64)
        a, b = (given[f"{place}/lora/{name}"].astype(np.float64) for name in "ab")
        np.testing.assert_allclose(a @ b, wanted, atol=1e-6, rtol=0)
