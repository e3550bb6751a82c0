"""What a run is watched with, besides its log."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax


@dataclasses.dataclass(frozen=True, kw_only=True)
class Instruments:
    """What a run is watched with; none of it changes its numbers.

    Attributes:
        profile_steps: first and last update to trace, counted from 1.
        check_numerics: look at every update, and name what first was not finite; holds the state twice.
        compilation_cache: folder for compiled programs.
    """

    profile_steps: tuple[int, int] | None = None
    check_numerics: bool = False
    compilation_cache: Path | None = None


NO_INSTRUMENTS = Instruments()


class Profile:
    """Traces updates `first` to `last` of a run, counted from 1, into a folder; a context manager that ends a trace."""

    def __init__(self, folder: Path, steps: tuple[int, int] | None, say: Callable[[str], None]):
        """`steps` is (first, last); None traces nothing."""
        self._folder, self._say = folder, say
        self._first, self._last = steps or (0, 0)
        self._running = False

    def __enter__(self) -> "Profile":
        return self

    def __exit__(self, *error: object) -> None:
        if self._running:
            self._stop()

    def _stop(self) -> None:
        jax.profiler.stop_trace()
        self._running = False
        self._say(f"profile: {self._folder} (tensorboard with the plugin xprof, or Perfetto)")

    def begin(self, step: int) -> None:
        """Update `step` comes next."""
        if not self._running and self._first <= step <= self._last:
            options = jax.profiler.ProfileOptions()
            options.python_tracer_level = 0  # it looks into every thread of the process, and can bring it down
            jax.profiler.start_trace(self._folder, profiler_options=options)
            self._running = True

    def end(self, step: int, result: Any) -> None:
        """Update `step` was sent off; the trace waits for its arrays."""
        if self._running and step >= self._last:
            jax.block_until_ready(result)
            self._stop()
