"""The same five updates on every mesh, on 8 CPU devices: losses, gradients and parameters are those of one device."""

import numpy as np
import pytest

from tests.parallel.five_steps import LEARNING_RATES, STEPS
from tests.parallel.processes import run

# Of the largest entry of an array; seen: 3.4e-5, at the fifth update, where a gradient is 4e-5 of the largest
ROUND_OFF = 1e-4
FLOOR = 1e-6  # of the largest entry of all gradients of an update: an array below it is round-off itself
# Softmax cannot see the bias of a key.
NOTHING_BUT_ROUND_OFF = [f"gradient.{n}.context_embedder/block_0/to_k/bias" for n in range(STEPS)]
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


def play(folder, meshes, count=1, optimizer="sgd"):
    """Five updates on each mesh by name, `one` for one device, into the folder; the shares."""
    spec = {name: MESHES[name][0] if name in MESHES else {} for name in meshes}
    return run("five_steps.py", {"folder": str(folder), "optimizer": optimizer, "meshes": spec}, count)


@pytest.fixture(scope="module")
def steps(tmp_path_factory):
    """(folder with one device's five updates and those of the first mesh, shares)."""
    folder = tmp_path_factory.mktemp("steps")
    return folder, play(folder, ["one", "context4_data2"])


@pytest.fixture(scope="module")
def others(steps):
    """The same for all other meshes."""
    return steps[0], play(steps[0], SLOW)


@pytest.fixture(scope="module")
def adamw(tmp_path_factory):
    """A folder with five updates of AdamW on every mesh."""
    folder = tmp_path_factory.mktemp("adamw")
    play(folder, ["one", *MESHES], optimizer="adamw")
    return folder


def load(folder, name):
    with np.load(folder / f"{name}.npz") as arrays:
        return {key: arrays[key].astype(np.float64) for key in arrays.files}


def largest(array):
    return float(np.abs(array).max())


def round_off(one):
    """Names of the gradients of one device that say nothing."""
    names = []
    for n in range(STEPS):
        update = {key: largest(value) for key, value in one.items() if key.startswith(f"gradient.{n}.")}
        names += [key for key, value in update.items() if value < FLOOR * max(update.values())]
    return names


def differences(one, mesh):
    """{array: largest difference from one device's, over its largest entry there}, without those below the floor."""
    assert set(one) == set(mesh)
    said = set(one) - set(round_off(one))
    return {key: largest(mesh[key] - one[key]) / largest(one[key]) for key in said}


def check(folder, name, shares, params):
    found = differences(load(folder, "one"), load(folder, name))
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
    """Losses differ, every array moves that can, and no gradient but those listed is round-off."""
    one = load(steps[0], "one")
    assert len(set(one["losses"])) == STEPS and np.isfinite(one["losses"]).all()
    assert round_off(one) == NOTHING_BUT_ROUND_OFF


def test_context_and_data(steps):
    check(steps[0], "context4_data2", steps[1]["context4_data2"], 1.0)


@pytest.mark.slow
@pytest.mark.parametrize("name", SLOW)
def test_every_mesh(others, name):
    check(others[0], name, others[1][name], MESHES[name][1])


@pytest.mark.slow
@pytest.mark.parametrize("name", MESHES)
def test_adamw(adamw, name):
    """It divides by the gradient's own size: an entry that is round-off moves by the learning rate, up or down.

    So entries whose gradient was once below 1e-4 of the largest in their array, but not 0, are compared with 5 × the
    learning rate, as are the arrays of `NOTHING_BUT_ROUND_OFF`, and all others with a two-hundredth of it.
    """
    one, mesh = load(adamw, "one"), load(adamw, name)
    assert round_off(one) == NOTHING_BUT_ROUND_OFF
    gradients = {key: v for key, v in differences(one, mesh).items() if not key.startswith("params.")}
    assert not {key: value for key, value in gradients.items() if not value < ROUND_OFF}
    weak_entries = entries = 0
    for key in (key for key in one if key.startswith("params.")):
        leaf, off = key.removeprefix("params."), np.abs(mesh[key] - one[key]) / LEARNING_RATES["adamw"]
        by_update = np.stack([np.abs(one[f"gradient.{n}.{leaf}"]) for n in range(STEPS)])
        most = by_update.max(axis=tuple(range(1, by_update.ndim)), keepdims=True)
        weak = ((by_update < 1e-4 * most) & (by_update > 0)).any(0)
        if f"gradient.0.{leaf}" in NOTHING_BUT_ROUND_OFF:
            weak[:] = True
        assert (off[weak] <= 5).all() and (off[~weak] <= 0.005).all(), (key, off.max(), off[~weak].max(initial=0))
        weak_entries, entries = weak_entries + weak.sum(), entries + weak.size
    assert 0 < weak_entries < 0.03 * entries


@pytest.mark.slow
@pytest.mark.parametrize("count", [2, 4])
def test_processes_over_loopback(steps, count):
    """Two slices are two processes of four devices, or pairs of processes of two."""
    shares = play(steps[0], ["slices2_fsdp4"], count)
    check(steps[0], "slices2_fsdp4", shares["slices2_fsdp4"], MESHES["slices2_fsdp4"][1])
