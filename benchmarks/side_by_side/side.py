"""One side of a comparison: a process that reads requests on its standard input and answers each with a line of JSON.

Both sides use this loop. It needs the standard library alone, so that a rival's Python can run it.

| request | answer |
|---|---|
| `{"do": "load", "cores": […]}` | `{}`, once the side runs on these cores (empty: on any) and has its libraries |
| `{"do": "prepare", "job": {…}}` | `about`: what the side says of itself, once it has read weights, compiled and run |
| `{"do": "write", "path": …}` | `{}`, and the result in a safetensors file, by which the sides must agree |
| `{"do": "run"}` | `seconds` and `cpu_seconds` of one run, until its result is there |
| `{"do": "multiply"}` | `flops` and `seconds` of one large matrix product |
| `{"do": "memory"}` | `bytes`: the most that runs held, weights included, and `device_bytes` of the accelerator |

A side that fails answers `{"error": …}` and ends.
"""

import json
import os
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

WARM_UP = 2  # runs that nobody times: they compile, and fill caches


class Ready(Protocol):
    """A job whose weights are read."""

    @property
    def about(self) -> dict[str, Any]:
        """`device` and `versions`, for the record."""

    def run(self) -> None:
        """Computes the result once, and returns when it is there."""

    def write(self, path: str) -> None:
        """Writes the result as safetensors, with the names, axes and signs of diffusers."""

    def multiply(self) -> int:
        """One product of large square matrices in the job's dtype; returns its operations when it is there."""

    def device_bytes(self) -> int | None:
        """The most memory of the device that was in use; None where the device has none of its own."""


def serve(load: Callable[[], Callable[[dict[str, Any]], Ready]]) -> None:
    """Answers requests until the input ends.

    Args:
        load: imports what the side needs and returns what makes a job ready. It is called when the cores are chosen,
            and what the process holds after it is not counted as memory of the job.
    """
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever a library prints is no answer
    side = _Side(load)
    for line in sys.stdin:
        request = json.loads(line)
        try:
            answer = getattr(side, request.pop("do"))(**request)
        except Exception as error:
            traceback.print_exc()
            answer = {"error": f"{type(error).__name__}: {error}".splitlines()[0]}
        print(json.dumps(answer), file=answers, flush=True)
        if "error" in answer:
            return


class _Side:
    """What the requests do."""

    def __init__(self, load: Callable[[], Callable[[dict[str, Any]], Ready]]):
        self._load = load

    def load(self, cores: list[int]) -> dict[str, Any]:
        if cores:
            os.sched_setaffinity(0, cores)
        self._make = self._load()
        self._before = _memory("VmRSS")
        return {}

    def prepare(self, job: dict[str, Any]) -> dict[str, Any]:
        self._ready = self._make(job)
        start = time.perf_counter()
        for _ in range(WARM_UP):
            self._ready.run()
        seconds = time.perf_counter() - start
        self._ready.multiply()
        _forget_peak()
        return {"about": {**self._ready.about, "warm_up_seconds": seconds}}

    def write(self, path: str) -> dict[str, Any]:
        self._ready.write(path)
        _forget_peak()  # copies for the file are no part of the job
        return {}

    def run(self) -> dict[str, Any]:
        cpu, start = time.process_time(), time.perf_counter()
        self._ready.run()
        return {"seconds": time.perf_counter() - start, "cpu_seconds": time.process_time() - cpu}

    def multiply(self) -> dict[str, Any]:
        start = time.perf_counter()
        flops = self._ready.multiply()
        return {"flops": flops, "seconds": time.perf_counter() - start}

    def memory(self) -> dict[str, Any]:
        return {"bytes": _memory("VmHWM") - self._before, "device_bytes": self._ready.device_bytes()}


def _memory(field: str) -> int:
    """`VmRSS`, or its peak `VmHWM`, in bytes. (`ru_maxrss` of a new process begins with its parent's.)"""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))


def _forget_peak() -> None:
    """Makes the peak what is resident now."""
    Path("/proc/self/clear_refs").write_text("5")
