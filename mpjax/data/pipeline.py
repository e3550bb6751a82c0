"""Grain input: an endless dataset of batches in which batch `step` depends on (seed, step) alone.

Resuming is slicing: no iterator state to lose, whatever the number of reader threads.
"""

from collections.abc import Iterator

import grain

from mpjax.data.batch import Batch


def read_from(dataset: grain.MapDataset, step: int, *, threads: int = 1, prefetch: int = 4) -> Iterator[Batch]:
    """Batches `step`, `step + 1`, … prepared by background threads.

    Args:
        dataset: element n is batch n.
        step: first batch.
        threads: reader threads.
        prefetch: batches prepared ahead.
    """
    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=prefetch)
    return iter(dataset[step:].to_iter_dataset(options))
