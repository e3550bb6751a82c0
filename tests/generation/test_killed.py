import json
import os
import subprocess
import sys
from pathlib import Path

import av
import numpy as np
import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def aftermath(world_run, tmp_path_factory):
    """(what `killed.py` reports, its folder)."""
    folder = tmp_path_factory.mktemp("killed")
    cache = {
        "JAX_COMPILATION_CACHE_DIR": str(folder / "cache"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
    }
    command = [sys.executable, str(ROOT / "tests/generation/killed.py"), str(world_run), str(folder)]
    environment = {**os.environ, **cache, "PYTHONPATH": str(ROOT)}
    result = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment)
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout), folder


def frames_of(path: Path) -> np.ndarray:
    with av.open(path) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


def test_every_kill_ends_in_the_same_bytes(aftermath):
    report, folder = aftermath
    assert report["whole"] == report["last"] == 0
    assert [ending for _, ending, _ in report["kills"]] == [-9] * 7
    assert (folder / "killed.mp4").read_bytes() == (folder / "whole.mp4").read_bytes()
    assert (folder / "killed.mp4.json").read_bytes() == (folder / "whole.mp4.json").read_bytes()
    assert frames_of(folder / "killed.mp4").shape == (50, 16, 16, 3)
    left = {path.name for path in folder.iterdir() if path.name.startswith("killed")}
    assert left == {"killed.mp4", "killed.mp4.json"}


def test_after_every_kill_the_parts_play(aftermath):
    """Nothing that was written is lost: 1 + 4 frames a segment, and no process does again what was saved."""
    playable = {name: count for name, _, count in aftermath[0]["kills"]}
    assert playable["inside_the_first_part"] == 1
    assert playable["before_the_state"] == 1 + 4 * 3
    assert playable["inside_a_part"] == 1 + 4 * 5
    assert playable["inside_the_state"] == 1 + 4 * 8
    assert 1 + 4 * 10 <= playable["from_outside"] <= 50
    assert playable["inside_the_join"] == playable["before_cleaning"] == 50
    log = (aftermath[1] / "log.txt").read_text()
    assert "going on after segment 2 of 13" in log and "going on after segment 5 of 13" in log
    assert "finished already" in log


def test_sigterm_leaves_a_partial_video_and_the_way_on(aftermath):
    report, folder = aftermath
    assert report["stopped"] == 143
    partial = frames_of(folder / "stopped.partial.mp4")
    assert len(partial) == report["stopped_frames"] >= 1 + 4 * 5
    assert len(partial) < 400 and not (folder / "stopped.mp4").exists()
    assert (folder / "stopped.mp4.parts" / "state.safetensors").is_file()
    assert f"stopped after {len(partial)} of 400 frames; the same command goes on" in (folder / "log.txt").read_text()
