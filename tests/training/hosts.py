"""`python hosts.py SCRIPT.json` runs groups of processes on this machine, one group after another, and does to them
what the script says. It imports once and forks, since importing is most of what a start costs.

SCRIPT.json is a list of groups:
    program     "train", which is `python -m mpjax train`, or one of `toy_run.py`
    arguments   with --run=FOLDER
    processes, devices (of each process)
    copy        null, or [FROM, TO]: a run folder, copied before the start
    harm        null, or {"signal": number, "to": [processes], "line": of log.jsonl, "saving": bool, "after": seconds}:
                once the group itself has come to that line, with `saving` while a checkpoint is being written
Prints one JSON line a group: the exit status of each process (negative: a signal), what each wrote, the seconds from
the harm to the end of the group, and what then lies in the folder of checkpoints.
"""

import json
import os
import shutil
import signal
import socket
import sys
import time
import traceback
from pathlib import Path

import mpjax.training.loop  # noqa: F401
from mpjax import __main__ as command_line
from tests.training import toy_run

PROGRAMS = {
    "train": lambda arguments: command_line.main(["train", *arguments]),
    "toy": toy_run.main,
    "alone": toy_run.fail_alone,
    "apart": toy_run.read_apart,
    "late": toy_run.meet_late,
}
LIMIT = 900.0


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def start(group, index, port, folder):
    """Forks one process of a group and returns its id."""
    if child := os.fork():
        return child
    for number, name in ((1, "stdout"), (2, "stderr")):
        os.dup2(os.open(folder / f"{name}.{index}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    os.environ["XLA_FLAGS"] += f" --xla_force_host_platform_device_count={group['devices']}"
    if group["processes"] > 1:
        os.environ["JAX_COORDINATOR_ADDRESS"] = f"127.0.0.1:{port}"
        os.environ["JAX_NUM_PROCESSES"] = str(group["processes"])
        os.environ["JAX_PROCESS_ID"] = str(index)
    try:
        status = PROGRAMS[group["program"]](group["arguments"])
    except BaseException:
        traceback.print_exc()
        status = 1
    sys.exit(status)


def changed(path):
    """When a file was last written, in nanoseconds; 0 without one."""
    return path.stat().st_mtime_ns if path.exists() else 0


def last_line(path):
    """The step of the last line of a log that is whole."""
    lines = path.read_bytes().split(b"\n")[:-1] if path.exists() else []
    return json.loads(lines[-1])["step"] if lines else 0


def names(folder):
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


def reached(harm, run, opened):
    """Whether it is time for a harm; the log was last written at `opened` before the group began."""
    log = run / "log.jsonl"
    if changed(log) == opened or last_line(log) < harm["line"]:
        return False
    return not harm["saving"] or any("orbax-checkpoint-tmp" in name for name in names(run / "checkpoints"))


def run(group, folder):
    if group["copy"]:
        shutil.copytree(*group["copy"])
    count, harm, port = group["processes"], group["harm"], free_port()
    place = next(a for a in group["arguments"] if a.startswith("--run="))
    home = Path(place.removeprefix("--run="))
    opened = changed(home / "log.jsonl")
    children = {index: start(group, index, port, folder) for index in range(count)}
    status, stopped = {}, set()
    begun = time.monotonic()
    due = harmed = None
    while len(status) < count:
        for index, child in children.items():
            if index not in status and (done := os.waitpid(child, os.WNOHANG))[0]:
                status[index] = os.waitstatus_to_exitcode(done[1])
        now, left = time.monotonic(), children.keys() - status.keys()
        if harm and due is None and reached(harm, home, opened):
            due = now + harm["after"]
        if harm and harmed is None and due is not None and now >= due:
            harmed = now
            for index in set(harm["to"]) & left:
                os.kill(children[index], harm["signal"])
                stopped |= {index} if harm["signal"] == signal.SIGSTOP else set()
        if left and (left <= stopped or now - begun > LIMIT):
            for index in left:
                os.kill(children[index], signal.SIGKILL)
        time.sleep(0.005)
    said = {name: [(folder / f"{name}.{i}").read_text() for i in children] for name in ("stdout", "stderr")}
    ended = None if harmed is None else time.monotonic() - harmed
    left = names(home / "checkpoints")
    return {"status": [status[index] for index in range(count)], "seconds": ended, "checkpoints": left, **said}


if __name__ == "__main__":
    script = Path(sys.argv[1])
    for entry in json.loads(script.read_text()):
        print(json.dumps(run(entry, script.parent)), flush=True)
