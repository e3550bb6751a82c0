"""The same five updates on every mesh, on 8 CPU devices: losses, gradients and parameters are those of one device."""

import numpy as np
import pytest

from tests.parallel.five_steps import STEPS
from tests.parallel.processes import run

ROUND_OFF = 5e-6  # seen: 1.2e-6
# A mesh, and how much of the parameters a device may hold.
MESHES = {
    "context4_data2": ({"context": 4, "data": 2}, 1.0),
    "data8": ({"data": 8}, 1.0),
    "fsdp8": ({"fsdp": 8}, 0.4),
    "tensor2_fsdp4": ({"tensor": 2, "fsdp": 4}, 0.3),
    "slices2_fsdp4": ({"slices": 2, "fsdp": 4}, 0.35),
    "context2_fsdp2_tensor2": ({"context": 2, "fsdp": 2, "tensor": 2}, 0.45),
}
SLOW = [name for name in MESHES if name != "context4_data2"]


@pytest.fixture(scope="module")
def steps(tmp_path_factory):
    """(folder with one device's five updates and those of the first mesh, shares)."""
    folder = tmp_path_factory.mktemp("steps")
    meshes = {"one": {}, "context4_data2": MESHES["context4_data2"][0]}
    return folder, run("five_steps.py", {"folder": str(folder), "meshes": meshes})


@pytest.fixture(scope="module")
def others(steps):
    """The same for all other meshes."""
    meshes = {name: MESHES[name][0] for name in SLOW}
    return steps[0], run("five_steps.py", {"folder": str(steps[0]), "meshes": meshes})


def differences(folder, name):
    """{array: largest difference from one device's, over the largest entry of its kind there}."""
    with np.load(folder / "one.npz") as one, np.load(folder / f"{name}.npz") as mesh:
        want, got = ({key: arrays[key].astype(np.float64) for key in arrays.files} for arrays in (one, mesh))
    assert set(want) == set(got)
    kinds: dict[str, float] = {}
    for key, value in want.items():
        kind = key.rsplit(".", 1)[0]
        kinds[kind] = max(kinds.get(kind, 0.0), np.abs(value).max())
    return {key: np.abs(got[key] - value).max() / kinds[key.rsplit(".", 1)[0]] for key, value in want.items()}


def check(folder, name, shares, params):
    found = differences(folder, name)
    assert {key for key in found if key.startswith("gradient.4.")} and len(found) > 300
    off = {key: value for key, value in found.items() if not value < ROUND_OFF}
    assert not off
    mesh = MESHES[name][0]
    videos = mesh.get("slices", 1) * mesh.get("data", 1) * mesh.get("fsdp", 1)
    assert shares["compiled_again"] == 0
    assert shares["carry"] == 1 / videos
    assert shares["params"] == shares["gradient"] == shares["ema"] <= params
    assert (shares["params"] == 1.0) == (params == 1.0)


def test_the_updates_say_something(steps):
    """Losses differ, every leaf moves that can, and the last gradients are no round-off."""
    with np.load(steps[0] / "one.npz") as found:
        assert len(set(found["losses"])) == STEPS and np.isfinite(found["losses"]).all()
        largest = {key: float(np.abs(found[key]).max()) for key in found.files if key.startswith("gradient.4.")}
    # Softmax cannot see the bias of a key.
    assert [key for key, value in largest.items() if value < 1e-6 * max(largest.values())] == [
        "gradient.4.context_embedder/block_0/to_k/bias"
    ]


def test_context_and_data(steps):
    check(steps[0], "context4_data2", steps[1]["context4_data2"], 1.0)


@pytest.mark.slow
@pytest.mark.parametrize("name", SLOW)
def test_every_mesh(others, name):
    check(others[0], name, others[1][name], MESHES[name][1])


@pytest.mark.slow
@pytest.mark.parametrize("count", [2, 4])
def test_processes_over_loopback(steps, count):
    """Two slices are two processes of four devices, or pairs of processes of two."""
    meshes = {"slices2_fsdp4": MESHES["slices2_fsdp4"][0]}
    shares = run("five_steps.py", {"folder": str(steps[0]), "meshes": meshes}, count)
    check(steps[0], "slices2_fsdp4", shares["slices2_fsdp4"], MESHES["slices2_fsdp4"][1])
