"""Fixtures of the training tests."""

import numpy as np
import pytest

from mpjax.training import loop
from tests.training.linear_runs import Small


@pytest.fixture
def poison(monkeypatch):
    """A set of updates whose batches hold a NaN, in runs of the linear network."""
    updates = set()
    plain = loop.read_from

    def read_from(dataset, first):
        for number, data in enumerate(plain(dataset, first), first + 1):
            if number in updates:
                data = data.replace(segments=data.segments * np.float32("nan"))
            yield data

    monkeypatch.setattr(loop, "read_from", read_from)
    monkeypatch.setattr(loop, "Denoiser", Small)
    return updates
