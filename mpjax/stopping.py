"""A polite stop: SIGTERM and Ctrl-C set a flag, and the work looks at it where it can save and leave."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager


class Stopped(KeyboardInterrupt):
    """Work was saved and left unfinished, because a signal asked for it.

    Attributes:
        status: what a shell reports of a process that such a signal ended: 130 for Ctrl-C, 143 for SIGTERM.
    """

    def __init__(self, number: int):
        """`number` is that of the signal."""
        super().__init__()
        self.status = 128 + number


class StopRequest(threading.Event):
    """Set when a stop was asked for; `signal` is the number of the signal that did."""

    signal: int = signal.SIGINT

    def stopped(self) -> Stopped:
        """What to raise when the work is saved."""
        return Stopped(self.signal)


@contextmanager
def stop_request(group: bool = False) -> Iterator[StopRequest]:
    """An event that SIGTERM or Ctrl-C sets; the previous handlers return afterwards.

    Args:
        group: of several processes, which must agree on when to stop: JAX listens to SIGTERM (`parallel.processes`),
            Ctrl-C is handed on to it, and whoever learns what was agreed sets the event.
    """
    event = StopRequest()
    if group:
        event.signal = signal.SIGTERM
    if threading.current_thread() is not threading.main_thread():
        yield event  # signals reach the main thread only; a caller in another thread stops in its own way
        return

    def handle(number: int, _: object) -> None:
        event.signal = number
        if group:
            os.kill(os.getpid(), signal.SIGTERM)
        else:
            event.set()

    signals = (signal.SIGINT,) if group else (signal.SIGTERM, signal.SIGINT)
    previous = [signal.signal(s, handle) for s in signals]
    try:
        yield event
    finally:
        for s, handler in zip(signals, previous, strict=True):
            signal.signal(s, handler)
