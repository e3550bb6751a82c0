"""Which clips a batch shows, by index alone."""

import collections
from fractions import Fraction

import numpy as np
import pytest

from mpjax.data.clip_order import ClipOrder, streams_of, turn
from mpjax.errors import InputError

SMALL, LARGE = (32, 48), (64, 64)


def columns(*groups):
    """Height, width and segments of clips: ((size, segments), …)."""
    sizes = np.array([size for size, segments in groups for _ in segments])
    return sizes[:, 0], sizes[:, 1], np.array([n for _, segments in groups for n in segments])


def order_of(*datasets, batch_size=4, seed=0, weights=None):
    return ClipOrder(streams_of(datasets, weights or [1.0] * len(datasets)), batch_size=batch_size, seed=seed)


def shown(order, steps):
    return [(order[step].dataset, int(record)) for step in steps for record in order[step].records]


@pytest.mark.parametrize(("clips", "batch_size"), [(12, 4), (13, 4), (5, 4), (3, 8), (1, 4), (64, 64), (7, 1)])
def test_every_pass_shows_each_clip_once_without_a_gap(clips, batch_size):
    lengths = np.random.default_rng(0).integers(1, 9, clips)
    order = order_of(columns((SMALL, lengths)), batch_size=batch_size)
    records = [record for _, record in shown(order, range(-(-6 * clips // batch_size)))]
    passes = [records[i : i + clips] for i in range(0, 6 * clips, clips)]
    assert all(sorted(p) == list(range(clips)) for p in passes)
    if clips > 4:
        assert len({tuple(p) for p in passes}) == 6


def test_it_is_a_function_of_seed_and_step():
    one, again, other = (order_of(columns((SMALL, [1, 2] * 10), (LARGE, [3] * 9)), seed=s) for s in (5, 5, 6))
    steps = [40, 3, 0, 17, 3]  # in any order, as readers ask
    assert shown(one, steps) == [pair for step in steps for pair in shown(again, [step])]
    assert shown(one, range(20)) != shown(other, range(20))


def test_a_batch_has_one_size_and_about_one_length():
    lengths = np.array([1, 2, 4, 8] * 8)
    order = order_of(columns((SMALL, lengths), (LARGE, lengths)))
    heights = np.repeat([32, 64], len(lengths))
    both = np.tile(lengths, 2)
    for step in range(64):
        records = order[step].records
        assert len(set(heights[records])) == 1
        assert len(set(both[records])) == 1  # 8 clips of each length are two batches of 4
    # Long batches are not all at the end of a pass.
    first = [int(both[order[step].records[0]]) for step in range(16)]
    assert first != sorted(first)


def test_only_batches_that_reach_over_the_end_of_a_pass_mix_lengths():
    lengths = np.array([1] * 9 + [5] * 9)
    order = order_of(columns((SMALL, lengths)))
    mixed = [step for step in range(90) if len(set(lengths[order[step].records])) > 1]
    # 18 clips in batches of 4: places 16 to 19 lie in two passes; within a pass lengths meet in one batch at most.
    for start in range(0, 90, 9):
        assert len([step for step in mixed if start <= step < start + 9]) <= 4


def test_turns_by_brute_force():
    for turns in ([3], [1, 1], [7, 12, 1], [5, 1, 1, 1, 30], [100, 171]):
        had = collections.Counter()
        whole = sum(turns)
        for step in range(2 * whole):
            number, before = turn(step, turns)
            assert before == had[number]
            had[number] += 1
            for i, share in enumerate(turns):
                assert abs(had[i] - (step + 1) * share / whole) < len(turns)
            if (step + 1) % whole == 0:
                assert [had[i] for i in range(len(turns))] == [(step + 1) // whole * share for share in turns]


def test_sizes_keep_pace_so_that_an_epoch_shows_each_clip_once():
    order = order_of(columns((SMALL, [1] * 8), (LARGE, [1] * 16)))
    for epoch in range(3):
        records = shown(order, range(6 * epoch, 6 * (epoch + 1)))
        assert sorted(records) == [(0, i) for i in range(24)]


def test_a_mixture_draws_by_weight_and_each_dataset_evenly():
    order = order_of(
        columns((SMALL, [1] * 8)), columns((SMALL, [1] * 40), (LARGE, [1] * 8)), weights=[3.0, 1.0], batch_size=4
    )
    counts = collections.Counter(shown(order, range(4 * 12)))  # 36 batches of the first, 10 + 2 of the second
    assert {counts[0, i] for i in range(8)} == {36 * 4 // 8}
    assert [sum(counts[1, i] for i in part) for part in (range(40), range(40, 48))] == [40, 8]
    assert set(counts.values()) == {18, 1}


def test_no_clips():
    with pytest.raises(InputError, match="no clips"):
        ClipOrder([], batch_size=1, seed=0)


@pytest.mark.parametrize(("weights", "share"), [([1e-7, 1e-7], (1, 2)), ([1e-7, 3e-7], (1, 4)), ([0.1, 0.2], (1, 3))])
def test_weights_count_to_their_last_digit(weights, share):
    streams = streams_of([columns((SMALL, [1, 2, 3]))] * 2, weights)
    assert [stream.share for stream in streams] == [Fraction(*share), 1 - Fraction(*share)]
    order = ClipOrder(streams, batch_size=2, seed=0)
    assert sum(order[step].dataset == 0 for step in range(12)) == 12 * Fraction(*share)
