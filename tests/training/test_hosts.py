"""Two processes that share one run, killed, silenced and moved to other devices."""

import json
import random
import signal
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np

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


def at(line, number, *to, after=0.0):
    return {"line": line, "signal": number, "to": to, "after": after}


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
    """Three kills and a host that stops; then the same checkpoint goes on, on one device of one process."""
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
        ],
    )
    first, silenced, *killed, elsewhere, last = results
    assert first["status"] == last["status"] == [0, 0] and elsewhere["status"] == [0], (last, elsewhere)

    assert silenced["status"] == [75, -signal.SIGKILL], silenced
    assert f"mpjax: process 1 on {socket.gethostname()} has said nothing for" in silenced["stderr"][0]
    assert 0.8 * TIMEOUT < silenced["seconds"] < 2 * TIMEOUT

    for harm, result in zip(harms[1:], killed, strict=True):
        assert all(result["status"][index] == -signal.SIGKILL for index in harm["to"]), result
        assert 0 not in result["status"], result
    assert_same(broken, whole, toy_run.STEPS)

    assert [line["step"] for line in runs.log(moved)] == list(range(1, toy_run.STEPS + 1))
    for mine, theirs in zip(runs.log(moved), runs.log(whole), strict=True):
        np.testing.assert_allclose(mine["train/loss"], theirs["train/loss"], rtol=1e-5)
