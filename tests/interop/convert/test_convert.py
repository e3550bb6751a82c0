"""The verb `convert`, both ways, on the tiny network."""

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import mpjax
from mpjax.__main__ import main
from mpjax.errors import InputError
from mpjax.interop.checkpoint_files import Checkpoint
from mpjax.interop.convert.exporting import export_run
from mpjax.interop.convert.importing import import_checkpoint
from mpjax.progress import ByteProgress
from mpjax.training.initialize import with_weights
from mpjax.training.loop import train
from mpjax.weights import load_run, read_run
from tests.data.media import moving
from tests.fixtures import tiny_vae
from tests.generation.runs import recallworld_experiment, write_run
from tests.interop.checkpoints import (
    ARCHITECTURE,
    BF16,
    CONFIG,
    F32,
    T2V_LACKS,
    contents,
    tiny_tensors,
    write_checkpoint,
)
from tests.training.runs import ROOT
from tests.training.test_checkpoints import state_at


def quiet(_):
    pass


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """A float32 checkpoint in one file."""
    return write_checkpoint(tmp_path_factory.mktemp("pytorch") / "f1", tiny_tensors())


@pytest.fixture(scope="module")
def converted(source, tmp_path_factory):
    """Its run folder."""
    folder = tmp_path_factory.mktemp("converted") / "run"
    import_checkpoint(source, folder, say=quiet)
    return folder


def values(folder):
    """Tensors of a checkpoint directory, by name."""
    return {name: np.array(tensor.read()) for name, tensor in Checkpoint.open(folder).tensors.items()}


def same(a, b):
    assert a.keys() == b.keys()
    for name, array in a.items():
        assert array.dtype == b[name].dtype and array.tobytes() == b[name].tobytes(), name


# -- There and back ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype, other, shards, index", [(BF16, BF16, 3, True), (F32, BF16, 2, False)])
def test_a_round_trip_gives_the_same_files(tmp_path, dtype, other, shards, index):
    tensors = tiny_tensors(dtype)
    tensors["proj_out.weight"] = tensors["proj_out.weight"].astype(other)
    source = write_checkpoint(tmp_path / "in", tensors, shards=shards, index=index)
    import_checkpoint(source, tmp_path / "run", say=quiet)
    run = read_run(tmp_path / "run")
    assert run.model == dataclasses.replace(ARCHITECTURE, dtype=dtype.name) and run.experiment is None
    assert (run.network.guidance, run.fps, run.height, run.width, run.codec.name) == (10.0, 30.0, 480, 832, "dct")
    assert {leaf.dtype for leaf in jax.tree.leaves(load_run(tmp_path / "run").params)} == {dtype, other}
    export_run(tmp_path / "run", tmp_path / "out", say=quiet)
    before, after = contents(source), contents(tmp_path / "out")
    added = {"mpjax.json"} | (set() if index else {"diffusion_pytorch_model.safetensors.index.json"})
    assert after.keys() - before.keys() == added
    assert all(after[name] == data for name, data in before.items())


