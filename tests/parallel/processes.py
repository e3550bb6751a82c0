"""Scripts of this folder as one process with 8 CPU devices, or as several that share them over loopback."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

from tests.training.runs import FLAGS, ROOT

DEVICES = 8
HERE = Path(__file__).parent


def run(script, spec, count=1, timeout=1500):
    """Runs `script SPEC` in `count` processes; returns what the first one prints, as JSON."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    environment["XLA_FLAGS"] = f"{FLAGS} --xla_force_host_platform_device_count={DEVICES // count}"
    processes = [
        subprocess.Popen(
            [sys.executable, str(HERE / script), json.dumps(spec), address, str(count), str(rank)],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(count)
    ]
    try:
        ended = [process.communicate(timeout=timeout) for process in processes]
    finally:
        for process in processes:
            process.kill()
    for process, (_, errors) in zip(processes, ended, strict=True):
        assert process.returncode == 0, errors[-3000:]
    return json.loads(ended[0][0].strip().splitlines()[-1])


def join(arguments):
    """What such a script does first: its spec, once the processes have found one another."""
    import jax

    spec, address, count, rank = json.loads(arguments[0]), arguments[1], int(arguments[2]), int(arguments[3])
    if count > 1:
        jax.distributed.initialize(address, num_processes=count, process_id=rank)
    assert jax.device_count() == DEVICES and jax.process_count() == count
    return spec
