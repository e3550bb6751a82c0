"""Which clips a batch shows: the order of samples, a pure function of (seed, step), whatever the number of hosts.

A *stream* is the clips of one dataset and one picture size: a batch has one shape. A stream is an endless row of passes
without a gap, each with every clip once, in a new order; batch j of it is the places j b to (j + 1) b. Within a pass

1. the clips are shuffled;
2. where a batch reaches over the end of a pass, its places are filled in that order;
3. the clips of the other batches are sorted by their number of segments, so that a batch has clips of about one length
   and little padding, and these batches are shuffled.

Streams take turns: of n batches each has had its share of n, give or take less than there are streams, and exactly at
the end of every round. The shares are proportional to the streams' clips, times the weight of their dataset over its
clips; so with one dataset all streams are at about the same part of their passes, and n batches of n clips show each
clip b times.
"""

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from mpjax.errors import InputError


@dataclass(frozen=True, kw_only=True, eq=False)
class Stream:
    """Clips that can share a batch.

    Attributes:
        dataset: which one they are from.
        records: their indices in it, int64 `[n]`.
        segments: of each, int `[n]`.
        share: of all batches, above 0; shares of all streams add up to 1.
    """

    dataset: int
    records: np.ndarray
    segments: np.ndarray
    share: Fraction


@dataclass(frozen=True, kw_only=True, eq=False)
class Selection:
    """The clips of one batch: records int64 `[b]` of dataset number `dataset`."""

    dataset: int
    records: np.ndarray


class ClipOrder:
    """`order[step]` is the `Selection` of a step: Grain's random-access source."""

    def __init__(self, streams: Sequence[Stream], *, batch_size: int, seed: int):
        """`batch_size` is b, over all hosts."""
        if not streams:
            raise InputError("no clips to train on: encode some")
        self._streams, self._batch_size, self._seed = streams, batch_size, seed
        whole = math.lcm(*(stream.share.denominator for stream in streams))
        self._turns = [int(stream.share * whole) for stream in streams]
        self._pass = functools.lru_cache(maxsize=4 * len(streams))(self._make_pass)

    def __len__(self) -> int:
        return (1 << 62) // self._batch_size

    def __getitem__(self, step: int) -> Selection:
        number, batch = turn(int(step), self._turns)
        stream, size = self._streams[number], self._batch_size
        places = np.arange(batch * size, (batch + 1) * size)
        passes, offsets = np.divmod(places, len(stream.records))
        rows = [self._pass(number, int(n))[offsets[passes == n]] for n in np.unique(passes)]
        return Selection(dataset=stream.dataset, records=stream.records[np.concatenate(rows)])

    def _make_pass(self, number: int, n: int) -> np.ndarray:
        """Positions of a stream's clips in the order of its pass n, int64 `[clips]`."""
        stream, size = self._streams[number], self._batch_size
        count = len(stream.records)
        draw = np.random.default_rng([self._seed, stream.dataset, number, n])
        order = draw.permutation(count)
        head = min(-(n * count) % size, count)  # places that finish a batch of the pass before
        batches = (count - head) // size
        whole = order[head : head + batches * size]
        whole = whole[np.argsort(stream.segments[whole], kind="stable")].reshape(batches, size)
        order[head : head + batches * size] = whole[draw.permutation(batches)].reshape(-1)
        return order


def turn(step: int, turns: Sequence[int]) -> tuple[int, int]:
    """(whose turn it is, how many it has had before) where each has its number of turns in every round of their sum.

    One is told apart from all others together, then the next from the rest: in n steps it has had ⌈n p⌉ turns of those
    that were left to it, so shares are exact at the end of every round.
    """
    rest = sum(turns)
    before, after = step, step + 1  # steps that the ones not yet looked at share
    for number, share in enumerate(turns):
        rest -= share
        # Those that follow take ⌊steps · rest / (rest + share)⌋ of them.
        others_before, others_after = before * rest // (rest + share), after * rest // (rest + share)
        if others_after == others_before:
            return number, before - others_before
        before, after = others_before, others_after
    raise AssertionError("no one is left after the last")


def streams_of(columns: Sequence[tuple[np.ndarray, np.ndarray, np.ndarray]], weights: Sequence[float]) -> list[Stream]:
    """The streams of datasets.

    Args:
        columns: of each dataset: height, width and segments of its clips, int `[n]`.
        weights: how often a dataset is drawn from, relative to the others.
    """
    # As it is written: 0.1 is a tenth, and however small a weight is, it is not 0.
    exact = [Fraction(str(float(weight))) for weight in weights]
    streams = []
    for dataset, ((height, width, segments), weight) in enumerate(zip(columns, exact, strict=True)):
        for size in sorted(set(zip(height.tolist(), width.tolist(), strict=True))):
            (records,) = np.nonzero((height == size[0]) & (width == size[1]))
            share = weight / sum(exact) * Fraction(len(records), len(height))
            streams.append(Stream(dataset=dataset, records=records, segments=segments[records], share=share))
    return streams
