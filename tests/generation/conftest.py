"""One tiny run and one compilation for all tests of generation."""

from pathlib import Path

import pytest

from mpjax.generation.rollout import Rollout
from mpjax.weights import TrainedRun, load_run
from tests.generation.runs import recallworld_experiment, write_run


@pytest.fixture(scope="session")
def world_run(tmp_path_factory) -> Path:
    """A RecallWorld run folder."""
    return write_run(tmp_path_factory.mktemp("runs") / "world", recallworld_experiment())


@pytest.fixture(scope="session")
def trained(world_run) -> TrainedRun:
    """Its weights."""
    return load_run(world_run)


@pytest.fixture(scope="session")
def rollout(trained) -> Rollout:
    """Its compiled functions."""
    return Rollout.of(trained)
