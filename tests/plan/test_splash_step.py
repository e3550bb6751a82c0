"""Splash attention, forward and backward, in a binary of the TPU's own compiler, and the memory of its arguments."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.training.runs import ROOT


@pytest.mark.slow
@pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None,
    reason="the TPU compiler is not installed: pip install -r requirements-plan.txt",
)
def test_a_step_with_splash_attention():
    """Over 1,241 tokens of image and prompt, on 2 × 2 chips."""
    done = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("splash_step.py"))],
        capture_output=True,
        text=True,
        cwd=ROOT,
        # The TPU compiler ends a process whose XLA_FLAGS have a flag that it does not know, as those of conftest.py.
        # It also refuses to be loaded by two processes at once, which only chips that are here would mind.
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path]),
            "XLA_FLAGS": "",
            "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
        },
        timeout=1200,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    row, counted = found["row"], found["bytes"]
    assert set(row["kernels"]) == {"splash_mha_fwd", "splash_mha_dq", "splash_mha_dkv"}
    assert row["kernels"]["splash_mha_dq"] == row["kernels"]["splash_mha_dkv"] >= 2 * 2  # blocks, segments
    # Parameters, averages and AdamW's two moments in float32, of which a chip of 2 × 2 holds at least a quarter.
    assert 16 * counted["parameters"] / 4 <= counted["state"] < 16 * counted["parameters"] / 2
    assert counted["state"] + counted["batch"] <= row["arguments"] < 1.02 * (counted["state"] + counted["batch"])
