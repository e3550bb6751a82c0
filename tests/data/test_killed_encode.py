import json
import subprocess
import sys

import pytest

from tests.data import killed_encode
from tests.data.media import moving, write_video


@pytest.mark.parametrize(
    ("runs", "by"),
    [(4, "operations"), *(pytest.param(40, by, marks=pytest.mark.slow) for by in ("operations", "seconds"))],
)
def test_killed_at_random_moments_it_gives_the_same_bytes(tmp_path, runs, by):
    videos, out = tmp_path / "videos", tmp_path / "out"
    for folder in (videos, out):
        folder.mkdir()
    for i, frames in enumerate((21, 9, 14, 5, 13)):
        write_video(videos / f"{i}.mp4", moving(frames, 32, 48, seed=i))
        (videos / f"{i}.txt").write_text(f"video {i}")
    script = [sys.executable, killed_encode.__file__, videos, out / "killed", str(runs), str(runs), by]
    done = subprocess.run(script, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said["killed"] >= 2 * runs and said["operations"] > 50
    assert sorted(path.name for path in out.iterdir()) == sorted(["whole", *(f"killed-{i}" for i in range(runs))])
    names = sorted(path.name for path in (out / "whole").iterdir())
    assert sum("array_record" in name for name in names) > 2
    for run in range(runs):
        assert names == sorted(path.name for path in (out / f"killed-{run}").iterdir())
        for name in names:
            assert (out / "whole" / name).read_bytes() == (out / f"killed-{run}" / name).read_bytes(), (run, name)
