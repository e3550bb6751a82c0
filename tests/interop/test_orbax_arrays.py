import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mpjax.interop import orbax_arrays
from mpjax.interop.orbax_arrays import read_step, write_step
from mpjax.interop.stored_array import StoredArray, place, place_tree
from mpjax.training.checkpoints import Checkpoints
from mpjax.training.retention import Retention
from mpjax.training.state import TrainState
from mpjax.weights import latest_step
from tests.fixtures import seeded
from tests.interop.checkpoints import BF16
from tests.interop.trees import read_by_orbax

ARRAYS = {
    "stack": {"kernel": seeded.normal("stack", (3, 8, 10)).astype(BF16), "bias": seeded.normal("bias", (3, 10))},
    "head": {"kernel": seeded.normal("head", (32, 9))},
    "scale": seeded.normal("scale", (1,)),
}


def lazily(array, seen, stacked):
    def read(index):
        piece = array[index]
        seen.append(piece.nbytes)
        return piece

    return StoredArray(shape=array.shape, dtype=array.dtype, read=read, block=1 if stacked else array.shape[0])


def write(folder):
    """Writes ARRAYS; returns the bytes of each piece that was asked for."""
    seen, told = [], []
    tree = jax.tree.map_with_path(lambda path, a: lazily(a, seen, path[0].key == "stack"), ARRAYS)
    write_step(folder / "checkpoints" / "0", tree, told.append)
    assert seen == told
    return seen


def test_it_is_a_checkpoint_like_any_other(tmp_path):
    write(tmp_path)
    assert latest_step(tmp_path) == 0
    loaded = read_by_orbax(tmp_path / "checkpoints" / "0")
    jax.tree.map(np.testing.assert_array_equal, loaded, ARRAYS)
    assert jax.tree.map(lambda x: x.dtype, loaded) == jax.tree.map(lambda x: x.dtype, ARRAYS)


def test_neither_reading_nor_writing_warns(tmp_path, caplog):
    """Of what a run wrote, and of what is written here."""
    with Checkpoints(tmp_path / "trained", Retention()) as checkpoints:
        none = {"other": jnp.zeros(1)}
        ema = jax.tree.map(jnp.asarray, ARRAYS)
        checkpoints.save(
            TrainState(step=jnp.asarray(3), params=none, ema=ema, opt_state=none, carry=none, key=jax.random.key(0))
        )
    with caplog.at_level("WARNING", logger="absl"):
        write(tmp_path)
        for step in (tmp_path / "trained" / "3", tmp_path / "checkpoints" / "0"):
            jax.tree.map(lambda a, b: np.testing.assert_array_equal(a.all(), b), read_step(step), ARRAYS)
    assert caplog.messages == []


def test_a_layer_is_the_most_that_is_read_at_once(tmp_path, monkeypatch):
    # Arrays without layers whole, each layer of the others alone.
    assert sorted(write(tmp_path / "a")) == sorted([32 * 9 * 4, 4, *[10 * 4] * 3, *[8 * 10 * 2] * 3])
    monkeypatch.setattr(orbax_arrays, "CHUNK_BYTES", 100)
    pieces = write(tmp_path / "b")
    assert max(pieces) <= 100 and sum(pieces) == sum(x.nbytes for x in jax.tree.leaves(ARRAYS))
    jax.tree.map(np.testing.assert_array_equal, read_by_orbax(tmp_path / "b" / "checkpoints" / "0"), ARRAYS)


def test_it_is_read_in_pieces(tmp_path):
    write(tmp_path)
    tree = read_step(tmp_path / "checkpoints" / "0")
    assert (tree["stack"]["kernel"].block, tree["head"]["kernel"].block) == (1, 32)
    assert tree["stack"]["kernel"].dtype == BF16
    index = (slice(1, 3), slice(0, 8), slice(4, 7))
    np.testing.assert_array_equal(tree["stack"]["kernel"].read(index), ARRAYS["stack"]["kernel"][index])


def test_checkpoints_of_device_arrays_are_read_too(tmp_path):
    import orbax.checkpoint as ocp

    device = jax.tree.map(jnp.asarray, ARRAYS)
    with ocp.CheckpointManager(tmp_path.absolute()) as manager:
        manager.save(4, args=ocp.args.Composite(ema=ocp.args.StandardSave(device)))
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a.all(), b), read_step(tmp_path / "4"), ARRAYS)


def test_placing_casts_and_checks(tmp_path):
    write(tmp_path)
    tree = read_step(tmp_path / "checkpoints" / "0")
    sharding = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    like = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, jnp.float32, sharding=sharding), ARRAYS)
    placed = place_tree(tree, like)
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(placed))
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a, b.astype(np.float32)), placed, ARRAYS)
    with pytest.raises(ValueError, match=r"has shape \(1,\), wanted \(2,\)"):
        place(tree["scale"], jax.ShapeDtypeStruct((2,), jnp.float32, sharding=sharding))
