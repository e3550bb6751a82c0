"""The group of processes that a run consists of: joining it, waiting for one another, leaving.

One process is the common case, and everything here does nothing then. In a group every wait has an end: a barrier
that is not reached raises `LostProcess`, and a thread watches the others and ends this process when one of them is
missing, since the main thread may then wait in a collective operation that never returns. Both name the hosts. Within
`MARGIN` times the time-out JAX's own heartbeat ends what is left, should even that thread hang.
"""

import dataclasses
import os
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, NoReturn

import jax
import numpy as np
from jax._src import distributed  # its client has the barriers and keys that `jax.distributed` keeps to itself
from jax.experimental import multihost_utils

from mpjax.errors import InputError, LostProcess
from mpjax.parallel.launch_environment import Launch, launch_of
from mpjax.parallel.watch import Ledger
from mpjax.stopping import Stopped

MARGIN = 2
SPEAK_EVERY = 12  # times within a time-out
PATIENCE = 24 * 3600.0
SETTLE = 10.0  # seconds in which a process may still say itself why it ends

Say = Callable[[str], None]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Processes:
    """The group that a run expects.

    Attributes:
        count: processes, one a host as a rule.
        timeout: seconds without a sign of a process after which the others end.
    """

    count: int = 1
    timeout: float = 600.0

    def __post_init__(self):
        if self.count < 1:
            raise InputError(f"count is {self.count}: it must be at least 1")
        if self.timeout < 1:
            raise InputError(f"timeout is {self.timeout}: it must be at least 1 second")


@contextmanager
def joined(expected: Processes) -> Iterator[None]:
    """Joins the group for the time of a `with`; call it before anything asks JAX for devices.

    In a group, an exception that all processes did not agree on (`Stopped`) ends this process at once, with a word on
    stderr: they would otherwise meet once more at the exit, where the others do not come.

    Raises:
        InputError: the launcher started another number of processes, or none says where the others are.
    """
    launch = launch_of(os.environ)
    count = 1 if launch is None else launch.count
    if launch is not None and count != expected.count:
        raise InputError(
            f"{launch.by} started {count} processes, but processes.count is {expected.count}: set "
            f"--config.processes.count={count}, or start {expected.count}"
        )
    if expected.count == 1:
        yield
        return
    _connect(launch, expected)
    global _group
    _group = _Group(expected)
    stopped = None
    try:
        _group.meet()
        try:
            yield
        except Stopped as stop:
            if not _group.stopping:
                raise
            stopped = stop
        _group.end()
    except BaseException as error:
        _group.leave(error)
    finally:
        _group = None
    if stopped is not None:
        raise stopped


def is_first() -> bool:
    """Whether this is the process that writes what a run has once: its description, logs, pictures, what it says."""
    return jax.process_index() == 0


def check_count(expected: Processes) -> None:
    """What JAX found must be what the config expects.

    Raises:
        InputError: other processes than expected, as on a pod whose config does not mention it.
    """
    if jax.process_count() != expected.count:
        raise InputError(
            f"JAX runs {jax.process_count()} processes, but processes.count is {expected.count}: set it so, and start "
            "the run by `python -m mpjax train`, or inside `mpjax.parallel.processes.joined`"
        )


def barrier(name: str, patient: bool = False) -> None:
    """Waits until every process is here.

    Args:
        name: for the message.
        patient: wait as long as the others give a sign of life.

    Raises:
        LostProcess: one did not come within the time-out.
    """
    if _group is not None:
        _group.barrier(name, PATIENCE if patient else _group.timeout)


def began(update: int) -> None:
    """Tells the others that this process has begun an update."""
    if _group is not None:
        _group.updates = update


def agree(yes: bool) -> bool:
    """Whether all processes say yes."""
    if jax.process_count() == 1:
        return yes
    return bool(multihost_utils.process_allgather(np.asarray(yes)).all())


def reached_stop(asked: threading.Event, step: int) -> bool:
    """Whether to stop after this update, which all processes find at the same update.

    In a group JAX sees SIGTERM, a preemption notice, in any process and agrees on an update; `asked` is then set.

    Args:
        asked: set when this process alone was asked to stop.
        step: of the update; every process must ask at every one.
    """
    if _group is None:
        return asked.is_set()
    if multihost_utils.reached_preemption_sync_point(step):
        _group.stopping = True
        asked.set()
        return True
    return False


def _connect(launch: Launch | None, expected: Processes) -> None:
    """`jax.distributed.initialize`; JAX ends the process by itself where the others do not come."""
    options: dict[str, Any] = {}
    if launch is not None:
        options = {
            "coordinator_address": launch.coordinator,
            "num_processes": launch.count,
            "process_id": launch.index,
            "local_device_ids": launch.local_devices,
            "cluster_detection_method": launch.method or ("deactivate" if launch.coordinator else None),
        }
    me = "this process" if launch is None else f"process {launch.index}"

    def give_up() -> None:
        _end(
            f"{me} on {socket.gethostname()} waited {expected.timeout:.0f} s, and not all {expected.count} processes "
            "came: look for those that do not say that they joined, and start all again"
        )

    timer = threading.Timer(expected.timeout, give_up)
    timer.daemon = True
    timer.start()
    try:
        jax.distributed.initialize(
            **options,
            initialization_timeout=int(expected.timeout * MARGIN),
            heartbeat_timeout_seconds=int(expected.timeout * MARGIN),
            shutdown_timeout_seconds=int(min(expected.timeout, 60)),
        )
    except ValueError as error:
        if launch is not None:
            raise
        raise InputError(
            f"processes.count is {expected.count}, but nothing says where the others are: start by srun, mpirun, on a "
            "TPU pod, or give JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID to each"
        ) from error
    finally:
        timer.cancel()


