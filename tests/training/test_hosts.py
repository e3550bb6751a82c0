"""Two processes that share one run, killed, silenced and moved to other devices.

`MPJAX_TEST_KILLS=30 pytest -m slow tests/training/test_hosts.py -k train_is_killed` kills `train` 30 times, not 3.
"""

import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.training import runs, toy_run

DRIVER = Path(__file__).with_name("hosts.py")
TIMEOUT = 15


def play(folder, groups):
    """Plays a script; what became of each group."""
    script = folder / "script.json"
    script.write_text(json.dumps(groups))
    command = [sys.executable, str(DRIVER), str(script)]
    done = subprocess.run(
        command, capture_output=True, text=True, env=runs.environment(folder / "cache"), cwd=runs.ROOT, check=False
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def toy(folder, *, processes=2, devices=2, harm=None, copy=None, timeout=TIMEOUT):
    arguments = [f"--run={folder}", f"--processes={processes}", f"--timeout={timeout}"]
    copy = [str(c) for c in copy] if copy else None
    return {
        "program": "toy",
        "arguments": arguments,
        "processes": processes,
        "devices": devices,
        "harm": harm,
        "copy": copy,
    }


def at(line, number, *to, after=0.0, saving=False):
    return {"line": line, "signal": number, "to": to, "after": after, "saving": saving}


def assert_same(got, want, step):
    for (path, a), (other, b) in zip(runs.checkpoint(got, step), runs.checkpoint(want, step), strict=True):
        assert path == other
        np.testing.assert_array_equal(a, b, err_msg=path)
    assert runs.log(got) == runs.log(want)


def kills(seed, count):
    """Kills at random moments of the run, of both processes or of one, which the other notices by itself."""
    draw = random.Random(seed)
    lines = sorted(draw.randrange(1, toy_run.STEPS) for _ in range(count))
    return [at(line, signal.SIGKILL, *draw.choice([(0, 1), (0,), (1,)]), after=draw.uniform(0, 0.1)) for line in lines]


def test_killed_and_silenced_hosts_end_with_the_bits_of_an_unbroken_run(tmp_path):
    """Three kills and a host that stops; the same checkpoint also goes on on one device, and a late host is named."""
    whole, broken, moved = tmp_path / "whole", tmp_path / "broken", tmp_path / "moved"
    silent = at(2, signal.SIGSTOP, 1)
    harms = [silent, *kills(seed=0, count=3)]
    results = play(
        tmp_path,
        [
            toy(whole),
            *(toy(broken, harm=harm) for harm in harms),
            toy(moved, processes=1, devices=1, copy=(broken, moved)),
            toy(broken),
            {**toy(tmp_path / "late", timeout=5), "program": "late"},
        ],
    )
    first, silenced, *killed, elsewhere, last, late = results
    assert first["status"] == last["status"] == [0, 0] and elsewhere["status"] == [0], (last, elsewhere)

    assert silenced["status"] == [75, -signal.SIGKILL], silenced
    assert f"mpjax: process 1 on {socket.gethostname()} has said nothing for" in silenced["stderr"][0]
    assert 0.8 * TIMEOUT < silenced["seconds"] < 2 * TIMEOUT

    assert f"mpjax: waited 5 s at the meeting for process 1 on {socket.gethostname()}" in late["stderr"][0], late
    assert f"mpjax: process 0 on {socket.gethostname()} left: LostProcess" in late["stderr"][1], late
    assert late["status"] == [75, 75], late

    for harm, result in zip(harms[1:], killed, strict=True):
        assert all(result["status"][index] == -signal.SIGKILL for index in harm["to"]), result
        assert 0 not in result["status"], result
    assert_same(broken, whole, toy_run.STEPS)

    assert [line["step"] for line in runs.log(moved)] == list(range(1, toy_run.STEPS + 1))
    for mine, theirs in zip(runs.log(moved), runs.log(whole), strict=True):
        np.testing.assert_allclose(mine["train/loss"], theirs["train/loss"], rtol=1e-5)


def test_what_one_host_cannot_read_no_host_reads(tmp_path):
    folder = tmp_path / "run"
    made, apart = play(tmp_path, [toy(folder), {**toy(folder), "program": "apart"}])
    assert made["status"] == apart["status"] == [0, 0], (made, apart)
    first, second = (said.splitlines() for said in apart["stdout"])
    assert "another process cannot read it" in first and "no route to the disk" in second
    assert first[-1] == second[-1] == str(toy_run.STEPS - 1)
    assert sorted(p.name for p in (folder / "checkpoints").iterdir())[-1] == f"damaged-{toy_run.STEPS}"


@pytest.mark.parametrize("index", [0, 1])
def test_a_host_that_fails_alone_ends_with_its_own_status(tmp_path, index):
    """Even after all have agreed to stop; the other one names it, and neither waits for JAX's exit."""
    (failed,) = play(tmp_path, [{**toy(tmp_path / str(index), timeout=5), "program": "alone"}])
    assert failed["status"] == [2 if i == index else 75 for i in (0, 1)], failed
    assert "mpjax: the disk is full: make room\n" in failed["stderr"][index], failed
    assert "Traceback" not in failed["stderr"][index], failed
    assert "left: InputError: the disk is full: make room" in failed["stderr"][1 - index], failed


@pytest.mark.slow
def test_thirty_kills(tmp_path):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    harms = kills(seed=1, count=30)
    first, *killed, last = play(tmp_path, [toy(whole), *(toy(broken, harm=harm) for harm in harms), toy(broken)])
    assert first["status"] == last["status"] == [0, 0], last
    for harm, result in zip(harms, killed, strict=True):
        assert all(result["status"][index] == -signal.SIGKILL for index in harm["to"]), result
        assert not any("warning" in said for said in result["stdout"]), result
    assert_same(broken, whole, toy_run.STEPS)


@pytest.mark.slow
def test_the_others_name_process_0_too(tmp_path):
    """It keeps what the processes tell each other, so nothing is heard of anyone."""
    (silenced,) = play(tmp_path, [toy(tmp_path / "run", harm=at(2, signal.SIGSTOP, 0))])
    assert silenced["status"] == [-signal.SIGKILL, 75], silenced
    assert f"mpjax: process 0 on {socket.gethostname()} has not answered for" in silenced["stderr"][1]


# -- The train loop --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A folder with the config of one stage, 8 videos a batch; saved after updates 3 and 6."""
    folder = tmp_path_factory.mktemp("hosts")
    path = runs.write_config(folder)
    path.write_text(path.read_text().replace("batch_size=2", "batch_size=8"))
    return folder


def train(home, name, *, processes=1, devices=1, harm=None, copy=None, host_state="none", **mesh):
    flags = [f"--config.training.host_state={host_state}"]
    flags += [f"--config.mesh.{axis}={size}" for axis, size in mesh.items()]
    flags += [f"--config.processes.count={processes}", "--config.processes.timeout=120"]
    arguments = [f"--config={home / 'small.py'}:one", f"--run={home / name}", *flags]
    shared = toy(home / name, processes=processes, devices=devices, harm=harm, copy=copy)
    return {**shared, "program": "train", "arguments": arguments}


@pytest.mark.slow
def test_a_run_goes_on_on_other_meshes_and_hosts(home):
    (whole,) = play(home, [train(home, "eight", devices=8, data=4, fsdp=2)])
    assert whole["status"] == [0], whole
    shutil.copytree(home / "eight", home / "saved")
    shutil.rmtree(home / "saved" / "checkpoints" / "6")
    places = {
        "one": {"devices": 1},
        "two": {"devices": 2, "fsdp": 2},
        "four": {"devices": 4, "tensor": 2, "fsdp": 2},
        "hosts": {"processes": 2, "devices": 2, "data": 2, "fsdp": 2},
        "waiting": {"processes": 2, "devices": 2, "data": 2, "fsdp": 2, "host_state": "both"},
    }
    results = play(
        home, [train(home, name, copy=(home / "saved", home / name), **place) for name, place in places.items()]
    )
    for name, result in zip(places, results, strict=True):
        assert set(result["status"]) == {0} and "going on at update 3" in result["stdout"][0], result
        for mine, theirs in zip(runs.log(home / name), runs.log(home / "eight"), strict=True):
            assert mine["step"] == theirs["step"]
            np.testing.assert_allclose(mine["train/loss"], theirs["train/loss"], rtol=1e-4, err_msg=name)


@pytest.mark.slow
def test_train_is_killed_at_random_moments(home):
    """Both processes at once, mostly while a checkpoint is being written: no step is torn, and no bit is lost."""
    count = int(os.environ.get("MPJAX_TEST_KILLS", "3"))
    steps, draw = max(6, count), random.Random(count)
    lines = sorted(draw.randrange(1, steps - 1) for _ in range(count))
    kinds = [{"saving": n % 3 != 0, "after": draw.uniform(0, 0.1 if n % 3 else 0.5)} for n in range(count)]
    harms = [at(line, signal.SIGKILL, 0, 1, **kind) for line, kind in zip(lines, kinds, strict=True)]
    flags = [f"--config.training.stages.0.steps={steps}", "--config.training.checkpoint_every=1"]
    flags += ["--config.training.keep_checkpoints=2"]
    groups = [train(home, name, processes=2, devices=2, data=2, fsdp=2) for name in ("unkilled", "killed")]
    for group in groups:
        group["arguments"] += flags
    (whole,) = play(home, groups[:1])  # alone, so that a machine too busy for it says so before the kills
    assert whole["status"] == [0, 0], whole["stderr"]
    *killed, last = play(home, [*({**groups[1], "harm": harm} for harm in harms), groups[1]])
    assert last["status"] == [0, 0], last["stderr"]
    newest = 0
    for result in (*killed, last):
        said = result["stdout"][0]
        assert "warning" not in said and "damaged" not in " ".join(result["checkpoints"]), result
        assert not newest or f"going on at update {newest}" in said, result
        newest = max((int(name) for name in result["checkpoints"] if name.isdigit()), default=0)
    for result in killed:
        assert result["status"] == [-signal.SIGKILL, -signal.SIGKILL], result
    partial = [any("tmp" in name for name in result["checkpoints"]) for result in killed]
    print(f"{sum(partial)} of {count} kills met a checkpoint half written")
    assert any(partial)
    assert_same(home / "killed", home / "unkilled", steps)


@pytest.mark.slow
def test_a_preemption_notice_to_one_host_saves_on_all(home):
    place = {"processes": 2, "devices": 2, "data": 2, "fsdp": 2}
    whole, noticed, last = play(
        home,
        [
            train(home, "whole", **place),
            train(home, "noticed", harm=at(1, signal.SIGTERM, 1), **place),
            train(home, "noticed", **place),
        ],
    )
    assert whole["status"] == last["status"] == [0, 0], (whole, last)
    assert noticed["status"] == [143, 143], noticed
    assert "stopped and saved at update" in noticed["stdout"][0] and noticed["stdout"][1].count("saved") == 0
    assert_same(home / "noticed", home / "whole", 6)
