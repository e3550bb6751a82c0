import subprocess
import sys

import pytest

SCRIPT = """
import resource
from grain import MapDataset
from mpjax.data.pipeline import read_from

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        bytearray(b"x") * (40 << 20)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

print(faults())
next(read_from(MapDataset.source([0]), 0))
print(faults())
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc")
def test_a_reader_uses_freed_memory_again():
    """Page faults of 20 blocks of 40 MB, one after another, before and after reading begins."""
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True)
    before, after = map(int, done.stdout.split())
    assert after <= 1.5 * 40 * 256 < 15 * 40 * 256 < before
