"""Memory of records is used again, which is most of what reading a large one takes.

A clip of a minute is a record of some 80 MB, copied several times between disk and batch. glibc returns every freed
block above 32 MB to the kernel, and the next one begins with a page fault for each 4 KiB: on virtual machines these
take several times longer than all copies (`benchmarks.data_loading`).
"""

import ctypes

# <malloc.h>
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
# Larger blocks go back to the kernel as before.
LARGEST = 1 << 30


def keep_freed_blocks() -> None:
    """Lets this process keep freed blocks below 1 GiB for its next ones; nothing happens without glibc.

    Resident memory then stays at its peak.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # another C library, or another system
        return
    mallopt(M_MMAP_THRESHOLD, LARGEST)
    mallopt(M_TRIM_THRESHOLD, (1 << 31) - 1)
