"""Who hears which signal."""

import os
import signal

import pytest

from mpjax.stopping import stop_request


@pytest.fixture
def heard():
    """SIGTERM as JAX would hear it in a group."""
    numbers = []
    before = signal.signal(signal.SIGTERM, lambda number, _: numbers.append(number))
    yield numbers
    signal.signal(signal.SIGTERM, before)


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_lone_process_stops_itself(heard, number, status):
    with stop_request() as asked:
        os.kill(os.getpid(), number)
        assert asked.is_set() and asked.stopped().status == status
    assert heard == []


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_in_a_group_the_signal_goes_to_those_who_agree(heard, number, status):
    with stop_request(group=True) as asked:
        os.kill(os.getpid(), number)
        assert heard == [signal.SIGTERM] and not asked.is_set() and asked.stopped().status == status
