"""Sharing tasks between processes that only see each other's files."""

import threading

import pytest

from mpjax.ablation import schedule
from mpjax.ablation.schedule import Task, parse_share, work
from mpjax.errors import InputError


def tasks_of(names, needs, done, ran):
    """Tasks that leave their name in `done`."""

    def task(name):
        def run():
            assert set(needs.get(name, ())) <= done
            ran.append(name)
            done.add(name)

        return Task(name=name, needs=needs.get(name, ()), done=lambda: name in done, run=run)

    return [task(name) for name in names]


def test_one_process_does_all_and_skips_what_is_done():
    ran, said = [], []
    work(tasks_of("abcd", {"d": ("b",)}, {"c"}, ran), (0, 1), said.append)
    assert ran == ["a", "b", "d"]
    assert said[0] == "1 of 4 cells and timings done already" and said[-1].startswith("4/4")


def test_shares_are_disjoint_and_complete():
    done, ran = set(), []
    for index in range(3):
        mine = []
        work(tasks_of("abcdefg", {}, done, mine), (index, 3), lambda _: None)
        ran.append(mine)
    assert ran == [["a", "d", "g"], ["b", "e"], ["c", "f"]]


def test_a_share_does_what_it_can_and_waits_for_the_other(monkeypatch):
    monkeypatch.setattr(schedule, "POLL_SECONDS", 0.001)
    done, ran, said = set(), [], []
    needs = {"b": ("a",), "f": ("c",)}  # b, d and f are this share's
    asked = threading.Event()

    def say(line):
        said.append(line)
        if line.startswith("waiting"):
            done.update({"a"} if "a" in line.split()[2] else {"c"})
            asked.set()

    work(tasks_of("abcdef", needs, done, ran), (1, 2), say)
    assert ran[0] == "d" and sorted(ran) == ["b", "d", "f"] and asked.is_set()
    assert any("waiting for a, which --share=0/2 computes" in line for line in said)


@pytest.mark.parametrize("text", ["2/2", "1", "a/b", "-1/2", "0/0", ""])
def test_a_share_is_i_of_n(text):
    with pytest.raises(InputError, match="give I/N"):
        parse_share(text)
    assert parse_share("1/2") == (1, 2)
