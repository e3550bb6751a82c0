import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mpjax.data import work_folder as module
from mpjax.data.work_folder import work_folder
from mpjax.errors import InputError

SETTINGS = {"fps": 12, "inputs": "a", "sizes": [[1, 2]]}
HOLD = """
import sys, time
from pathlib import Path
from mpjax.data.work_folder import work_folder
with work_folder(Path(sys.argv[1]), {"fps": 12, "inputs": "a", "sizes": [[1, 2]]}, print) as folder:
    (folder / "done").touch()
    print("holding", flush=True)
    time.sleep(60)
"""


def enter(output, **changes):
    said = []
    with work_folder(output, SETTINGS | changes, said.append) as folder:
        (folder / "deep").mkdir(exist_ok=True)
        (folder / "deep" / "file").write_text("x")
        assert folder.name == "out.partial"
    return said


def interrupt(output, **changes):
    with pytest.raises(KeyboardInterrupt), work_folder(output, SETTINGS | changes, print) as folder:
        (folder / "cache").touch()
        raise KeyboardInterrupt


def test_a_second_run_waits_and_a_killed_one_leaves_no_lock(tmp_path):
    holder = subprocess.Popen([sys.executable, "-c", HOLD, tmp_path / "out"], stdout=subprocess.PIPE, text=True)
    assert holder.stdout.readline() == "holding\n"
    with pytest.raises(InputError, match=r"^another run is writing .*/out: wait for it$"):
        enter(tmp_path / "out")
    enter(tmp_path / "other" / "out")
    os.kill(holder.pid, signal.SIGKILL)
    holder.wait()
    holder.stdout.close()
    assert (tmp_path / "out.partial" / "done").is_file()
    enter(tmp_path / "out")
    assert [path.name for path in tmp_path.rglob("*")] == ["other"]


def test_it_stays_for_the_next_run_only_where_something_was_done(tmp_path):
    with pytest.raises(InputError, match="bad"), work_folder(tmp_path / "out", SETTINGS, print):
        raise InputError("bad")
    assert list(tmp_path.iterdir()) == []
    interrupt(tmp_path / "out")
    with work_folder(tmp_path / "out", SETTINGS, print) as folder:
        assert (folder / "cache").is_file()
    assert list(tmp_path.iterdir()) == []


def test_other_settings_are_refused_and_other_inputs_told(tmp_path):
    interrupt(tmp_path / "out")
    with pytest.raises(InputError, match=r"out\.partial: an interrupted run with other fps left this: give its"):
        enter(tmp_path / "out", fps=6)
    assert (tmp_path / "out.partial" / "cache").is_file()
    interrupt(tmp_path / "out", sizes=((1, 2),))  # a tuple is a list in JSON
    (said,) = enter(tmp_path / "out", inputs="b")
    assert "of other videos or captions" in said


def test_a_lock_that_was_removed_is_not_held(tmp_path, monkeypatch):
    """Between opening and locking, the run that held it ended."""
    real, opened = module.fcntl.flock, []

    def removed_first(file, how):
        opened.append(file)
        if len(opened) == 1:
            Path(file.name).unlink()
        real(file, how)

    monkeypatch.setattr(module.fcntl, "flock", removed_first)
    assert enter(tmp_path / "out") == [] and len(opened) == 2


def test_a_file_system_without_locks(tmp_path, monkeypatch):
    def none(file, how):
        raise OSError(95, "not supported")

    monkeypatch.setattr(module.fcntl, "flock", none)
    began = time.monotonic()
    assert enter(tmp_path / "out") == [] and time.monotonic() - began < 5
