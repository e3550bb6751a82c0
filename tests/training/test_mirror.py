"""Checkpoints in an object store: fsspec's own in memory, and S3 as moto's server on loopback speaks it."""

import json
import shutil
import threading
import types

import fsspec
import numpy as np
import pytest

from mpjax.errors import InputError
from mpjax.training.checkpoints import Checkpoints
from mpjax.training.mirror import Mirror
from mpjax.training.retention import Retention
from mpjax.weights import COMPLETE, steps_of
from tests.training import runs
from tests.training.test_checkpoints import data_files, flip_a_bit, state_at, target_at, write


@pytest.fixture
def memory(request):
    root = f"memory://{request.node.name}"
    yield root
    fsspec.filesystem("memory").store.clear()


def describe(folder, fingerprint="a"):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "run.json").write_text(json.dumps({"fingerprint": fingerprint, "init": None}))
    (folder / "log.jsonl").write_text('{"step": 1}\n')


def step(folder, number):
    """Something of the form of a checkpoint."""
    path = folder / "checkpoints" / str(number)
    (path / "ema" / "d").mkdir(parents=True)
    (path / "ema" / "d" / "block").write_bytes(bytes([number]) * 1000)
    (path / COMPLETE).write_text("{}")


def files(folder):
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def send(folder, remote, retention=None):
    with Mirror(folder, remote, retention or Retention()):
        pass


def send_two_steps(folder, remote):
    """Steps 3 and 5 of a run, here and there; gives the store and the run's place in it."""
    describe(folder)
    for number in (3, 5):
        step(folder, number)
    send(folder, remote)
    return fsspec.core.url_to_fs(remote)


def fetch(folder, remote):
    said = []
    mirror = Mirror(folder, remote, Retention(), said.append)
    mirror.fetch_description()
    mirror.fetch_newest()
    return said


def remote_steps(remote):
    store, root = fsspec.core.url_to_fs(remote)
    store.invalidate_cache()  # s3fs remembers what it listed, and other processes write there
    return sorted(p.rsplit("/", 1)[-1] for p in store.ls(f"{root}/checkpoints", detail=False))


def test_what_is_sent_comes_back(tmp_path, memory):
    here, there = tmp_path / "here", tmp_path / "there"
    describe(here)
    step(here, 3)
    step(here, 5)
    (here / "checkpoints" / "9").mkdir()  # not finished
    send(here, memory)
    assert fetch(there, memory) == [f"checkpoint 5 fetched from {memory}"]
    sent = files(here)
    assert files(there) == {name: data for name, data in sent.items() if not name.startswith("checkpoints/3/")}
    assert fetch(there, memory) == []  # it is there


def test_a_description_that_was_cut_short_is_fetched_again(tmp_path, memory):
    here, there = tmp_path / "here", tmp_path / "there"
    describe(here)
    step(here, 3)
    send(here, memory)
    there.mkdir()
    (there / "run.json.tmp").write_text("{")
    assert fetch(there, memory) == [f"checkpoint 3 fetched from {memory}"]
    assert files(there) == files(here)


def test_an_empty_store_changes_nothing(tmp_path, memory):
    assert fetch(tmp_path / "there", memory) == [] and not (tmp_path / "there").exists()


def test_the_remote_keeps_what_the_run_keeps(tmp_path, memory):
    describe(tmp_path)
    for number in (2, 4, 6, 8, 10):
        step(tmp_path, number)
        send(tmp_path, memory, retention=Retention(1, 4))
    assert remote_steps(memory) == ["10", "10.json", "4", "4.json", "8", "8.json"]


@pytest.mark.parametrize("harm", ["cut", "changed", "gone", "no manifest"])
def test_a_remote_step_that_is_not_whole_is_left_out(tmp_path, memory, harm):
    here, there = tmp_path / "here", tmp_path / "there"
    store, root = send_two_steps(here, memory)
    block = f"{root}/checkpoints/5/ema/d/block"
    if harm == "no manifest":
        store.rm_file(f"{root}/checkpoints/5.json")
    elif harm == "gone":
        store.rm_file(block)
    else:
        store.pipe_file(block, bytes([5]) * 999 + b"" if harm == "cut" else bytes([5]) * 999 + b"x")
    said = fetch(there, memory)
    assert said[-1] == f"checkpoint 3 fetched from {memory}"
    assert ("checkpoint 5" in said[0] and "damaged and left out" in said[0]) == (harm != "no manifest")
    assert sorted(p.name for p in (there / "checkpoints").iterdir()) == ["3"]


