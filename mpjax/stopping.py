"""A polite stop: SIGTERM and Ctrl-C set a flag, and the work looks at it where it can save and leave."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def stop_request() -> Iterator[threading.Event]:
    """An event that SIGTERM or Ctrl-C sets; the previous handlers return afterwards."""
    event = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield event  # signals reach the main thread only; a caller in another thread stops in its own way
        return
    signals = (signal.SIGTERM, signal.SIGINT)
    previous = [signal.signal(s, lambda *_: event.set()) for s in signals]
    try:
        yield event
    finally:
        for s, handler in zip(signals, previous, strict=True):
            signal.signal(s, handler)
