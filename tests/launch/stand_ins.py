"""Stand-ins for the programs of a cluster: they run here what the real ones would run there.

`python stand_ins.py PROGRAM …` is PROGRAM; `install` makes commands of them. Every call is written to the file CALLS.
"""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve()


def install(folder, *programs):
    """Commands in `folder`, to be put in front of PATH."""
    folder.mkdir()
    for program in programs:
        path = folder / program
        path.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{HERE}" {program} "$@"\n')
        path.chmod(0o755)


def calls(path, program):
    """Arguments of every call of a program in the file, in order."""
    lines = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    return [line["arguments"] for line in lines if line["program"] == program]


def srun(arguments):
    """One process a task, all on this machine, as Slurm's step does it: SIGTERM goes to every task itself.

    When the first one has ended, the others have the seconds of `--wait`, of which a hundred pass in one; then they are
    killed with all that they started. The status is the highest one, a signal above 128.
    """
    first = next(i for i, word in enumerate(arguments) if not word.startswith("--"))
    flags, command = dict(word[2:].split("=") for word in arguments[:first]), arguments[first:]
    count = int(os.environ["SLURM_NTASKS"])
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {
        "SLURM_STEP_NODELIST": "localhost",
        "SLURM_STEP_NUM_NODES": str(count),
        "SLURM_STEP_NUM_TASKS": str(count),
        "SLURM_STEP_TASKS_PER_NODE": f"1(x{count})",
        "SLURM_LOCALID": "0",
        "JAX_COORDINATOR_PORT": str(port),
    }
    own = [{"SLURM_PROCID": str(rank), "SLURM_NODEID": str(rank)} for rank in range(count)]
    tasks = [subprocess.Popen(command, env={**os.environ, **shared, **e}, start_new_session=True) for e in own]
    signal.signal(signal.SIGTERM, lambda number, _: [task.send_signal(number) for task in tasks])
    while all(task.poll() is None for task in tasks):
        time.sleep(0.01)
    limit = time.monotonic() + float(flags["wait"]) / 100
    for task in tasks:
        while task.poll() is None and time.monotonic() < limit:
            time.sleep(0.01)
        if task.poll() is None:
            os.killpg(task.pid, signal.SIGKILL)
    return max(status if status >= 0 else 128 - status for status in [task.wait() for task in tasks])


def scontrol(arguments):
    return 0


def nvidia_smi(arguments):
    """A machine with one GPU and the driver DRIVER, or none."""
    driver = os.environ.get("DRIVER")
    if not driver:
        return 9
    print(driver if any("driver_version" in word for word in arguments) else "GPU 0: of this test")
    return 0


def gcloud(arguments):
    """Queued resources whose workers are folders `node_N/worker_M` of WORKERS; they come up at the third look."""
    *group, verb = arguments[:4]
    assert group == ["compute", "tpus", "queued-resources"], arguments
    flags = dict(word.removeprefix("--").split("=", 1) for word in arguments if word.startswith("--") and "=" in word)
    workers = sorted(Path(os.environ["WORKERS"]).glob("node_*/worker_*"))
    chosen = [
        path
        for path in workers
        if flags.get("node", "0") in ("all", path.parent.name[5:])
        and flags.get("worker", "0") in ("all", path.name[7:])
    ]
    if verb == "describe":
        states = os.environ["STATES"].split()
        seen = len([call for call in calls(Path(os.environ["CALLS"]), "gcloud") if "describe" in call])
        print(states[min(seen, len(states)) - 1])
    elif verb == "scp":
        source, target = [word for word in arguments[4:] if not word.startswith("--")]
        for home in chosen:
            shutil.copy(source, home / target.split(":")[1])
    elif verb == "ssh":
        for home in chosen:
            done = subprocess.run(["bash", "-c", flags["command"]], cwd=home, env={**os.environ, "HOME": str(home)})
            if done.returncode:
                return done.returncode
    return 0


PROGRAMS = {"srun": srun, "scontrol": scontrol, "nvidia-smi": nvidia_smi, "gcloud": gcloud}

if __name__ == "__main__":
    program, arguments = sys.argv[1], sys.argv[2:]
    with Path(os.environ["CALLS"]).open("a") as file:
        file.write(json.dumps({"program": program, "arguments": arguments}) + "\n")
    sys.exit(PROGRAMS[program](arguments))
