"""Generations in forked children, killed at chosen moments: `python killed.py RUN FOLDER` prints what was left as JSON.

A process of its own, because a fork must come before JAX starts its threads; a child then costs its compilation alone.
"""

import json
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import av
import orbax.checkpoint  # noqa: F401 (imported once, before the forks)
from safetensors.numpy import load

from mpjax.__main__ import main
from mpjax.generation import state, stream
from mpjax.whole_files import unfinished

RUN, FOLDER = Path(sys.argv[1]), Path(sys.argv[2])
SECONDS = "12.5"  # 50 frames: 13 segments, the last one cut


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def before_the_state() -> None:
    """Segment 2 is written, its state is not."""
    save = stream.save_state

    def trap(path, value, metadata):
        if metadata["segment"] == 3:
            die()
        save(path, value, metadata)

    stream.save_state = trap


def inside_a_part() -> None:
    write = stream.write_part

    def trap(path, frames, *, fps, first_frame):
        if first_frame == 1 + 4 * 5:
            path.with_name(path.name + ".partial").write_bytes(b"half")
            die()
        write(path, frames, fps=fps, first_frame=first_frame)

    stream.write_part = trap


def inside_the_state() -> None:
    write = state.write_file

    def trap(path, content):
        if load(content)["segment"] == 8:
            unfinished(path).write_bytes(b"half")
            die()
        write(path, content)

    state.write_file = trap


def inside_the_first_part() -> None:
    stream.save_state = lambda *_: die()


def inside_the_join() -> None:
    def trap(parts, path, fps, frames):
        path.with_name(path.name + ".partial").write_bytes(b"half")
        die()

    stream.join_parts = trap


def before_cleaning() -> None:
    stream._clean = lambda out: die()


def child(out: Path, seconds: str, trap: Callable[[], None] = lambda: None) -> int:
    """Forks a `generate`; returns its process id."""
    sys.stdout.flush()
    if pid := os.fork():
        return pid
    code = 70
    try:
        os.dup2(os.open(FOLDER / "log.txt", os.O_CREAT | os.O_APPEND | os.O_WRONLY), 1)
        trap()
        code = main(["generate", "--weights", str(RUN), "--out", str(out), "--seconds", seconds, "--least", "16"])
    finally:
        sys.stdout.flush()
        os._exit(code)


def ended(pid: int) -> int:
    """Exit code, or minus the signal."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def playable(out: Path) -> int:
    """Frames of the parts, each of which must play alone."""
    count = 0
    for part in sorted(out.with_name(out.name + ".parts").glob("part_*.mp4")):
        with av.open(part) as container:
            count += sum(1 for _ in container.decode(video=0))
    return count


def signalled(out: Path, seconds: str, number: int, what: signal.Signals) -> int:
    """Sends a signal from outside once part `number` is there; returns how the child ended."""
    pid = child(out, seconds)
    part = out.with_name(out.name + ".parts") / f"part_{number:06d}.mp4"
    deadline = time.monotonic() + 120
    while not part.exists() and time.monotonic() < deadline:
        time.sleep(0.002)
    os.kill(pid, what)
    return ended(pid)


report: dict = {"whole": ended(child(FOLDER / "whole.mp4", SECONDS)), "kills": []}
killed = FOLDER / "killed.mp4"
for trap in (inside_the_first_part, before_the_state, inside_a_part, inside_the_state):
    report["kills"].append([trap.__name__, ended(child(killed, SECONDS, trap)), playable(killed)])
report["kills"].append(["from_outside", signalled(killed, SECONDS, 10, signal.SIGKILL), playable(killed)])
for trap in (inside_the_join, before_cleaning):
    report["kills"].append([trap.__name__, ended(child(killed, SECONDS, trap)), playable(killed)])
report["last"] = ended(child(killed, SECONDS))

stopped = FOLDER / "stopped.mp4"
report["stopped"] = signalled(stopped, "100", 5, signal.SIGTERM)
report["stopped_frames"] = playable(stopped)
print(json.dumps(report))
