"""However many hosts share a batch, together they have the batch of one."""

import jax
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from mpjax import config, experiment
from mpjax.datasets import open_datasets
from mpjax.parallel.rows import local_rows, place_rows

SMOKE = f"{config.find('recall_tiny.py')}:smoke"


def of_rows(loaded, rows):
    datasets = open_datasets(loaded, rows)
    return [datasets.train[7], datasets.validation[3]]


@pytest.mark.parametrize("hosts", [1, 2, 4])
def test_recallworld_draws_the_rows_of_each_host(hosts):
    loaded = experiment.load(SMOKE, ["--config.training.batch_size=8"])
    parts = [of_rows(loaded, range(host * 8 // hosts, (host + 1) * 8 // hosts)) for host in range(hosts)]
    for whole, *pieces in zip(of_rows(loaded, None), *parts, strict=True):
        joined = jax.tree.map(lambda *x: np.concatenate(x), *pieces)
        assert jax.tree.all(jax.tree.map(np.array_equal, whole, joined))
    assert parts[0][0].reference.shape[0] == 8 // hosts


def test_rows_need_not_be_neighbours():
    loaded = experiment.load(SMOKE, ["--config.training.batch_size=8"])
    whole, some = of_rows(loaded, None)[0], of_rows(loaded, (1, 4, 7))[0]
    assert jax.tree.all(jax.tree.map(lambda x, y: np.array_equal(x[[1, 4, 7]], y), whole, some))


def test_place_rows_makes_the_batch_again():
    sharding = NamedSharding(Mesh(jax.devices()[:1], ("data",)), PartitionSpec("data"))
    rows = local_rows(sharding, 6)
    assert rows == tuple(range(6))
    x = np.arange(12.0).reshape(6, 2)
    placed = place_rows({"x": x}, rows, sharding, 6)["x"]
    assert placed.sharding == sharding
    np.testing.assert_array_equal(placed, x)
