"""One video, sharded: a mesh of 8 CPU devices draws the segments that one device draws."""

import numpy as np
import pytest

from tests.parallel.processes import run

MESHES = {
    "context4_tensor2": {"context": 4, "tensor": 2},
    "fsdp2_context2_tensor2": {"fsdp": 2, "context": 2, "tensor": 2},
}


@pytest.fixture(scope="module")
def found():
    return run("one_video.py", {"one": {}, **MESHES})


def check(row, one):
    latents, want = np.array(row["latents"]), np.array(one["latents"])
    assert want.shape == (4, 4, 4, 3) and want[:2].std() > 0.1 and want[2:].std() > 0.1
    np.testing.assert_allclose(latents, want, atol=1e-5 * np.abs(want).max())
    assert row["share"] < 0.85


@pytest.mark.slow
@pytest.mark.parametrize("name", MESHES)
def test_a_mesh_draws_the_same_video(found, name):
    check(found[name], found["one"])


@pytest.mark.slow
@pytest.mark.parametrize("count", [2, 4])
def test_processes_over_loopback(found, count):
    name = "context4_tensor2"
    check(run("one_video.py", {name: MESHES[name]}, count)[name], found["one"])
