"""One host of several: prints the clips that it reads, a JSON list a step.

python tests/data/host_rows.py DATASET BATCH_SIZE FIRST LAST INDEX COUNT
"""

import json
import sys
from collections.abc import Iterator
from pathlib import Path

from mpjax.data.clip_batches import Weighted, batches
from mpjax.data.latents import open_dataset
from mpjax.data.pipeline import read_from


def rows(path: str, batch_size: int, first: int, last: int, index: int, count: int) -> Iterator[list[int]]:
    """The clips of each step; they tell their number by their reference frame."""
    dataset, part = open_dataset(Path(path)), batch_size // count
    ordered = batches(
        [Weighted(dataset=dataset)],
        split="train",
        codec=dataset.codec,
        batch_size=batch_size,
        segments=2,
        seed=7,
        segments_at=lambda step: 2,
        prompt_bytes=8,
        rows=range(index * part, (index + 1) * part),
    )
    reader = read_from(ordered, first, threads=2)
    for _ in range(first, last):
        yield [int(reference[0, 0, 0, 0]) for reference in next(reader).reference]


if __name__ == "__main__":
    for row in rows(sys.argv[1], *map(int, sys.argv[2:])):
        print(json.dumps(row))
