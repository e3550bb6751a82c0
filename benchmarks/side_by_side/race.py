"""Sides that take turns at one job: started, checked against each other, timed round by round."""

import contextlib
import dataclasses
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.side_by_side.agreement import check_agreement
from mpjax.errors import InputError

ROOT = Path(__file__).parents[2]
PAUSE = 0.05  # seconds between turns: threads of the side before spin for a while before they sleep
GRACE = 5.0  # seconds that a side has to end by itself, and to end what it started
# glibc leaves a process the memory that it has freed. Else every run of a program of large arrays pays for fresh pages,
# more on a virtual machine and more after another side has run.
KEEPING = {"MALLOC_ARENA_MAX": "1", "MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(2**40)}
LISTS = ("seconds", "cpu_seconds", "multiply_flops_per_second")  # of what a turn gives


@dataclasses.dataclass(frozen=True, kw_only=True)
class Contestant:
    """A side by name.

    Attributes:
        name: in tables.
        command: starts a process that answers as `side` says; it runs in the root of the checkout.
        variant: told to the process in its job.
    """

    name: str
    command: tuple[str, ...]
    variant: str = ""


class Side:
    """The process of a contestant; a context manager that ends it."""

    def __init__(self, contestant: Contestant, environment: dict[str, str]):
        self.name = contestant.name
        self._log = tempfile.TemporaryFile("w+")  # noqa: SIM115
        try:
            self._process = subprocess.Popen(
                contestant.command,
                cwd=ROOT,
                env=environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._log,
                text=True,
            )
        except OSError as error:
            self._log.close()
            raise InputError(
                f"{contestant.command[0]} cannot be started ({error.strerror}): give --rival a Python"
            ) from error

    def __enter__(self) -> "Side":
        return self

    def __exit__(self, *error: object) -> None:
        try:
            self._process.communicate(timeout=GRACE)  # the end of its input ends it
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.communicate()
        self._log.close()

    def ask(self, do: str, **arguments: Any) -> dict[str, Any]:
        """The answer to a request.

        Raises:
            InputError: the side failed; the sentence says what it said last.
        """
        assert self._process.stdin and self._process.stdout
        try:
            self._process.stdin.write(json.dumps({"do": do, **arguments}) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            pass  # it has ended: the empty answer below says so
        line = self._process.stdout.readline()
        try:
            answer = json.loads(line)
        except ValueError:
            answer = {"error": self._last_words(line)}
        if "error" in answer:
            raise InputError(f"{self.name} failed at {do!r}: {answer['error']}")
        return answer

    def _last_words(self, line: str) -> str:
        """Why a line is no answer."""
        try:
            self._process.wait(GRACE)
        except subprocess.TimeoutExpired:
            return f"it answered {line.strip()!r}, which is no JSON"
        self._log.seek(0)
        said = [text for text in self._log.read().splitlines() if text.strip()]
        return said[-1].strip() if said else f"it ended with status {self._process.returncode}"


def race(
    contestants: Sequence[Contestant],
    job: dict[str, Any],
    *,
    rounds: int,
    cores: Sequence[int],
    tolerance: float,
    folder: Path,
    say: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Runs one job on all sides in turn, after their results were found to agree.

    Every round runs each side once, and measures a matrix product in it; the side that begins changes from round to
    round.

    Args:
        contestants: ours first.
        job: JSON, the same for all but for `variant`.
        rounds: that count.
        cores: that every side is confined to; empty leaves them as they are.
        tolerance: of `check_agreement`, against the first side.
        folder: for results while they are compared.
        say: receives progress.

    Returns:
        by name of side: about, error (None of the first), seconds, cpu_seconds, multiply_flops_per_second (lists of
        `rounds` numbers), memory.

    Raises:
        InputError: a side failed, or disagrees.
    """
    environment = KEEPING | os.environ
    if cores:
        environment |= {name: str(len(cores)) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")}
    found: dict[str, dict[str, Any]] = {}
    with contextlib.ExitStack() as stack:
        sides = [stack.enter_context(Side(contestant, environment)) for contestant in contestants]
        for side in sides:  # a library that is missing is found before anything is compiled
            side.ask("load", cores=list(cores))
        for number, (side, contestant) in enumerate(zip(sides, contestants, strict=True)):
            start = time.perf_counter()
            answer = side.ask("prepare", job={**job, "variant": contestant.variant})
            say(f"{side.name}: ready in {time.perf_counter() - start:.1f} s")
            result, reference = folder / f"result_{number}.safetensors", folder / "result_0.safetensors"
            side.ask("write", path=str(result))
            error = None
            if number:
                error = check_agreement(result, reference, tolerance, f"{side.name} and {sides[0].name}")
                result.unlink()
            found[side.name] = {"about": answer["about"], "error": error} | {name: [] for name in LISTS}
        reference.unlink()
        for number in range(rounds):
            first = number % len(sides)
            for side in sides[first:] + sides[:first]:
                for name, value in _turn(side).items():
                    found[side.name][name].append(value)
        for side in sides:
            found[side.name]["memory"] = side.ask("memory")
    return found


def _turn(side: Side) -> dict[str, float]:
    """One product and one run of a side, with a pause behind each."""
    product = side.ask("multiply")
    time.sleep(PAUSE)
    run = side.ask("run")
    time.sleep(PAUSE)
    return run | {"multiply_flops_per_second": product["flops"] / product["seconds"]}


def own_python(module: str) -> tuple[str, ...]:
    """The command of a module in this Python."""
    return (sys.executable, "-m", module)
