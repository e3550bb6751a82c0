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
