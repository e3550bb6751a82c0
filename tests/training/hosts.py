"""`python hosts.py SCRIPT.json` runs `python -m mpjax train …` as groups of processes on this machine, one group after
another, and does to them what the script says. It imports once and forks, since importing is what a start costs.

SCRIPT.json is a list of groups: {"arguments": […], "processes": n, "devices": of each, "do": null or one of
    {"signal": number, "to": [indices], "after": seconds since the first log line, or "step": a line of log.jsonl}}.
Prints one JSON line a group: exit statuses (negative: the signal), and what each process wrote to stderr.
"""

import json
import os
import signal
import socket
import sys
import time
from pathlib import Path

import mpjax.training.loop  # noqa: F401
from mpjax.__main__ import main


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def start(arguments, index, count, devices, port, folder):
    """Forks one process of a group."""
    child = os.fork()
    if child:
        return child
    for number, name in ((1, "stdout"), (2, "stderr")):
        file = os.open(folder / f"{name}.{index}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(file, number)
    os.environ["XLA_FLAGS"] += f" --xla_force_host_platform_device_count={devices}"
    if count > 1:
        os.environ |= {
            "JAX_COORDINATOR_ADDRESS": f"127.0.0.1:{port}",
            "JAX_NUM_PROCESSES": str(count),
            "JAX_PROCESS_ID": str(index),
        }
    sys.exit(main(arguments))


def lines(path):
    return path.read_text().count("\n") if path.exists() else 0


def run(group, folder):
    port = free_port()
    count, action = group["processes"], group.get("do")
    log = Path(next(a for a in group["arguments"] if a.startswith("--run=")).removeprefix("--run=")) / "log.jsonl"
    before = lines(log)
    children = [start(group["arguments"], i, count, group["devices"], port, folder) for i in range(count)]
    statuses, due = {}, None
    limit = time.monotonic() + group.get("limit", 300)
    while len(statuses) < count:
        for i, child in enumerate(children):
            if i not in statuses:
                done, status = os.waitpid(child, os.WNOHANG)
                if done:
                    statuses[i] = os.waitstatus_to_exitcode(status)
        now = time.monotonic()
        if action and due is None and lines(log) > (before if "after" in action else action["step"] - 1):
            due = now + action.get("after", 0)
        if action and due is not None and now >= due:
            for i in action["to"]:
                if i not in statuses:
                    os.kill(children[i], action["signal"])
            stopped = action["to"] if action["signal"] == signal.SIGSTOP else []
            action = None
        elif action is None and group.get("do") and set(stopped) == set(range(count)) - statuses.keys():
            for i in stopped:  # nobody else is left
                os.kill(children[i], signal.SIGKILL)
        if now > limit:
            for i in set(range(count)) - statuses.keys():
                os.kill(children[i], signal.SIGKILL)
        time.sleep(0.01)
    said = {name: [(folder / f"{name}.{i}").read_text()[-4000:] for i in range(count)] for name in ("stdout", "stderr")}
    return {
        "status": [statuses[i] for i in range(count)],
        "seconds": time.monotonic() + group.get("limit", 300) - limit,
        **said,
    }


if __name__ == "__main__":
    script = Path(sys.argv[1])
    for entry in json.loads(script.read_text()):
        print(json.dumps(run(entry, script.parent)), flush=True)
