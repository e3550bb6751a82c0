"""Hosts as processes of their own: together they read every clip of an epoch once, however many they are."""

import itertools
import json
import subprocess
import sys

import numpy as np
import pytest

from benchmarks.synthetic_records import record, write_dataset
from tests.data import host_rows

BATCH, CLIPS = 8, 48


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    """Two sizes and three lengths, so that 6 steps are an epoch."""

    def latents(clip: int) -> np.ndarray:
        return np.full((1 + 2 * (1 + clip % 3), 2, 2 if clip < 16 else 3, 1), clip, np.float32)

    records = [record(clip, latents(clip), segment_frames=2) for clip in range(CLIPS)]
    return write_dataset(tmp_path_factory.mktemp("hosts"), {"train": records}, segment_frames=2, shard=7)


def run(dataset, first: int, last: int, count: int) -> list[list[int]]:
    """The global batches that `count` processes read, steps `first` to `last`."""
    script = [sys.executable, host_rows.__file__, str(dataset.path), str(BATCH), str(first), str(last)]
    hosts = [
        subprocess.Popen([*script, str(i), str(count)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for i in range(count)
    ]
    rows = []
    for host in hosts:
        out, err = host.communicate()
        assert host.returncode == 0, err
        rows.append([json.loads(line) for line in out.splitlines()])
    return [list(itertools.chain(*parts)) for parts in zip(*rows, strict=True)]


@pytest.mark.parametrize(
    ("before", "after"),
    [(1, 2), pytest.param(2, 4, marks=pytest.mark.slow), pytest.param(4, 1, marks=pytest.mark.slow)],
)
def test_an_epoch_that_goes_on_with_other_hosts_shows_each_clip_once(dataset, before, after):
    first, second = run(dataset, 0, 4, before), run(dataset, 4, 12, after)
    epochs = [list(itertools.chain(*steps)) for steps in (first + second[:2], second[2:])]
    assert [sorted(epoch) for epoch in epochs] == [list(range(CLIPS))] * 2
    assert epochs[0] != epochs[1]
    assert first + second == list(host_rows.rows(str(dataset.path), BATCH, 0, 12, 0, 1))