@pytest.mark.parametrize("manifest", [None, b"[]", b'{"files": {"a": 3}}'])
def test_a_damaged_remote_step_is_sent_anew_and_drives_no_good_one_out(tmp_path, memory, manifest):
    here, there = tmp_path / "here", tmp_path / "there"
    store, root = send_two_steps(here, memory)
    if manifest is None:
        store.pipe_file(f"{root}/checkpoints/5/ema/d/block", b"x")
    else:
        store.pipe_file(f"{root}/checkpoints/5.json", manifest)
    assert fetch(there, memory)[-1] == f"checkpoint 3 fetched from {memory}"
    step(there, 4)
    send(there, memory, retention=Retention(1))
    assert "4.json" in remote_steps(memory) and "5.json" not in remote_steps(memory)
    step(there, 5)
    send(there, memory, retention=Retention(1))
    assert fetch(tmp_path / "third", memory) == [f"checkpoint 5 fetched from {memory}"]


def test_a_fetch_that_was_killed_and_one_that_the_store_refuses(tmp_path, memory, monkeypatch):
    here, there = tmp_path / "here", tmp_path / "there"
    describe(here)
    step(here, 3)
    send(here, memory)
    (there / "checkpoints" / "fetched-2").mkdir(parents=True)
    (there / "checkpoints" / "3").mkdir()  # not finished
    mirror = Mirror(there, memory, Retention())

    def refuse(*_):
        raise ConnectionError("no route")

    with monkeypatch.context() as patch, pytest.raises(InputError, match="cannot be read: no route"):
        patch.setattr(mirror._store, "get_file", refuse)
        mirror.fetch_newest()
    assert "3.json" in remote_steps(memory)
    assert mirror.fetch_newest() == 3
    assert sorted(p.name for p in (there / "checkpoints").iterdir()) == ["3", "damaged-3"]


@pytest.mark.parametrize("remote", [(1, 2, 3), (1, 2), (0, 1)])
def test_a_step_damaged_here_comes_from_the_store(tmp_path, memory, remote):
    """That very step, or the newest before it that the store has."""
    write(tmp_path, *(state_at(n, seed=n, head=(64, 64)) for n in (0, 1, 2, 3)), keep=4)
    with Mirror(tmp_path, memory, Retention(4)):
        pass
    store, root = fsspec.core.url_to_fs(memory)
    for number in {0, 1, 2, 3} - set(remote):
        store.rm_file(f"{root}/checkpoints/{number}.json")
    for number in (0, 1, 2, 3):
        flip_a_bit(data_files(tmp_path, number)[0])
    mirror = Mirror(tmp_path, memory, Retention(), say=lambda _: None)
    with Checkpoints(tmp_path / "checkpoints", Retention(4), say=lambda _: None) as checkpoints:
        state = checkpoints.restore_newest(target_at, mirror.fetch_newest)
        assert int(state.step) == checkpoints.latest() == max(remote)
    aside = {p.name for p in (tmp_path / "checkpoints").glob("damaged-*")}
    assert aside == {f"damaged-{number}" for number in range(max(remote), 4)}


def test_a_step_that_vanishes_while_it_is_sent_is_forgotten(tmp_path, memory, monkeypatch):
    describe(tmp_path)
    step(tmp_path, 3)
    mirror = Mirror(tmp_path, memory, Retention())
    put = mirror._store.put_file

    def put_and_remove(source, target):
        put(source, target)
        shutil.rmtree(tmp_path / "checkpoints" / "3", ignore_errors=True)

    monkeypatch.setattr(mirror._store, "put_file", put_and_remove)
    with mirror:
        pass
    assert "3.json" not in remote_steps(memory)


class SlowStore:
    """Holds up every file on its way there until it is told to go on."""

    def __init__(self, mirror, monkeypatch):
        self.begun, self.go_on = threading.Event(), threading.Event()
        put = mirror._store.put_file

        def slow(source, target):
            self.begun.set()
            assert self.go_on.wait(60)
            put(source, target)

        monkeypatch.setattr(mirror._store, "put_file", slow)


def test_an_upload_slower_than_the_schedule_ends(tmp_path, memory, monkeypatch):
    """Step 1 is on its way while 2 to 5 are saved, of which one is kept; then the last one goes there."""
    monkeypatch.setattr("mpjax.training.mirror.LOOK_EVERY", 0.01)
    said, retention = [], Retention(keep=1)
    mirror = Mirror(tmp_path, memory, retention, said.append)
    store = SlowStore(mirror, monkeypatch)
    sent = []
    send_one = mirror._send
    monkeypatch.setattr(mirror, "_send", lambda number: (send_one(number), sent.append((number, mirror._complete()))))
    with mirror, Checkpoints(tmp_path / "checkpoints", retention) as checkpoints:
        checkpoints.save(state_at(1, head=(3,)))
        checkpoints.wait()
        assert store.begun.wait(60)
        for number in (2, 3, 4, 5):
            checkpoints.save(state_at(number, head=(3,)))
        checkpoints.wait()
        assert steps_of(tmp_path) == [1, 5]  # one more than is kept, until the copy is made
        store.go_on.set()
    assert sent == [(1, [1]), (5, [5])]
    assert remote_steps(memory) == ["5", "5.json"]
    (warning,) = said
    assert "more slowly than the run makes new ones" in warning
    with Checkpoints(tmp_path / "checkpoints", retention) as checkpoints:
        checkpoints.save(state_at(6, head=(3,)))
    assert steps_of(tmp_path) == [6]