def test_types_change_on_the_way_in_and_on_the_way_out(source, tmp_path):
    import_checkpoint(source, tmp_path / "run", dtype=BF16, say=quiet)
    params = load_run(tmp_path / "run").params
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {BF16}
    assert read_run(tmp_path / "run").model.dtype == "bfloat16"
    half = {name: array.astype(BF16) for name, array in tiny_tensors().items()}
    export_run(tmp_path / "run", tmp_path / "half", say=quiet)
    same(values(tmp_path / "half"), half)
    export_run(tmp_path / "run", tmp_path / "whole", dtype=F32, say=quiet)
    same(values(tmp_path / "whole"), {name: array.astype(F32) for name, array in half.items()})


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run of RecallWorld, its export, and the run folder of that."""
    folder = tmp_path_factory.mktemp("trained")
    experiment = recallworld_experiment()
    model = dataclasses.replace(experiment.model, dual_blocks=2)  # in one chunk, unlike layers that were converted
    write_run(folder / "run", dataclasses.replace(experiment, model=model))
    export_run(folder / "run", folder / "out", say=quiet)
    import_checkpoint(folder / "out", folder / "again", say=quiet)
    return folder


def test_a_trained_run_with_its_own_tensors_goes_out_and_comes_back(trained):
    own = Checkpoint.open(trained / "out").files["mpjax.safetensors"]
    rooms = {name.split(".")[1] for name in own}
    assert rooms == {"memorize", "squeeze", "prompt_encoder", "frame_encoder"}
    assert all(name.startswith("mpjax.") for name in own)
    run, again = read_run(trained / "run"), read_run(trained / "again")
    for name in ("network", "codec", "fps", "height", "width"):
        assert getattr(run, name) == getattr(again, name), name
    params, others = load_run(trained / "run").params, load_run(trained / "again").params
    jax.tree.map(np.testing.assert_array_equal, params, others)
    export_run(trained / "again", trained / "out2", say=quiet)
    first, second = contents(trained / "out"), contents(trained / "out2")
    assert first.pop("mpjax.json") != second.pop("mpjax.json")  # which names the run it is from
    assert first == second


# -- Text-to-video -----------------------------------------------------------------------------------------------------


def test_a_text_to_video_checkpoint_needs_the_flag(tmp_path, capsys):
    config = {key: value for key, value in CONFIG.items() if not key.startswith("has_")}
    config["_class_name"] = "HunyuanVideoTransformer3DModel"
    source = write_checkpoint(tmp_path / "t2v", tiny_tensors(without=T2V_LACKS), config=config)
    command = ["convert", f"--input={source}", f"--output={tmp_path / 'run'}"]
    assert main(command) == 2
    assert "10 missing" in (said := capsys.readouterr().err) and "--from-t2v" in said
    assert sorted(path.name for path in tmp_path.iterdir()) == ["t2v"]
    assert main([*command, "--from-t2v"]) == 0
    said = capsys.readouterr().out
    assert "10 tensors that it lacks are initialised" in said
    assert "4 of them begin at random: image_projection." in said
    assert main(["convert", f"--weights={tmp_path / 'run'}", f"--output={tmp_path / 'out'}"]) == 0
    out = values(tmp_path / "out")
    kept = tiny_tensors(without=T2V_LACKS)
    same({name: out[name] for name in kept}, kept)
    written = json.loads((tmp_path / "out" / "config.json").read_text())
    assert written["_class_name"] == "HunyuanVideoFramepackTransformer3DModel" and written["has_clean_x_embedder"]


# -- The VAE -----------------------------------------------------------------------------------------------------------


def test_a_pipeline_takes_its_vae_along(tmp_path):
    write_checkpoint(tmp_path / "in" / "transformer", tiny_tensors())
    tiny_vae.write_folder(tmp_path / "in" / "vae", dtype=np.float16)
    (tmp_path / "in" / "vae" / "notes.txt").write_text("not of the checkpoint")
    (tmp_path / "in" / "model_index.json").write_text("{}")
    import_checkpoint(tmp_path / "in", tmp_path / "run", say=quiet)
    assert json.loads((tmp_path / "run" / "run.json").read_text())["codec"] == {"name": "hunyuan_vae", "weights": "vae"}
    moved = (tmp_path / "run").rename(tmp_path / "moved")
    assert read_run(moved).codec.weights == str(moved / "vae")
    export_run(moved, tmp_path / "out", say=quiet)
    before, after = contents(tmp_path / "in"), contents(tmp_path / "out")
    assert before.keys() - after.keys() == {"vae/notes.txt", "model_index.json"}
    assert after.keys() - before.keys() == {"transformer/mpjax.json"}
    assert all(before[name] == after[name] for name in before.keys() & after.keys())
    (tmp_path / "out" / "vae").rename(tmp_path / "elsewhere")
    with pytest.raises(InputError, match="names a VAE, but there is none beside"):
        import_checkpoint(tmp_path / "out", tmp_path / "again", say=quiet)
    import_checkpoint(tmp_path / "out", tmp_path / "again", vae=tmp_path / "elsewhere", say=quiet)
    assert read_run(tmp_path / "again").codec.weights == str(tmp_path / "again" / "vae")
    assert contents(tmp_path / "again" / "vae") == contents(tmp_path / "elsewhere")


# -- Bad input ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "flags, message",
    [
        (["--height=100"], "--height is 100: give a multiple of 16"),
        (["--width=0"], "--width is 0"),
        (["--fps=0"], "--fps is 0.0"),
        (["--vae=nothing"], "nothing does not exist"),
        (["--sed=1"], "--sed=1 is no flag"),
    ],
)
def test_bad_flags_leave_nothing_behind(source, tmp_path, capsys, flags, message):
    assert main(["convert", f"--input={source}", f"--output={tmp_path / 'run'}", *flags]) == 2
    assert message in capsys.readouterr().err and not list(tmp_path.iterdir())


def test_flags_of_one_direction_are_refused_in_the_other(converted, tmp_path, capsys):
    assert main(["convert", f"--weights={converted}", f"--output={tmp_path / 'out'}", "--from-t2v"]) == 2
    assert "--from-t2v belongs to --input" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["convert", f"--weights={converted}", f"--input={converted}", f"--output={tmp_path / 'out'}"])


def test_the_same_command_again_finds_it_finished_and_another_is_refused(source, converted, tmp_path, capsys):
    before = {str(path): path.stat().st_mtime_ns for path in converted.rglob("*")}
    assert main(["convert", f"--input={source}", f"--output={converted}"]) == 0
    assert capsys.readouterr().out == f"{converted}: finished already\n"
    assert main(["convert", f"--input={source}", f"--output={converted}", "--dtype=bfloat16"]) == 2
    assert "holds something else" in capsys.readouterr().err
    assert {str(path): path.stat().st_mtime_ns for path in converted.rglob("*")} == before
    (tmp_path / "out").mkdir()
    for expected in ("finished", "finished already"):
        assert main(["convert", f"--weights={converted}", f"--output={tmp_path / 'out'}"]) == 0
        assert capsys.readouterr().out.endswith(f"{tmp_path / 'out'}: {expected}\n")
    assert main(["convert", f"--weights={converted}", f"--output={tmp_path / 'out'}", "--dtype=bfloat16"]) == 2
    made = contents(tmp_path / "out")
    assert made.pop("mpjax.json") and made == contents(source)


@pytest.mark.parametrize("direction", ["in", "out"])
def test_what_is_half_written_never_counts(source, converted, tmp_path, monkeypatch, direction):
    calls = []

    def fail(self, count):
        calls.append(count)
        if len(calls) == 9:
            raise KeyboardInterrupt

    def run():
        if direction == "in":
            import_checkpoint(source, tmp_path / "out", say=quiet)
        else:
            export_run(converted, tmp_path / "out", say=quiet)

    (tmp_path / "out.partial").mkdir()  # what a killed call leaves
    (tmp_path / "out.partial" / "rest").touch()
    with monkeypatch.context() as patched:
        patched.setattr(ByteProgress, "add", fail)
        with pytest.raises(BaseException):  # noqa: B017 (Orbax wraps what happens in its thread)
            run()
    assert len(calls) == 9 and not list(tmp_path.iterdir())
    run()
    assert [path.name for path in tmp_path.iterdir()] == ["out"] and not list((tmp_path / "out").glob("rest"))


@pytest.mark.parametrize("flag", ["--weights", "--input"])
def test_the_folder_that_is_converted_is_no_output(tmp_path, capsys, monkeypatch, flag):
    """No advice to remove what one wants to convert."""
    monkeypatch.chdir(tmp_path.parent)
    assert main(["convert", f"{flag}={tmp_path}", f"--output={tmp_path.name}"]) == 2
    said = capsys.readouterr().err
    assert "the folder that is converted: give another one" in said and "remove" not in said


def test_a_folder_that_is_none_is_refused(tmp_path, capsys):
    assert main(["convert", f"--weights={tmp_path}", f"--output={tmp_path / 'out'}"]) == 2
    assert "is no run folder" in capsys.readouterr().err
    assert main(["convert", f"--input={tmp_path}", f"--output={tmp_path / 'out'}"]) == 2
    assert "holds no safetensors file" in capsys.readouterr().err


# -- What one can do with it -------------------------------------------------------------------------------------------


def test_generation_says_what_is_missing(converted, tmp_path, capsys):
    assert main(["generate", f"--weights={converted}", f"--out={tmp_path / 'a.mp4'}"]) == 2
    assert "give --encoders the folder of their weights" in capsys.readouterr().err and not list(tmp_path.iterdir())


def test_converted_weights_generate_from_an_image(trained, capsys):
    folder = trained / "again"
    assert main(["generate", f"--weights={folder}", f"--out={trained / 'a.mp4'}"]) == 2
    assert "no dataset: give --image or --video" in capsys.readouterr().err
    frames = mpjax.load(folder).generate("a toy enters", image=moving(1, 8, 8)[0], seconds=1.25)
    assert frames.shape == (5, 8, 8, 3) and frames.std() > 0


@pytest.mark.parametrize("kind", ["run folder", "directory", "pipeline", "file"])
def test_training_starts_from_them_and_lists_what_is_new(source, converted, tmp_path, kind):
    (tmp_path / "transformer").symlink_to(source)
    file = source / "diffusion_pytorch_model.safetensors"
    path = {"run folder": converted, "directory": source, "pipeline": tmp_path, "file": file}[kind]
    state = state_at(0, head=(3,), memorize=(4,))
    size = {"kernel": jnp.zeros((64, 32)), "bias": jnp.zeros(32)}
    params = {"x_embedder": size, "memorize": state.params["memorize"]}
    said = []
    started = with_weights(state.replace(params=params, ema=params), path, said.append)
    weight = tiny_tensors()["x_embedder.proj.weight"]
    np.testing.assert_array_equal(started.params["x_embedder"]["kernel"], weight.reshape(32, 64).T)
    np.testing.assert_array_equal(started.ema["x_embedder"]["kernel"], weight.reshape(32, 64).T)
    np.testing.assert_array_equal(started.params["memorize"]["kernel"], state.params["memorize"]["kernel"])
    assert said[0] == f"weights of {'update 0 from' if kind == 'run folder' else 'the PyTorch checkpoint'} {path}"
    assert said[1] == "1 new parameters start fresh: memorize/kernel" and said[2].startswith("118 parameters of")


def test_training_starts_from_an_export_with_tensors_of_its_own(trained):
    params = load_run(trained / "run").params
    zeros = jax.tree.map(jnp.zeros_like, params)
    state = state_at(0, head=(3,)).replace(params=zeros, ema=zeros)
    said = []
    jax.tree.map(np.testing.assert_array_equal, with_weights(state, trained / "out", said.append).params, params)
    assert said == [f"weights of the PyTorch checkpoint {trained / 'out'}"]  # nothing is fresh, nothing is left


def test_a_run_is_not_written_over_converted_weights(converted):
    with pytest.raises(InputError, match="holds converted weights: give another --run folder and --init="):
        train(recallworld_experiment(), converted, say=quiet)


def test_weights_that_do_not_fit_leave_no_run_folder(converted, tmp_path):
    """Found by their shapes, before anything is written or computed."""
    with pytest.raises(InputError, match=r"has shape .* this model needs .*: use the same widths"):
        train(recallworld_experiment(), tmp_path / "run", init=converted, say=quiet)
    assert not (tmp_path / "run").exists()


def test_devices_read_their_own_part_only(source, converted):
    """On 4 CPU devices of another process, from either kind of file."""
    environment = {**os.environ, "XLA_FLAGS": "--xla_force_host_platform_device_count=4", "PYTHONPATH": str(ROOT)}
    script = Path(__file__).with_name("sharded_read.py")
    command = [sys.executable, str(script), str(source), str(converted)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    *rows, generated, quantized, kernels = json.loads(done.stdout)
    for row in rows:
        assert row == {"equal": True, "sharded": row["sharded"], "largest_share": 0.25}
        assert row["sharded"] > 50
    for segment in (generated, quantized):
        assert segment["deviation"] > 0.1 and segment["difference"] < 1e-4 * segment["deviation"]
    assert quantized["deviation"] != generated["deviation"]
    assert kernels == {"equal": True, "kernels": 17, "shares": [0.25]}
