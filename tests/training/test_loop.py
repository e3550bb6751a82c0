"""Whole runs as processes: whatever interrupts one, the same command ends with the same bits."""

import json
import time

import jax
import numpy as np
import pytest

from mpjax.__main__ import main
from tests.training import runs


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """(config, compilation cache, folder for runs): only the first run compiles."""
    folder = tmp_path_factory.mktemp("runs")
    return runs.write_config(folder), folder / "cache", folder


@pytest.fixture(scope="module")
def whole(home):
    """A run of both stages that nothing interrupted."""
    return finish(home, "whole")


@pytest.fixture(scope="module")
def first_stage(home):
    """A run of stage 1 alone, killed after update 5, of which nothing was saved, and continued; its log at the kill."""
    assert interrupt(home, "first_stage", "log:5", ":one").returncode == -9
    folder = home[2] / "first_stage"
    assert runs.steps(folder) == [3]
    lines = runs.log(folder)
    return finish(home, "first_stage", ":one"), lines


def finish(home, name, argument="", *flags):
    config, cache, folder = home
    done = runs.run(cache, f"{config}{argument}", folder / name, *flags)
    assert done.returncode == 0, done.stderr
    return folder / name


def interrupt(home, name, when, argument=""):
    config, cache, folder = home
    return runs.run(cache, f"{config}{argument}", folder / name, interrupt=when)


def assert_same_run(got, want, step):
    pairs = list(zip(runs.checkpoint(got, step), runs.checkpoint(want, step), strict=True))
    assert len(pairs) > 100
    for (path, a), (other, b) in pairs:
        assert path == other
        np.testing.assert_array_equal(a, b, err_msg=path)
    assert runs.log(got) == runs.log(want)


def test_a_killed_run_makes_the_same_updates_again(first_stage):
    """From update 3 on: the numbers of 4 and 5 come out as they did before the kill, and no line stands twice."""
    folder, lines = first_stage
    assert [line["step"] for line in lines] == [1, 2, 3, 4, 5]
    assert runs.log(folder)[:5] == lines and len(runs.log(folder)) == 6
    assert len({line["train/loss"] for line in runs.log(folder)}) == 6


def test_a_finished_run_returns_at_once(home, first_stage):
    folder, _ = first_stage
    before = (folder / "log.jsonl").read_bytes()
    started = time.monotonic()
    done = runs.run(home[1], f"{home[0]}:one", folder)
    assert done.returncode == 0 and "finished already, 6 updates" in done.stdout
    assert time.monotonic() - started < 60 and (folder / "log.jsonl").read_bytes() == before


def test_an_update_begins_with_its_batch_in_hand(home, first_stage):
    """Else the others, who wait for a process that hangs in reading, would be no further than it."""
    done = interrupt(home, "stuck", "read:3", ":one")
    assert done.returncode == -9 and done.stdout.endswith("began 2\n"), done.stdout


def test_another_experiment_is_refused(home, first_stage, capsys):
    folder, _ = first_stage
    before = (folder / "run.json").read_bytes()
    for flag, words in (
        ("--config.seed=1", "seed=0 (asked for: 1)"),
        ("--config.training.stages.0.curriculum=[(0,2),(3,2)]", "training.stages.0.curriculum.1.1=3 (asked for: 2)"),
        ("--config.model.memory=None", "the field model.memory"),
        ("--init=elsewhere", "--init=None (asked for: elsewhere)"),
    ):
        # What is only looked at is not what tells them apart.
        flags = [flag, "--config.training.log_every=7", "--config.training.samples=1"]
        assert main(["train", f"--config={home[0]}:one", f"--run={folder}", *flags]) == 2
        said = capsys.readouterr().err
        assert f"belongs to another experiment, with {words}: give another" in said.replace("without", "with")
        assert said.count("\n") == 1
    assert (folder / "run.json").read_bytes() == before


def test_a_folder_of_something_else_is_refused(home, tmp_path, capsys):
    (tmp_path / "thesis.tex").write_text("x")
    assert main(["train", f"--config={home[0]}", f"--run={tmp_path}"]) == 2
    assert "is not empty and no run folder" in capsys.readouterr().err
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]


