"""Real processes that take turns: order, what is measured, and what goes wrong, each in one sentence."""

import os
import sys

import numpy as np
import pytest
from safetensors.numpy import save_file

from benchmarks.side_by_side import race as race_module
from benchmarks.side_by_side.race import Contestant, race
from mpjax.errors import InputError


def contestant(variant):
    command = (sys.executable, "-m", "tests.benchmarks.side_by_side.numpy_side")
    return Contestant(name=f"numpy {variant}", command=command, variant=variant)


@pytest.fixture
def run(tmp_path):
    """Races variants for a number of rounds; returns what is found and the order of the turns."""
    matrix = np.random.default_rng(0).normal(size=(64, 64)).astype(np.float32)
    save_file({"matrix": matrix}, tmp_path / "matrix.safetensors")
    turns = tmp_path / "turns"

    def run(*variants, rounds=4, megabytes=1, sleep=0.0, cores=()):
        job = {"matrix": str(tmp_path / "matrix.safetensors"), "turns": str(turns)}
        job |= {"megabytes": megabytes, "sleep": sleep}
        folder = tmp_path / "results"
        folder.mkdir(exist_ok=True)
        sides = [contestant(variant) for variant in variants]
        found = race(sides, job, rounds=rounds, cores=cores, tolerance=1e-3, folder=folder, say=lambda _: None)
        assert list(folder.iterdir()) == []
        return found, turns.read_text().split()

    return run


def test_sides_take_turns_and_each_begins_a_round(run):
    found, turns = run("a", "b", "c", rounds=4)
    warm = ["a", "a", "b", "b", "c", "c"]
    assert turns == [*warm, *"abc", *"bca", *"cab", *"abc"]
    assert list(found) == ["numpy a", "numpy b", "numpy c"]
    for row in found.values():
        lists = ("seconds", "cpu_seconds", "multiply_flops_per_second")
        assert all(len(row[name]) == 4 and min(row[name]) > 0 for name in lists)
    assert found["numpy a"]["error"] is None
    assert found["numpy b"]["error"] == {"name": "square", "relative_l2": 0.0, "tolerance": 1e-3}


def test_sides_are_told_to_keep_freed_memory(run, monkeypatch):
    """By the environment that glibc reads, of which the user's own has the last word."""
    for name in race_module.KEEPING:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MALLOC_ARENA_MAX", "2")
    found, _ = run("a", rounds=1)
    told = {name: found["numpy a"]["about"]["environment"].get(name) for name in race_module.KEEPING}
    assert told == {**race_module.KEEPING, "MALLOC_ARENA_MAX": "2"}


def test_seconds_and_memory_are_those_of_the_runs(run, monkeypatch):
    monkeypatch.setattr(race_module, "KEEPING", {})  # of freed memory
    found, _ = run("quick", "slow", sleep=0.1, megabytes=200)
    quick, slow = (found[f"numpy {name}"] for name in ("quick", "slow"))
    assert min(quick["seconds"]) >= 0.1 and min(slow["seconds"]) >= 0.2
    assert max(slow["cpu_seconds"]) < 0.2  # sleeping costs none
    for row in (quick, slow):
        assert row["memory"]["device_bytes"] is None
        assert 200 << 20 <= row["memory"]["bytes"] < 220 << 20


def test_sides_are_confined_to_the_cores(run):
    core = max(os.sched_getaffinity(0))
    found, _ = run("a", rounds=1, cores=[core])
    assert found["numpy a"]["about"]["cores"] == [core] and found["numpy a"]["about"]["threads"] == "1"


@pytest.mark.parametrize(
    ("variant", "said"),
    [
        ("wrong", r"numpy wrong and numpy right disagree: square differs by 1.00e-02 of its norm, above 1e-03"),
        ("names", r"give arrays of other names or shapes \(other, square\)"),
        ("refuses", r"^numpy refuses failed at 'prepare': ValueError: a matrix$"),
        ("dies", r"^numpy dies failed at 'prepare': out of everything$"),
    ],
)
def test_a_side_that_fails_or_disagrees_ends_the_race(run, variant, said):
    with pytest.raises(InputError, match=said):
        run("right", variant)


def test_a_rival_that_does_not_speak_the_language(tmp_path, monkeypatch):
    monkeypatch.setattr(race_module, "GRACE", 0.1)
    cat = Contestant(name="parrot", command=("sh", "-c", "echo ready; cat"))
    with pytest.raises(InputError, match="parrot failed at 'load': it answered 'ready', which is no JSON"):
        race([cat], {}, rounds=1, cores=(), tolerance=1.0, folder=tmp_path)


def test_a_rival_that_cannot_be_started(tmp_path):
    nobody = Contestant(name="nobody", command=(str(tmp_path / "nothing"),))
    with pytest.raises(InputError, match=r"nothing cannot be started \(No such file or directory\)"):
        race([nobody], {}, rounds=1, cores=(), tolerance=1.0, folder=tmp_path)
