"""The verb `recall` on a run folder with random weights."""

import csv
import json

import pytest
from PIL import Image

from mpjax.__main__ import main
from mpjax.evaluation.controls import MemoryReset
from mpjax.evaluation.recall import evaluate_recall
from mpjax.models.memorypack import Denoiser
from mpjax.weights import load_run
from tests.generation.runs import recallworld_experiment, write_run


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("recall") / "run", recallworld_experiment())


def test_recall_writes_what_it_prints(run, tmp_path, capsys):
    arguments = ["recall", f"--weights={run}", "--gaps=2,0", "--clips=8", f"--out={tmp_path}/out", "--seed=3"]
    assert main([*arguments, "--control=memory_reset", "--self-recall"]) == 0
    printed = capsys.readouterr().out
    report = json.loads((tmp_path / "out" / "recall.json").read_text())
    trained = load_run(run)
    network, world = trained.run.network, trained.run.experiment.data.world
    expected = evaluate_recall(
        Denoiser(network.model),
        network.sampler,
        trained.params,
        world,
        gaps=(0, 2),
        clips_per_gap=8,
        seed=3,
        control=MemoryReset(),
    ).report
    assert report["step"] == 2 and report["world"]["scene"] == "R1" and report["world_leaks"] == []
    assert [row["n"] for row in report["gaps"]] == [8, 8] == [row["n"] for row in report["self_recall"]]
    assert {name: report[name] for name in expected} == json.loads(json.dumps(expected))
    rows = list(csv.DictReader((tmp_path / "out" / "recall.csv").open()))
    assert [float(row["rate"]) for row in rows] == [row["rate"] for row in report["gaps"]]
    assert [float(row["ci95_high"]) for row in rows] == [row["ci95"][1] for row in report["gaps"]]
    assert Image.open(tmp_path / "out" / "recall.png").width > 300
    for row in report["gaps"]:
        assert f"{row['rate']:.3f}" in printed
    assert "chance 0.0625" in printed and "control memory_reset" in printed and "independent draws" in printed


def test_drift_of_a_hand(run, tmp_path, capsys):
    # A run on R1 with world.path, which D2 does not read.
    arguments = [f"--weights={run}", "--scene=D2", "--clips=4", "--segments=3", f"--out={tmp_path}/out"]
    assert main(["recall", *arguments]) == 0
    report = json.loads((tmp_path / "out" / "recall.json").read_text())
    assert report["world"]["scene"] == "D2"
    assert report["generated_segments"] == 3 and "obedience" in report
    assert len((tmp_path / "out" / "recall.csv").read_text().splitlines()) == 4
    assert "dead motion" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--gaps=1,x"], "--gaps 1,x"),
        (["--gaps="], "--gaps"),
        (["--clips=0"], "--clips 0"),
        (["--control=magic"], "choose one of none"),
        (["--scene=R9"], "R9"),
        (["--scene=R2"], "world.prompt_bytes"),
        (["--control=shuffled_prompts"], "R2 or R6"),
        (["--control=within_reach", "--gaps=8"], "beyond reach"),
        (["--config.seed=1"], "no flag"),
        (["--weights=nothing"], "nothing is no run folder"),
    ],
)
def test_bad_input_is_one_sentence(run, flags, said, capsys):
    assert main(["recall", f"--weights={run}", *flags]) == 2
    printed = capsys.readouterr().err
    assert printed.startswith("mpjax recall: ") and said in printed and printed.count("\n") == 1
    assert not (run / "recall").exists()
