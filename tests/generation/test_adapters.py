"""`generate --lora` and `convert --lora-format`: files and runs, folded or live, from the command line."""

import dataclasses

import jax
import numpy as np
import pytest

import mpjax
from mpjax.__main__ import main
from mpjax.errors import InputError
from mpjax.generation.adapters import Adapters, ChosenLora
from mpjax.interop.lora_files import read_lora
from mpjax.models import lora
from mpjax.parameters import parameter_path
from mpjax.weights import load_run, read_run
from tests.generation.runs import recallworld_experiment, write_lora_run, write_run


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A base, an adapter trained beside it, and that as musubi's and diffusers' file."""
    folder = tmp_path_factory.mktemp("adapters")
    whole = recallworld_experiment()
    plain = dataclasses.replace(whole, model=dataclasses.replace(whole.model, memory=None))
    base = write_run(folder / "base", plain)
    write_lora_run(folder / "lora", plain, base)
    for form in ("musubi", "diffusers"):
        output = f"--output={folder / form}.safetensors"
        assert main(["convert", f"--weights={folder / 'lora'}", f"--lora-format={form}", output]) == 0
    return folder


def kernels(params):
    return {
        parameter_path(path): np.asarray(leaf)
        for path, leaf in jax.tree.leaves_with_path(params)
        if path[-1].key == "kernel"
    }


@pytest.mark.parametrize("name", ["lora", "musubi.safetensors", "diffusers.safetensors"])
def test_every_way_to_give_it(runs, name):
    """The run, read as a whole network, is the truth: s A B beside each kernel."""
    whole = load_run(runs / "lora").params
    folded = Adapters.parse([f"{runs / name}:0.5"], False).put_on(load_run(runs / "base")).params
    plain, changed = kernels(load_run(runs / "base").params), kernels(folded)
    entries = {"/".join(path): entry for path, entry in lora.entries_of(whole)}
    assert len(entries) > 10
    for path, kernel in plain.items():
        expected = np.asarray(kernel, np.float64)
        if entry := entries.get(path.removesuffix("/kernel")):
            a, b = (np.asarray(entry[key], np.float64) for key in "ab")
            expected = expected + 0.5 * 1.5 * a @ b  # alpha 3, rank 2
            assert np.abs(expected - kernel).max() > 1e-3
        np.testing.assert_allclose(changed[path], expected, atol=1e-6, rtol=0)
    assert not list(lora.entries_of(folded))


def test_live_on_top_of_a_run_of_adapters(runs):
    """The adapter of the weights themselves stays, and the others come beside it."""
    trained = Adapters.parse([f"{runs / 'musubi.safetensors'}:2", str(runs / "lora")], True).put_on(
        load_run(runs / "lora")
    )
    for path, entry in lora.entries_of(trained.params):
        own = next(e for p, e in lora.entries_of(load_run(runs / "lora").params) if p == path)
        a, b = (np.asarray(own[key], np.float64) for key in "ab")
        together = np.asarray(entry["a"], np.float64) @ np.asarray(entry["b"], np.float64)
        np.testing.assert_allclose(together, 4 * 1.5 * a @ b, atol=1e-5)


def generate(runs, out, *flags, weights="base"):
    fixed = ["--seconds=1", "--seed=3", "--least=1", f"--out={out}"]
    return main(["generate", f"--weights={runs / weights}", *fixed, *flags])


def test_generate(runs, tmp_path, capsys):
    """The adapter changes the video, live or folded alike; another one is another request."""
    flag = f"--lora={runs / 'diffusers.safetensors'}"
    assert generate(runs, tmp_path / "a.mp4", flag) == 0
    assert generate(runs, tmp_path / "a.mp4", flag) == 0
    assert "finished already" in capsys.readouterr().out
    for other in ([], [f"{flag}:0.5"], [flag, "--lora-live"], [f"--lora={runs / 'musubi.safetensors'}"]):
        assert generate(runs, tmp_path / "a.mp4", *other) == 2
        assert "generated from another request" in capsys.readouterr().err


def test_from_python(runs):
    """Folded, and live: that both give one velocity, tests/models/test_lora.py shows."""
    chosen, plain = [str(runs / "lora")], kernels(load_run(runs / "base").params)
    folded, live = (mpjax.load(runs / "base", lora=chosen, lora_live=live) for live in (False, True))
    own, beside = kernels(folded._rollout._weights()), kernels(live._rollout._weights())
    changed = {path for path, kernel in own.items() if (kernel != plain[path]).any()}
    entries = {"/".join((*path, "kernel")) for path, _ in lora.entries_of(live._rollout._weights())}
    assert changed == entries and all((beside[path] == kernel).all() for path, kernel in plain.items())


def test_from_one_format_to_another(runs, tmp_path):
    """Through HunyuanVideo's fused layers and back: the same updates."""
    source = runs / "musubi.safetensors"
    same, fused, back = (tmp_path / f"{name}.safetensors" for name in ("same", "fused", "back"))
    for given, form, output in ((source, "musubi", same), (source, "hunyuan", fused), (fused, "musubi", back)):
        flags = [f"--weights={runs / 'base'}", f"--lora={given}", f"--lora-format={form}", f"--output={output}"]
        assert main(["convert", *flags]) == 0
    assert same.read_bytes() == source.read_bytes()
    architecture = read_run(runs / "base").model
    before, after = (read_lora(path, architecture).layers for path in (source, back))
    assert before.keys() == after.keys()
    for name, layer in before.items():
        want, got = (x.scale * x.up.astype(np.float64) @ x.down.astype(np.float64) for x in (layer, after[name]))
        np.testing.assert_allclose(got, want, atol=1e-7, rtol=0, err_msg=name)


