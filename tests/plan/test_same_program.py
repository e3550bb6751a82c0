"""The program that `plan` compiles is the one that `train` runs."""

import subprocess
import sys
from pathlib import Path

from tests.training.runs import ROOT, environment, write_config


def test_plan_lowers_the_program_of_train(tmp_path):
    """Shardings, donation, counted faults and what waits in the host are in its text, on a mesh of four."""
    folder, program = tmp_path / "run", Path(__file__).with_name("same_program.py")
    done = subprocess.run(
        [sys.executable, program, str(write_config(tmp_path)), str(folder)],
        capture_output=True,
        text=True,
        env=environment(tmp_path / "cache"),
        cwd=ROOT,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    trained, planned = ((folder / name).read_text() for name in ("train.txt", "plan.txt"))
    assert "sdy.sharding" in trained and ("tf.aliasing_output" in trained or "jax.buffer_donor" in trained)
    assert 'memory_kind = "pinned_host"' in trained
    assert planned == trained
