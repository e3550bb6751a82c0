"""Encodes a folder in child processes that are killed at moments drawn at random, until one finishes.

    python tests/data/killed_encode.py VIDEOS OUTPUT SEED RUNS operations|seconds

A moment is the place between two of a child's file operations below OUTPUT's parent; or a time since it began, which
may lie within one of them. Prints as JSON how many children were killed, and the operations of the whole run.
"""

import json
import os
import random
import select
import signal
import sys
import time
from pathlib import Path

from mpjax import codecs
from mpjax.data import assembly
from mpjax.data.clip_encoding import ClipEncoder
from mpjax.data.clips import encode_folder

OPERATIONS = {"open", "os.rename", "os.mkdir", "os.rmdir", "os.remove", "shutil.rmtree"}
SETTINGS = {
    "encoder": ClipEncoder(codec=codecs.create("dct", time_factor=2, space_factor=4, channels=6), segment_frames=2),
    "fps": 12,
    "height": 16,
    "width": 24,
    "max_segments": 2,
    "validation_fraction": 0.3,
}


def encode(videos: Path, output: Path, die_at: int | None) -> int:
    """Encodes; dies before file operation number `die_at`. Returns how many there were."""
    count, below = 0, str(output.parent)

    def watch(event: str, arguments: tuple) -> None:
        nonlocal count
        if event not in OPERATIONS or not arguments or below not in str(arguments[0]):
            return
        if count == die_at:
            os.kill(os.getpid(), signal.SIGKILL)
        count += 1

    sys.addaudithook(watch)
    encode_folder(videos, output, **SETTINGS, progress=lambda line: None)
    return count


def child(videos: Path, output: Path, *, die_at: int | None = None, seconds: float | None = None) -> tuple[bool, int]:
    """(whether a new process finished, its file operations if so); it dies before an operation, or after a time."""
    receive, send = os.pipe()
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            os.write(send, str(encode(videos, output, die_at)).encode())
            status = 0
        finally:
            os._exit(status)
    os.close(send)
    # From outside, so that it strikes in the middle of native code, too.
    if seconds is not None and not select.select([receive], [], [], seconds)[0]:
        os.kill(pid, signal.SIGKILL)
    with os.fdopen(receive) as pipe:
        said = pipe.read()
    _, status = os.waitpid(pid, 0)
    killed = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
    assert killed or status == 0, status
    return not killed, int(said or 0)


def main(videos: Path, output: Path, seed: int, runs: int, by: str) -> dict[str, int]:
    """`whole` beside OUTPUT is unbroken; OUTPUT-0, OUTPUT-1, … are killed again and again until they are finished."""
    assembly.SHARD_BYTES = 1200  # several shards
    began = time.monotonic()
    finished, operations = child(videos, output.with_name("whole"))
    seconds = time.monotonic() - began
    assert finished
    draw = random.Random(seed)
    killed = 0
    for run in range(runs):
        finished, longest = False, operations // 3
        while not finished:  # the last steps need a longer life than these
            die = {"die_at": draw.randrange(longest)}
            if by == "seconds":
                die = {"seconds": max(1e-3, seconds * draw.randrange(longest) / operations)}
            finished, _ = child(videos, output.with_name(f"{output.name}-{run}"), **die)
            killed, longest = killed + (not finished), longest + 10
    return {"killed": killed, "operations": operations}


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]), sys.argv[5])))
