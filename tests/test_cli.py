"""The command line: exit status 2 and one sentence for bad input, and no traceback."""

import os
import signal
import subprocess
import sys

import pytest

from mpjax import config
from mpjax.__main__ import main
from mpjax.stopping import stop_request

SMOKE = f"{config.find('recall_tiny.py')}:smoke"
CLIPS = f"--config={config.find('clips_tiny.py')}"
LATE = ["data", "scan", "--input=x", "--output=y", CLIPS, "--deadline=-3"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["train", "--config=nothing.py"], "nothing.py does not exist"),
        (["train", f"--config={SMOKE}", "--config.seeed=1"], "config.seeed is not a config field: did you mean seed?"),
        (["train", f"--config={SMOKE}", "--sed=1"], "--sed=1 is no flag of this command"),
        (["train", f"--config={SMOKE}", "--config.mesh.tensor=64"], "needs 64 devices"),
        (["train", f"--config={SMOKE}", "--init=nothing"], "nothing holds no weights"),
        (["generate", "--weights=nothing", "--out=x.mp4", "--mesh=context=32,tensor=2"], "needs 64 devices"),
        (["generate", "--weights=nothing", "--out=x.mp4", "--mesh=model=2"], "write it as context=2,tensor=2"),
        (["encode", f"--config={SMOKE}", "--input=nothing"], "give a config with kind='clips'"),
        (["data", "scan", f"--config={SMOKE}", "--input=x", "--output=y"], "give a config with kind='clips'"),
        (["data", "inspect", "nothing"], "nothing: no such file or folder"),
        (["data", "inspect", "nothing", "--config.seed=1"], "is no flag of this command"),
        (["data", "inspect", __file__.replace("test_cli.py", ""), "--videos=."], "is none: leave it out"),
        (["encode", CLIPS, f"--input={__file__}"], "write one from this file with `python -m mpjax data scan`"),
        (["encode", CLIPS, "--input=x", "--config.data.vae=/nope"], "data.vae is /nope: no such folder"),
    ],
)
def test_bad_input_is_one_sentence_and_status_2(arguments, said, tmp_path, capsys):
    run = tmp_path / "run"
    extra = [f"--run={run}"] if arguments[0] == "train" else []
    assert main([*arguments, *extra]) == 2
    printed = capsys.readouterr()
    verb = " ".join(arguments[:2]) if arguments[0] == "data" else arguments[0]
    assert printed.err.startswith(f"mpjax {verb}: ") and said in printed.err
    assert printed.err.count("\n") == 1 and printed.out == "" and not run.exists()


@pytest.mark.parametrize("arguments", [[], ["trian"], ["train"], ["train", "--conf=x", "--run=y"], LATE])
def test_wrong_usage_is_status_2(arguments, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 2 and "usage: mpjax" in capsys.readouterr().err


@pytest.mark.parametrize(
    "verb",
    [
        "demo",
        "data",
        "encode",
        "train",
        "ablate",
        "generate",
        "recall",
        "plan",
        "bench",
        "suite",
        "study",
        "elo",
        "evaluate",
        "report",
        "convert",
    ],
)
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


@pytest.mark.parametrize("number, status", [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
@pytest.mark.parametrize("verb", ["train", "demo"])
def test_a_saved_stop_is_seen_in_the_status(monkeypatch, capsys, tmp_path, verb, number, status):
    """A signal during training; the demo runs that in its own process."""

    def train(*_, **__):
        with stop_request() as stopping:
            assert not stopping.is_set()
            os.kill(os.getpid(), number)
            assert stopping.wait(5)
        raise stopping.stopped()

    before = [signal.getsignal(s) for s in (signal.SIGTERM, signal.SIGINT)]
    monkeypatch.setattr("mpjax.demo.train", train)
    monkeypatch.setattr("mpjax.training.loop.train", train)
    flags = [f"--run={tmp_path / 'run'}"]
    assert main([verb, *flags, *([f"--config={SMOKE}"] if verb == "train" else [])]) == status
    assert capsys.readouterr().err == f"mpjax {verb}: stopped\n"
    assert [signal.getsignal(s) for s in (signal.SIGTERM, signal.SIGINT)] == before


def test_a_wrong_value_is_one_sentence(capsys):
    for flag, words in (
        ("--shift=quick", "'quick' is no time shift: give a number"),
        ("--size=big", "'big' is no size"),
    ):
        with pytest.raises(SystemExit) as stopped:
            main(["generate", "--weights=a", "--out=b.mp4", flag])
        assert stopped.value.code == 2 and words in capsys.readouterr().err


def test_as_a_process():
    command = [sys.executable, "-m", "mpjax", "train", f"--config={SMOKE}", "--run=x", "--config.training.samples=0"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr == "mpjax train: config.training.samples is 0: it must be at least 1\n"
