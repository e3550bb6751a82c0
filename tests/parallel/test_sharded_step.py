"""The same update on every mesh, on 8 CPU devices of another process."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.training.runs import FLAGS, ROOT

# A mesh, and how much of the parameters one device may hold.
MESHES = [
    ({"data": 8}, 1.0),
    ({"fsdp": 4, "data": 2}, 0.35),
    ({"tensor": 2, "data": 4}, 0.85),
    ({"data": 2, "fsdp": 2, "tensor": 2}, 0.45),
]


@pytest.mark.slow
def test_one_update_is_the_same_on_every_mesh():
    environment = {**os.environ, "XLA_FLAGS": f"{FLAGS} --xla_force_host_platform_device_count=8"}
    environment["PYTHONPATH"] = str(ROOT)
    command = [sys.executable, str(Path(__file__).with_name("sharded_step.py")), *(json.dumps(m) for m, _ in MESHES)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=1200, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    result = json.loads(done.stdout)
    assert result["devices"] == 8 and result["moved"] > 0.1 and result["initial"] == 0
    for (mesh, share), row in zip(MESHES, result["rows"], strict=True):
        assert row["loss"] < 1e-5 and row["params"] < 1e-5, mesh
        assert row["carry"] < 1e-4 and row["carry_share"] == 1 / (mesh.get("data", 1) * mesh.get("fsdp", 1)), mesh
        assert row["share"] <= share and row["moments"] == row["share"], mesh
        assert (row["share"] == 1.0) == (mesh == {"data": 8}), mesh
