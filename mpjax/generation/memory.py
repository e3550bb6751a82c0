"""How much memory this process holds."""

import resource
from pathlib import Path

STATM = Path("/proc/self/statm")


def resident_mb() -> float | None:
    """Resident memory in MiB; None where the platform has no /proc."""
    if not STATM.is_file():
        return None
    return int(STATM.read_text().split()[1]) * resource.getpagesize() / 2**20
