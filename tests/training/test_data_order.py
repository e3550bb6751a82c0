"""Batch n depends on (seed, n) alone, however it is reached."""

import jax
import numpy as np
import pytest

from mpjax import config, experiment
from mpjax.data.pipeline import read_from
from mpjax.datasets import open_datasets

SMOKE = f"{config.find('recall_tiny.py')}:smoke"


def datasets(*overrides):
    return open_datasets(experiment.load(SMOKE, ["--config.training.batch_size=2", *overrides]))


def same(a, b):
    return all(np.array_equal(x, y) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))


@pytest.mark.parametrize("threads", [1, 4])
def test_reading_from_a_step_is_indexing(threads):
    train = datasets().train
    batches = read_from(train, 3, threads=threads, prefetch=8)
    for n in (3, 4, 5, 6):
        assert same(next(batches), train[n])


def test_a_batch_is_a_function_of_seed_step_and_split():
    first, again, other = datasets(), datasets(), datasets("--config.seed=1")
    assert same(first.train[5], again.train[5])
    assert not same(first.train[5], first.train[6]) and not same(first.train[5], other.train[5])
    assert not same(first.train[5], first.validation[5])


def test_batches_follow_the_curriculum():
    """Of the 6 segments of the smoke run, 2 may have a loss in the beginning and all of them at the end."""
    train = datasets().train
    assert not np.stack([train[n].weight[:, 2:] for n in range(3)]).any()
    assert np.stack([train[n].weight[:, 2:] for n in range(15, 20)]).any()


def test_a_batch_is_shown_as_often_as_its_stage_says(tmp_path):
    """Stages of 5 updates in pairs, 4 one by one and 4 in threes; each stage begins with a batch of its own."""
    path = tmp_path / "repeated.py"
    path.write_text(REPEATED)
    repeated, plain = (open_datasets(experiment.load(f"{path}:{name}")) for name in ("repeated", "plain"))
    shown = [0, 0, 2, 2, 4, 5, 6, 7, 8, 9, 9, 9, 12]
    for n, m in enumerate(shown):
        assert same(repeated.train[n], plain.train[m]), n
    for first in (1, 3, 10):  # resumed in the middle of a repeat
        batches = read_from(repeated.train, first)
        assert all(same(next(batches), plain.train[m]) for m in shown[first:])
    assert same(repeated.validation[1], plain.validation[1])


REPEATED = """
from configs.recall_tiny import get_config as recall_tiny


def get_config(argument):
    config = recall_tiny("smoke")
    stage = dict(curriculum=[(0, 2), (3, 4)])
    repeats = [(5, 2), (4, 1), (4, 3)] if argument == "repeated" else [(5, 1), (4, 1), (4, 1)]
    stages = [dict(stage, steps=steps, repeat=repeat) for steps, repeat in repeats]
    config.training.update(stages=stages, batch_size=2)
    return config
"""
