"""The command line: exit status 2 and one sentence for bad input, and no traceback."""

import subprocess
import sys

import pytest

from mpjax import config
from mpjax.__main__ import main

SMOKE = f"{config.find('recall_tiny.py')}:smoke"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["train", "--config=nothing.py"], "nothing.py does not exist"),
        (["train", f"--config={SMOKE}", "--config.seeed=1"], "config.seeed is not a config field: did you mean seed?"),
        (["train", f"--config={SMOKE}", "--sed=1"], "--sed=1 is no flag of this command"),
        (["train", f"--config={SMOKE}", "--config.mesh.tensor=64"], "needs 64 devices"),
        (["train", f"--config={SMOKE}", "--init=nothing"], "nothing holds no weights"),
        (["encode", f"--config={SMOKE}", "--input=nothing"], "give a config with kind='clips'"),
    ],
)
def test_bad_input_is_one_sentence_and_status_2(arguments, said, tmp_path, capsys):
    run = tmp_path / "run"
    extra = [f"--run={run}"] if arguments[0] == "train" else []
    assert main([*arguments, *extra]) == 2
    printed = capsys.readouterr()
    assert printed.err.startswith(f"mpjax {arguments[0]}: ") and said in printed.err
    assert printed.err.count("\n") == 1 and printed.out == "" and not run.exists()


@pytest.mark.parametrize("arguments", [[], ["trian"], ["train"], ["train", "--conf=x", "--run=y"]])
def test_wrong_usage_is_status_2(arguments, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 2 and "usage: mpjax" in capsys.readouterr().err


@pytest.mark.parametrize("verb", ["demo", "encode", "train", "ablate", "generate", "recall", "convert"])
def test_every_verb_explains_itself(verb, capsys):
    with pytest.raises(SystemExit) as stopped:
        main([verb, "--help"])
    assert stopped.value.code == 0 and f"usage: mpjax {verb}" in capsys.readouterr().out


def test_ctrl_c_is_status_130(monkeypatch, capsys):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("mpjax.experiment.load", interrupt)
    assert main(["train", "--config=x", "--run=y"]) == 130
    assert capsys.readouterr().err == "mpjax train: stopped\n"


def test_as_a_process():
    command = [sys.executable, "-m", "mpjax", "train", f"--config={SMOKE}", "--run=x", "--config.training.samples=0"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr == "mpjax train: config.training.samples is 0: it must be at least 1\n"