def test_how_it_is_written():
    parse = ChosenLora.parse
    assert (str(parse("a.safetensors").path), parse("a.safetensors").weight) == ("a.safetensors", 1.0)
    assert (str(parse("a.safetensors:-0.5").path), parse("a.safetensors:-0.5").weight) == ("a.safetensors", -0.5)
    assert str(parse("c:a.safetensors").path) == "c:a.safetensors"


def test_what_is_refused(runs, tmp_path, capsys):
    def said(status):
        assert status == 2
        return capsys.readouterr().err

    out = tmp_path / "a.mp4"
    assert "no such file" in said(generate(runs, out, "--lora=nowhere.safetensors"))
    assert "has no effect without --lora" in said(generate(runs, out, "--lora-live"))
    assert "the weight of a is nan" in said(generate(runs, out, "--lora=a:nan"))
    assert "is no run of adapters" in said(generate(runs, out, f"--lora={runs / 'base'}"))
    run = read_run(runs / "base")
    narrow = dataclasses.replace(run.network, model=dataclasses.replace(run.model, mlp_ratio=2.0))
    with pytest.raises(InputError, match="that is not that of"):
        Adapters.parse([str(runs / "lora")], False).known_to(dataclasses.replace(run, network=narrow))
    file = f"--output={tmp_path / 'a.safetensors'}"

    def convert(*flags):
        return said(main(["convert", *flags]))

    base, own, musubi = f"--weights={runs / 'base'}", f"--weights={runs / 'lora'}", "--lora-format=musubi"
    assert "is no run of adapters" in convert(base, musubi, file)
    assert "add --lora-format" in convert(own, file)
    assert "add --lora-format" in convert(base, "--lora=a.safetensors", file)
    assert "leave one of them out" in convert(own, musubi, "--dtype=bfloat16", file)
    assert "ends in .safetensors" in convert(own, musubi, f"--output={tmp_path / 'a'}")
    assert "belong to --weights" in convert(f"--input={runs}", musubi, file)
    assert not list(tmp_path.iterdir())