def test_a_step_about_to_go_is_not_sent(tmp_path, memory):
    """Orbax has chosen what to remove, and writes: it still lies there, and is not begun."""
    describe(tmp_path)
    step(tmp_path, 3)
    retention = Retention(keep=1)
    steps = [types.SimpleNamespace(step=number) for number in (3, 6)]
    assert retention.should_preserve(steps, context=None) == [False, True]
    send(tmp_path, memory, retention=retention)
    assert not fsspec.core.url_to_fs(memory)[0].exists(f"{memory}/checkpoints/3.json")
    step(tmp_path, 6)
    send(tmp_path, memory, retention=retention)
    assert remote_steps(memory) == ["6", "6.json"]


def test_what_a_killed_copy_left_in_the_store_goes(tmp_path, memory):
    store, root = send_two_steps(tmp_path, memory)
    store.pipe_file(f"{root}/checkpoints/4/ema/d/block", b"half")
    step(tmp_path, 7)
    send(tmp_path, memory)
    assert remote_steps(memory) == ["5", "5.json", "7", "7.json"]


def test_another_run_is_refused(tmp_path, memory):
    here, there = tmp_path / "here", tmp_path / "there"
    describe(here)
    step(here, 3)
    send(here, memory)
    describe(there, fingerprint="b")
    with pytest.raises(InputError, match="mirrors another run than"):
        fetch(there, memory)


def test_what_cannot_be_sent_is_said_at_the_end(tmp_path, memory, monkeypatch):
    monkeypatch.setattr("mpjax.training.mirror.PAUSE", 0.0)
    describe(tmp_path)
    step(tmp_path, 3)
    mirror = Mirror(tmp_path, memory, Retention())

    def refuse(*_):
        raise OSError("no space")

    monkeypatch.setattr(mirror._store, "put_file", refuse)
    with (
        pytest.raises(InputError, match=r"is not in memory.*: OSError: no space; the same command again copies it"),
        mirror,
    ):
        pass


@pytest.mark.parametrize(("remote", "said"), [("bucket/run", "is no URL"), ("nothing://x", "nothing")])
def test_bad_urls_are_refused(tmp_path, remote, said):
    with pytest.raises(InputError, match=said):
        Mirror(tmp_path, remote, Retention())


# -- S3 --------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def s3():
    from tests.training.s3 import s3_server

    with s3_server() as bucket:
        yield bucket


def test_s3_keeps_a_run_that_its_machine_loses(tmp_path, s3):
    here, there = tmp_path / "here", tmp_path / "there"
    describe(here)
    for number in (3, 5, 7):
        step(here, number)
        send(here, f"{s3}/lost")
    assert remote_steps(f"{s3}/lost") == ["5", "5.json", "7", "7.json"]
    assert fetch(there, f"{s3}/lost") == [f"checkpoint 7 fetched from {s3}/lost"]
    assert (there / "checkpoints" / "7" / "ema" / "d" / "block").read_bytes() == bytes([7]) * 1000


def test_a_bucket_that_does_not_exist_is_named(tmp_path, s3):
    describe(tmp_path)
    step(tmp_path, 3)
    with (
        pytest.raises(InputError, match=r"is not in s3://nowhere/run.*bucket"),
        Mirror(tmp_path, "s3://nowhere/run", Retention()),
    ):
        pass


@pytest.mark.slow
def test_a_killed_run_goes_on_from_s3_on_an_empty_disk(tmp_path, s3):
    """Killed after update 8, with 6 copied; another machine fetches that and ends with the bits of an unbroken run."""
    config, cache = runs.write_config(tmp_path), tmp_path / "cache"
    whole = runs.run(cache, config, tmp_path / "whole")
    assert whole.returncode == 0, whole.stderr
    flag = f"--mirror={s3}/killed"
    assert runs.run(cache, config, tmp_path / "first", flag, interrupt="mirrored:8").returncode == -9
    assert "6.json" in remote_steps(f"{s3}/killed")
    shutil.rmtree(tmp_path / "first")
    second = runs.run(cache, config, tmp_path / "second", flag)
    assert second.returncode == 0, second.stderr
    assert f"checkpoint 6 fetched from {s3}/killed" in second.stdout
    for (path, a), (other, b) in zip(
        runs.checkpoint(tmp_path / "second", 10), runs.checkpoint(tmp_path / "whole", 10), strict=True
    ):
        assert path == other
        np.testing.assert_array_equal(a, b, err_msg=path)
    assert runs.log(tmp_path / "second") == runs.log(tmp_path / "whole")
    assert "10.json" in remote_steps(f"{s3}/killed")
