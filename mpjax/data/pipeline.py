"""Grain input: an endless dataset of batches in which batch `step` depends on (seed, step) alone.

Resuming is slicing: no iterator state to lose, whatever the number of reader threads and of hosts.
"""

import collections
from collections.abc import Callable, Iterator

import grain

from mpjax.data.batch import Batch
from mpjax.data.heap import keep_freed_blocks


def remapped(dataset: grain.MapDataset, batch_at: Callable[[int], int]) -> grain.MapDataset:
    """The dataset whose element n is element `batch_at(n)` of another."""
    return grain.MapDataset.source(_Remapped(dataset, batch_at))


class _Remapped:
    """Grain's random-access source; it remembers the last element, since the same one often follows."""

    def __init__(self, dataset: grain.MapDataset, batch_at: Callable[[int], int]):
        self._dataset, self._batch_at = dataset, batch_at
        self._last: tuple[int, Batch] | None = None

    def __len__(self) -> int:
        return len(self._dataset)

    def __getitem__(self, step) -> Batch:
        wanted, last = self._batch_at(int(step)), self._last
        if last is None or last[0] != wanted:
            self._last = last = wanted, self._dataset[wanted]
        return last[1]


def read_from(dataset: grain.MapDataset, step: int, *, threads: int = 1, prefetch: int = 4) -> Iterator[Batch]:
    """Batches `step`, `step + 1`, … prepared by background threads; from now on, this process keeps freed memory.

    Args:
        dataset: element n is batch n.
        step: first batch.
        threads: reader threads.
        prefetch: batches prepared ahead.
    """
    keep_freed_blocks()
    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=prefetch)
    return iter(dataset[step:].to_iter_dataset(options))


def on_device(batches: Iterator[Batch], place: Callable[[Batch], Batch], *, ahead: int = 1) -> Iterator[Batch]:
    """Batches on the devices, the next ones on their way while the present one is used.

    Args:
        batches: from the host.
        place: starts the copy of a batch, as `jax.device_put` with a sharding does.
        ahead: copies under way; device memory holds that many more.
    """
    waiting: collections.deque[Batch] = collections.deque()
    for batch in batches:
        waiting.append(place(batch))
        if len(waiting) > ahead:
            yield waiting.popleft()
    yield from waiting