def test_the_run_folder_describes_itself(first_stage):
    folder, _ = first_stage
    stored = json.loads((folder / "run.json").read_text())
    assert stored["codec"]["name"] == "identity" and stored["fps"] == 4 and stored["height"] == stored["width"] == 8
    assert stored["experiment"]["training"]["stages"][0]["steps"] == 6 and stored["init"] is None
    lines = runs.log(folder)
    assert [line["step"] for line in lines] == [1, 2, 3, 4, 5, 6]
    assert {"train/loss", "train/gradient_norm", "train/forwards_per_update"} <= set(lines[0])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("when", "saved"),
    [
        ("log:2", []),  # before anything was saved
        ("begin:3", []),
        ("commit:3", []),  # the first checkpoint is written but not in place
        ("commit:6", [3]),  # the same at the border of the stages
        ("saved:6", [3, 6]),  # between the stages
        ("log:8", [3, 6]),  # inside stage 2
        ("commit:10", [3, 6, 9]),  # the last one
        ("saved:10", [3, 6, 9, 10]),  # complete but not told so
    ],
)
def test_a_killed_run_goes_on_with_the_same_bits(home, whole, when, saved):
    name = when.replace(":", "_")
    assert interrupt(home, name, when).returncode == -9
    folder = home[2] / name
    assert runs.steps(folder) == saved
    finish(home, name)
    assert runs.steps(folder) == [3, 6, 9, 10]
    assert_same_run(folder, whole, 10)


@pytest.mark.slow
def test_killed_again_and_again(home, whole):
    for when in ("log:1", "commit:3", "log:4", "begin:6", "log:7", "saved:9"):
        assert interrupt(home, "often", when).returncode == -9
    finish(home, "often")
    assert_same_run(home[2] / "often", whole, 10)


@pytest.mark.slow
@pytest.mark.parametrize("step", [1, 5])
def test_sigterm_saves_and_leaves_cleanly(home, whole, step):
    """The signal comes when the update's turn to be saved has passed: one more is made, and that is saved."""
    done = interrupt(home, f"term_{step}", f"term:{step}")
    folder = home[2] / f"term_{step}"
    assert done.returncode == 143, done.stderr
    assert f"stopped and saved at update {step + 1} of 10" in done.stdout
    assert runs.steps(folder)[-1] == step + 1
    finish(home, f"term_{step}")
    assert_same_run(folder, whole, 10)


@pytest.mark.slow
def test_sigterm_with_the_last_update_stops_what_comes_after(home):
    done = interrupt(home, "term_last", "term:10")
    assert done.returncode == 143 and "finished at update 10 of 10" in done.stdout
    assert runs.steps(home[2] / "term_last")[-1] == 10


@pytest.mark.slow
@pytest.mark.parametrize(
    ("step", "saved", "words"),
    [(5, [3], "the last good checkpoint is that of update 3"), (2, [], "nothing was saved yet")],
)
def test_a_nan_stops_the_run_before_it_is_saved(home, step, saved, words):
    done = interrupt(home, f"nan_{step}", f"nan:{step}")
    folder = home[2] / f"nan_{step}"
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert "mpjax train: loss nan" in done.stderr and words in done.stderr
    assert runs.steps(folder) == saved
    assert [line["step"] for line in runs.log(folder)] == list(range(1, step))


@pytest.mark.slow
def test_the_head_alone_moves_in_stage_two(whole):
    start, end = dict(runs.checkpoint(whole, 6)), dict(runs.checkpoint(whole, 10))
    moved = {path for path, x in end.items() if path.startswith("state['params']") and (x != start[path]).any()}
    assert moved and all(path.startswith("state['params']['head']") for path in moved)


@pytest.mark.slow
def test_init_starts_from_the_ema_of_another_run(home, whole):
    """Update 1 of a run without learning shows the weights it began with."""
    config, cache, folder = home
    tiny_rate = config.read_text().replace("learning_rate=1e-2", "learning_rate=1e-30")
    (folder / "still.py").write_text(tiny_rate.replace("log_every=1", "log_every=1").replace("every=3", "every=1"))
    done = runs.run(cache, f"{folder / 'still.py'}:one", folder / "still", f"--init={whole}")
    assert done.returncode == 0, done.stderr
    assert f"weights of update 10 from {whole}" in done.stdout
    ema = {path: x for path, x in runs.checkpoint(whole, 10) if path.startswith("ema")}
    after = dict(runs.checkpoint(folder / "still", 1))
    for path, x in ema.items():
        np.testing.assert_array_equal(after[path.replace("ema", "state['params']", 1)], x, err_msg=path)
    assert jax.tree.leaves(ema)
