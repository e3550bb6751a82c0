import ctypes
import os
import platform
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from mpjax.data import heap

SCRIPT = """
import resource
import sys
import grain
from mpjax.data.pipeline import read_from

SIZE = int(sys.argv[1]) << 20
blocks = grain.MapDataset.source(range(100)).map(lambda n: len(bytearray(b"x") * SIZE))

def faults(reader):
    for _ in range(4):
        next(reader)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        next(reader)
    return (resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) / (20 * SIZE / resource.getpagesize())

print(faults(iter(blocks.to_iter_dataset(grain.ReadOptions(num_threads=2, prefetch_buffer_size=4)))))
print(faults(read_from(blocks, 0, threads=2)))
"""
HUGE_PAGES = Path("/sys/kernel/mm/transparent_hugepage/enabled")
GLIBC = tuple(map(int, platform.libc_ver()[1].split("."))) if platform.libc_ver()[0] == "glibc" else (0, 0)
needs_glibc = pytest.mark.skipif(GLIBC < (2, 35), reason="older ones, and other C libraries, take no such settings")


def faults_a_page(megabytes: int, **environment: str) -> list[float]:
    """Of blocks that Grain's reader threads take and free one after another: without, and with `read_from`."""
    command = [sys.executable, "-c", SCRIPT, str(megabytes)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=os.environ | environment)
    return [float(line) for line in done.stdout.split()]


@needs_glibc
def test_readers_use_freed_memory_again():
    without, kept = faults_a_page(40)
    assert kept < 0.1 < 0.5 < without


@needs_glibc
@pytest.mark.skipif(not HUGE_PAGES.exists() or "[never]" in HUGE_PAGES.read_text(), reason="no huge pages here")
def test_blocks_above_a_threads_heap_have_few_faults_in_huge_pages():
    """The variable that docs/data.md names, for records whose blocks no thread's heap holds."""
    _, plain = faults_a_page(80)
    _, huge = faults_a_page(80, GLIBC_TUNABLES="glibc.malloc.hugetlb=1")
    assert huge < 0.1 < 0.5 < plain


@pytest.mark.parametrize("takes", [0, 1])
def test_a_refused_threshold_leaves_everything_as_it_was(monkeypatch, takes):
    asked = []

    def mallopt(name: int, value: int) -> int:
        asked.append(name)
        return takes

    monkeypatch.setattr(ctypes, "CDLL", lambda name: SimpleNamespace(mallopt=mallopt))
    heap.keep_freed_blocks()
    assert asked == [heap.M_MMAP_THRESHOLD] + takes * [heap.M_TRIM_THRESHOLD]
