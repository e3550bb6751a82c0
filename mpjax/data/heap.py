"""Memory of records is used again, which is most of what reading one takes.

A record is copied several times between disk and batch. glibc returns every freed block above 32 MiB to the kernel, and
the next one begins with a page fault for each 4 KiB: on virtual machines these take several times longer than all
copies. The threads that read have heaps of 64 MiB: larger blocks come from the kernel whatever is set here. For those
docs/data.md names a variable of the environment.

One arena for all threads (`M_ARENA_MAX`) would hold larger blocks, too, but has no effect once JAX has started its
threads, and set before, all of them would share its lock.
"""

import ctypes

# <malloc.h>
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
# Above what any heap of a thread holds.
LARGEST = 1 << 30


def keep_freed_blocks() -> None:
    """Lets this process keep freed blocks, in reader threads those below 64 MiB, for its next ones.

    Resident memory then stays at its peak. Nothing happens without glibc, or with one that takes no threshold above
    32 MiB: a trim threshold alone would stop the adaptation that these have.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # another C library, or another system
        return
    if mallopt(M_MMAP_THRESHOLD, LARGEST):
        mallopt(M_TRIM_THRESHOLD, (1 << 31) - 1)
