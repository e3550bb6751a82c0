"""How programs are compiled, timed and kept within the memory of a device."""

import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from mpjax.errors import InputError
from mpjax.evaluation.statistics import median_interval

WARM_UP = 2


def compiled(program: Any, *arguments: Any) -> tuple[Any, float]:
    """A jitted program compiled for arguments (arrays or `jax.ShapeDtypeStruct`), and the seconds that took."""
    start = time.perf_counter()
    result = program.lower(*arguments).compile()
    return result, time.perf_counter() - start


def planned_bytes(program: Any) -> int:
    """Memory that a compiled program needs at once: arguments, results and temporaries, as XLA planned it."""
    plan = program.memory_analysis()
    held = plan.argument_size_in_bytes + plan.output_size_in_bytes - plan.alias_size_in_bytes
    return held + plan.temp_size_in_bytes


def check_memory(what: str, needed: int, device: Any) -> None:
    """Refuses what cannot fit. Devices that do not tell their memory (CPU) take anything.

    Args:
        what: needs the memory, in words.
        needed: bytes.
        device: a `jax.Device`.

    Raises:
        InputError: more than the device gives to this process.
    """
    limit = (device.memory_stats() or {}).get("bytes_limit")
    if limit is not None and needed > limit:
        raise InputError(
            f"{what} needs {needed / 1e9:.1f} GB, but {device.device_kind} gives this process {limit / 1e9:.1f} GB: "
            "take a larger device, raise XLA_PYTHON_CLIENT_MEM_FRACTION, or lower data.height and data.width"
        )


def peak_bytes(device: Any) -> int | None:
    """Most memory that was in use on a device since the process began; None where it does not tell (CPU)."""
    return (device.memory_stats() or {}).get("peak_bytes_in_use")


def timed(call: Callable[[], Any], repeats: int) -> dict[str, Any]:
    """Seconds of a call until its results are there, after `WARM_UP` calls that are not counted.

    Returns:
        {repeats, median, ci95, least, most}: the interval is that of the median (order statistics).
    """
    seconds = []
    for n in range(-WARM_UP, repeats):
        start = time.perf_counter()
        jax.block_until_ready(call())
        if n >= 0:
            seconds.append(time.perf_counter() - start)
    median, low, high = median_interval(np.asarray(seconds))
    return {
        "repeats": repeats,
        "median": float(median),
        "ci95": [float(low), float(high)],
        "least": min(seconds),
        "most": max(seconds),
    }
