"""What a lone process knows of groups; two processes are in tests/training/test_hosts.py."""

import pytest

from mpjax.__main__ import main
from mpjax.errors import InputError, LostProcess
from mpjax.parallel import processes
from mpjax.parallel.processes import Processes

LAUNCHER = ("JAX_NUM_PROCESSES", "JAX_PROCESS_ID", "JAX_COORDINATOR_ADDRESS")


@pytest.fixture
def launched(monkeypatch):
    """A process that a launcher started as the first of 3; the default config expects 1."""
    for name, value in zip(LAUNCHER, ("3", "0", "127.0.0.1:1"), strict=True):
        monkeypatch.setenv(name, value)


@pytest.mark.parametrize("count", [1, 2])
def test_another_number_of_processes_is_refused_before_they_meet(launched, count):
    said = f"JAX_NUM_PROCESSES started 3 processes, but processes.count is {count}: set --config.processes.count=3"
    with pytest.raises(InputError, match=said), processes.joined(Processes(count=count)):
        pytest.fail("ran alone")


def test_what_jax_found_must_be_what_is_expected():
    processes.check_count(Processes())
    with pytest.raises(InputError, match=r"JAX runs 1 processes, but processes\.count is 4"):
        processes.check_count(Processes(count=4))


def test_a_lone_process_waits_for_nobody():
    with processes.joined(Processes()):
        processes.barrier("anything")
        processes.began(3)
        assert processes.is_first() and processes.agree(True) and not processes.agree(False)


def test_a_lost_host_is_one_sentence_and_a_status_of_its_own(monkeypatch, capsys):
    def lose(*_):
        raise LostProcess("waited 5 s for process 1 on a: look at its log")

    monkeypatch.setattr("mpjax.verbs.train", lose)
    assert main(["train", "--config=a.py", "--run=a"]) == 75
    assert capsys.readouterr().err == "mpjax train: waited 5 s for process 1 on a: look at its log\n"


@pytest.mark.parametrize(("fields", "said"), [({"count": 0}, "count is 0"), ({"timeout": 0.5}, "timeout is 0.5")])
def test_bad_fields_are_named(fields, said):
    with pytest.raises(InputError, match=said):
        Processes(**fields)