class _Group:
    """What a process knows of the others once it has joined."""

    def __init__(self, expected: Processes):
        self.updates, self.timeout = 0, expected.timeout
        self.stopping = False  # all have agreed to stop
        self._expected = expected
        self._client: Any = distributed.global_state.client
        self._index, self._count = jax.process_index(), jax.process_count()
        self._hosts = {index: f"process {index}" for index in range(self._count)}
        self._barriers = 0
        self._stop = threading.Event()

    def meet(self) -> None:
        """Learns the names of all hosts, and begins to watch."""
        if self._count != self._expected.count:
            raise InputError(
                f"{self._count} processes joined, but processes.count is {self._expected.count}: set it so"
            )
        host = socket.gethostname()
        self._client.key_value_set(f"mpjax/host/{self._index}", host)
        self.barrier("the start", self.timeout)
        for index, name in self._read("mpjax/host").items():
            self._hosts[index] = f"process {index} on {name}"
        print(f"{self._hosts[self._index]} joined {self._count} processes", file=sys.stderr, flush=True)
        now = time.monotonic()
        self._ledger, self._answered = Ledger(self._count, self._expected.timeout, now), now
        for work in (self._speak, self._watch):
            threading.Thread(target=work, daemon=True, name=f"mpjax{work.__name__}").start()

    def barrier(self, name: str, timeout: float) -> None:
        """As the function of this name; `timeout` in seconds."""
        self._barriers += 1
        key = f"mpjax/barrier/{self._barriers}"
        self._client.key_value_set(f"{key}/{self._index}", name)
        try:
            self._client.wait_at_barrier(key, int(timeout * 1000))
        except jax.errors.JaxRuntimeError as error:
            absent = self._hosts.keys() - self._read(key).keys()
            if not absent:
                raise
            raise LostProcess(
                f"waited {timeout:.0f} s at {name} for {self._named(absent)}: look at its log, and give "
                "the same command again"
            ) from error

    def end(self) -> None:
        """Leaves together with the others."""
        self.barrier("the end", PATIENCE)  # the first process may still copy checkpoints
        self._stop.set()
        jax.distributed.shutdown()

    def leave(self, error: BaseException) -> NoReturn:
        """Ends this process, and tells the others why, so that they need not wait for it."""
        self._stop.set()
        status = getattr(error, "status", 130 if isinstance(error, KeyboardInterrupt) else 1)
        if isinstance(error, (InputError, LostProcess)):
            print(f"mpjax: {error}", file=sys.stderr)
        else:
            traceback.print_exception(error)
        text = f"{type(error).__name__}: {error}".splitlines()[0]
        with suppress(jax.errors.JaxRuntimeError):  # process 0 may be gone
            self._client.key_value_set(f"mpjax/left/{self._index}", text)
        self._outlast()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)

    def _outlast(self) -> None:
        """Process 0 keeps what all say: it stays until the others know why they end, else JAX ends them first."""
        deadline = time.monotonic() + 2 * self._pause + 2 * SETTLE
        while self._index == 0 and time.monotonic() < deadline:
            with suppress(jax.errors.JaxRuntimeError):
                if len(self._read("mpjax/left").keys() | self._read("mpjax/ends").keys() | {0}) == self._count:
                    break
            time.sleep(0.1)

    def _read(self, folder: str) -> dict[int, str]:
        return {int(key.rsplit("/", 1)[1]): value for key, value in self._client.key_value_dir_get(folder)}

    def _named(self, indices: Any) -> str:
        return ", ".join(self._hosts[index] for index in sorted(indices))

    @property
    def _pause(self) -> float:
        return self._expected.timeout / SPEAK_EVERY

    def _speak(self) -> None:
        """Says that this process runs, and listens; a call may hang when process 0 is gone, so nothing else is done."""
        spoken = 0
        while not self._stop.wait(self._pause):
            spoken += 1
            try:
                self._client.key_value_set(
                    f"mpjax/alive/{self._index}", f"{spoken} {self.updates}", allow_overwrite=True
                )
                heard, left = self._read("mpjax/alive"), self._read("mpjax/left")
            except jax.errors.JaxRuntimeError:
                continue  # no answer, which `_watch` notices
            now = time.monotonic()
            self._answered = now
            for index, text in heard.items():
                times, updates = map(int, text.split())
                self._ledger.hear(index, times, updates, now)
            if left and not self._stop.wait(min(self._pause, SETTLE)):  # it may be what ends this process, too
                with suppress(jax.errors.JaxRuntimeError):
                    self._client.key_value_set(f"mpjax/ends/{self._index}", "")
                self._outlast()
                _end("; ".join(f"{self._hosts[index]} left: {text}" for index, text in left.items()))

    def _watch(self) -> None:
        while not self._stop.wait(self._pause):
            now = time.monotonic()
            missing = self._ledger.missing(now)
            if now - self._answered > self._expected.timeout:  # the keys lie in process 0
                missing = {0: f"has not answered for {now - self._answered:.0f} s"}
            if missing:
                _end("; ".join(f"{self._hosts[index]} {words}" for index, words in missing.items()))


_group: _Group | None = None


def _end(words: str) -> None:
    """Ends this process whatever its main thread waits for."""
    print(f"mpjax: {words}; give the same command again to go on", file=sys.stderr, flush=True)
    os._exit(LostProcess.status)
