"""`mpjax bench`: what it refuses before any compute, and its record without a rival."""

import json
import sys

import pytest

from benchmarks.side_by_side import raced
from benchmarks.side_by_side.request import Request
from benchmarks.side_by_side.table import lines_of_case
from benchmarks.side_by_side.workload import MEDIUM, of_config
from mpjax.__main__ import main
from mpjax.models.flops import velocity_flops

SMOKE = "--config=configs/framepack_f1_13b.py:smoke"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["forward", "--rival=/nowhere/python"], "--rival is /nowhere/python, which is no program"),
        (["forwards"], "case 'forwards' is unknown: give some of forward, gradient"),
        (["forward", "--rounds=5"], "--rounds is 5: give at least 6"),
        (["forward", "--threads=0"], "--threads is 0: this process has 1 to"),
        (["forward", "--threads=9999"], "--threads is 9999: this process has 1 to"),
        (["forward", "--config.seed=1"], "--config.seed=1 is no flag of this command"),
        (["forward", "--scratch=/nowhere"], "--scratch is /nowhere, which is no folder"),
        (["forward", "--out=/dev/null/a.json"], "cannot be written"),
        (["forward", "--out=a.md"], "--out is a.md: give a file that ends in .json"),
        (["train_step", "length", "data", "--threads=1"], "--threads has no effect on train_step, length, data"),
        (["length", "data", "--rounds=9"], "--rounds has no effect on length, data"),
        (["train_step", "length", f"--rival={sys.executable}"], "--rival has no effect on train_step, length"),
        (["data", f"--rival={sys.executable}", "--variant=eager"], "--variant has no effect on data"),
        (["forward", "--variant=eager"], "--variant is of a rival, and there is none"),
        (["forward", "--weights=run"], "--weights has no effect on forward"),
        (["forward", "--segments=600"], "--segments has no effect on forward"),
        (["vae_decode", "vae_encode", SMOKE], "--config has no effect on vae_decode, vae_encode: leave it out"),
        (["train_step", "--scratch=/"], "(forward, gradient, segment, vae_decode, vae_encode, data)"),
        (["forward", "length"], "give --weights a run folder"),
        (["forward", "length", "--weights=/nowhere"], "/nowhere is no run folder"),
        (["forward", "train_step", "--config=none.py"], "config file none.py does not exist"),
        (["forward", "data", "--config=configs/clips_tiny.py:smoke"], "reads no clips with embeddings"),
        (["data", SMOKE, "--config.training.batch_size=4"], "training.batch_size=4 has no effect"),
        (
            ["forward", "gradient", SMOKE, "--config.model.remat=offload", f"--rival={sys.executable}"],
            "has remat 'offload', which the rival has not",
        ),
    ],
)
def test_bad_input_is_one_sentence(tmp_path, capsys, arguments, said):
    assert main(["bench", f"--out={tmp_path / 'a.json'}", *arguments]) == 2
    printed = capsys.readouterr()
    assert printed.err.startswith("mpjax bench: ") and said in printed.err and printed.err.count("\n") == 1
    assert list(tmp_path.iterdir()) == [] and printed.out == ""


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("exit 7", "diffusers eager failed at 'load': it ended with status 7"),
        (f'exec {sys.executable} -S "$@"', "give --rival a Python that has torch, diffusers and accelerate\n"),
    ],
)
def test_a_rival_without_its_libraries(tmp_path, capsys, script, said):
    rival = tmp_path / "python"
    rival.write_text(f"#!/bin/sh\n{script}\n")
    rival.chmod(0o755)
    assert main(["bench", "forward", SMOKE, f"--rival={rival}", f"--out={tmp_path / 'a.json'}"]) == 2
    printed = capsys.readouterr()
    assert said in printed.err and "ready" not in printed.out  # and nothing was compiled for it
    assert list(tmp_path.iterdir()) == [rival]


@pytest.mark.parametrize("remat", ["none", "full", "dots", "offload"])
def test_a_gradient_says_what_is_computed_anew(tmp_path, remat):
    overrides = (f"--config.model.remat={remat}",)
    request = Request(config=SMOKE.partition("=")[2], overrides=overrides)
    task = raced.gradient(request, tmp_path)
    assert task.sizes["remat"] == task.job["remat"] == remat
    assert "remat" not in raced.forward(request, tmp_path).sizes


def test_the_medium_network():
    """What the README's numbers are of: 768 wide, 849 tokens."""
    assert MEDIUM.architecture.width == 768 and MEDIUM.architecture.mlp_width == 3072
    assert MEDIUM.tokens.latents + MEDIUM.tokens.context == 849


def test_without_a_rival_we_are_measured_alone(tmp_path, capsys):
    out = tmp_path / "new" / "a.json"
    arguments = ["bench", "forward", SMOKE, f"--out={out}", "--rounds=6", "--threads=1"]
    assert main(arguments) == 0, capsys.readouterr()
    record = json.loads(out.read_text())
    assert record["command"] == "python -m mpjax " + " ".join(arguments)
    found = record["cases"]["forward"]
    workload = of_config(SMOKE.partition("=")[2], [])
    assert found["flops"] == sum(velocity_flops(workload.architecture, workload.tokens).values())
    assert found["sizes"]["latents"] == [9, 4, 6, 16] and found["sizes"]["tokens"]["text"] == 512
    assert list(found["sides"]) == ["mpjax"] and len(found["cores"]) == 1
    row, rounds = found["sides"]["mpjax"], found["rounds"]["mpjax"]
    assert row["flops_per_second"] * row["median"] == pytest.approx(found["flops"])
    assert row["ratio"] is None and len(rounds["seconds"]) == 6 and rounds["error"] is None
    table = "\n".join(lines_of_case("forward", found))
    assert table in capsys.readouterr().out and table in out.with_suffix(".md").read_text()
    assert not out.with_suffix(".png").exists()  # there is nothing to compare with
