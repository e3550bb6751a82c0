"""Opens a dataset and reads its first batch; prints seconds and bytes beyond the imports.

python tests/data/first_batch.py DATASET
"""

import json
import sys
import time
from pathlib import Path

from mpjax.data.clip_batches import Weighted, batches
from mpjax.data.latents import open_dataset
from mpjax.data.pipeline import read_from


def resident_peak() -> int:
    """The largest resident memory of this process so far, in bytes."""
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")]
    return int(line.split()[1]) * 1024


def main(path: Path) -> None:
    """Lists, buckets and reads."""
    before, start = resident_peak(), time.monotonic()
    dataset = open_dataset(path)
    ordered = batches(
        [Weighted(dataset=dataset)],
        split="train",
        codec=dataset.codec,
        batch_size=16,
        segments=4,
        seed=0,
        segments_at=lambda step: 4,
        prompt_bytes=32,
    )
    batch = next(read_from(ordered, 0))
    assert batch.segments.shape[:2] == (16, 4)
    print(json.dumps({"seconds": time.monotonic() - start, "bytes": resident_peak() - before, **dataset.counts}))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
