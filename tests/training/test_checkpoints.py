"""Checkpoints and starting from earlier weights, without a network."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mpjax.errors import InputError
from mpjax.training.checkpoints import Checkpoints, Damaged
from mpjax.training.checksums import checksums
from mpjax.training.initialize import with_weights
from mpjax.training.metrics import MetricsLog
from mpjax.training.retention import Retention
from mpjax.training.state import TrainState
from mpjax.training.trainable import partition


def state_at(step, seed=0, **params):
    rng = np.random.default_rng(seed)
    tree = {room: {"kernel": jnp.asarray(rng.normal(size=shape), jnp.float32)} for room, shape in params.items()}
    return TrainState(
        step=jnp.int32(step),
        params=tree,
        ema=jax.tree.map(lambda x: x + 1, tree),
        opt_state=optax.adam(1e-3).init(partition(tree, "all")[0]),
        carry=(),
        key=jax.random.key(step),
    )


def write(folder, *states, keep=2):
    with Checkpoints(folder / "checkpoints", Retention(keep)) as checkpoints:
        for state in states:
            checkpoints.save(state)
        checkpoints.wait()


def bits(state):
    plain = state.replace(key=jax.random.key_data(state.key))
    return [np.asarray(x) for x in jax.tree.leaves(plain)]


@pytest.mark.parametrize("abstract", [False, True])
def test_a_state_comes_back_bit_by_bit(tmp_path, abstract):
    """Into arrays and into shapes with shardings, which is how a run resumes."""
    state = state_at(7, head=(3,), x_embedder=(2, 2))
    write(tmp_path, state)
    target = state_at(0, seed=1, head=(3,), x_embedder=(2, 2))
    if abstract:
        target = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), target)
    with Checkpoints(tmp_path / "checkpoints", Retention()) as checkpoints:
        assert checkpoints.latest() == 7
        restored = checkpoints.restore(7, target)
    assert jax.tree.structure(restored) == jax.tree.structure(state)
    for a, b in zip(bits(restored), bits(state), strict=True):
        np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(jax.random.normal(restored.key, (2,)), jax.random.normal(state.key, (2,)))


def test_the_newest_are_kept(tmp_path):
    write(tmp_path, *(state_at(n, head=(3,)) for n in (1, 2, 3)), keep=2)
    assert sorted(int(p.name) for p in (tmp_path / "checkpoints").iterdir()) == [2, 3]


def test_what_a_crash_left_is_no_checkpoint(tmp_path):
    """A folder half-written neither counts nor stands in the way of writing that step or an earlier one."""
    write(tmp_path, state_at(3, head=(3,)))
    (tmp_path / "checkpoints" / "6").mkdir()
    with Checkpoints(tmp_path / "checkpoints", Retention()) as checkpoints:
        assert checkpoints.latest() == 3
        for step in (5, 6):
            checkpoints.save(state_at(step, head=(3,)))
        checkpoints.wait()
        assert checkpoints.latest() == 6


def test_data_position_must_be_that_of_the_state(tmp_path):
    write(tmp_path, state_at(3, head=(3,)))
    folder = tmp_path / "checkpoints" / "3" / "data"
    position = next(path for path in folder.iterdir() if "next_batch" in path.read_text())
    position.write_text(json.dumps({"next_batch": 4}))
    with (
        Checkpoints(tmp_path / "checkpoints", Retention()) as checkpoints,
        pytest.raises(Damaged, match="position and step"),
    ):
        checkpoints.restore(3, state_at(0, head=(3,)))


def test_every_so_many_are_kept_besides(tmp_path):
    with Checkpoints(tmp_path / "checkpoints", Retention(keep=1, keep_every=4)) as checkpoints:
        for step in (2, 4, 6, 8, 10):
            checkpoints.save(state_at(step, head=(3,)))
        checkpoints.wait()
    assert sorted(int(p.name) for p in (tmp_path / "checkpoints").iterdir()) == [4, 8, 10]


# -- Damage ----------------------------------------------------------------------------------------------------------


def target_at(_):
    return state_at(0, seed=9, head=(64, 64))


def data_files(folder, step):
    """Files that hold arrays, the largest first."""
    files = (p for p in (folder / "checkpoints" / str(step)).rglob("*") if p.is_file() and p.parent.name == "d")
    return sorted(files, key=lambda p: -p.stat().st_size)


def flip_a_bit(path):
    """In the middle, where Zstandard keeps noise as it is."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def cut_short(path):
    path.write_bytes(path.read_bytes()[:100])


def remove(path):
    path.unlink()


@pytest.mark.parametrize("harm", [flip_a_bit, cut_short, remove])
def test_a_damaged_step_is_set_aside_for_the_last_good_one(tmp_path, harm):
    write(tmp_path, *(state_at(n, seed=n, head=(64, 64)) for n in (1, 2, 3)), keep=3)
    for step in (2, 3):
        harm(data_files(tmp_path, step)[0])
    said = []
    with Checkpoints(tmp_path / "checkpoints", Retention(3), say=said.append) as checkpoints:
        restored = checkpoints.restore_newest(target_at)
        for a, b in zip(bits(restored), bits(state_at(1, seed=1, head=(64, 64))), strict=True):
            np.testing.assert_array_equal(a, b)
        assert [" ".join(line.split()[:6]) for line in said] == [
            "warning: checkpoint 3 cannot be read:",
            "warning: checkpoint 2 cannot be read:",
            "warning: checkpoint 3 is damaged and",
            "warning: checkpoint 2 is damaged and",
        ]
        assert checkpoints.latest() == 1
        checkpoints.save(state_at(2, head=(64, 64)))  # which the damaged one does not hinder
        checkpoints.wait()
    names = sorted(p.name for p in (tmp_path / "checkpoints").iterdir())
    assert names == ["1", "2", "damaged-2", "damaged-3"]


def test_where_no_step_can_be_read_all_stay(tmp_path):
    """It may be the machine, not the files."""
    write(tmp_path, *(state_at(n, head=(64, 64)) for n in (1, 2)))
    for step in (1, 2):
        cut_short(data_files(tmp_path, step)[0])
    with Checkpoints(tmp_path / "checkpoints", Retention()) as checkpoints:
        with pytest.raises(InputError, match="no checkpoint can be read; 2: "):
            checkpoints.restore_newest(target_at)
        assert checkpoints.latest() == 2


def test_no_step_at_all_is_no_error(tmp_path):
    with Checkpoints(tmp_path / "checkpoints", Retention()) as checkpoints:
        assert checkpoints.restore_newest(target_at) is None


def mixed(x):
    """The finaliser of MurmurHash3 in Python's integers."""
    x = (x ^ (x >> 16)) * 0x85EBCA6B % 2**32
    x = (x ^ (x >> 13)) * 0xC2B2AE35 % 2**32
    return x ^ (x >> 16)


def test_checksums_see_every_bit_and_place():
    assert mixed(1) == 0x514E28B7 and mixed(2) == 0x30F4C306  # published values of fmix32
    b = np.float32([[1.0, -1.0, 2.0], [0.0, 4.0, -1.0]])
    tree = {"a": jnp.arange(5, dtype=jnp.int32), "b": jnp.asarray(b), "c": jnp.bool_([True, False, True])}
    bits = [list(range(5)), b.view(np.uint32).ravel().tolist(), [1, 0, 1]]
    want = [sum(mixed((x + mixed(n + 1)) % 2**32) for n, x in enumerate(leaf)) % 2**32 for leaf in bits]
    assert checksums(tree).tolist() == want
    nudged = b.copy()
    nudged[0, 1] = np.nextafter(np.float32(-1), np.float32(0))
    for other in (nudged, b[::-1], b[:, [1, 0, 2]], b.reshape(3, 2).T.reshape(2, 3)):
        assert checksums({"b": jnp.asarray(other)}).tolist() != want[1:2]
    assert checksums({"h": jnp.bfloat16([1.0])}).tolist() == [mixed(0x3F80 + mixed(1))]


# -- train --init ----------------------------------------------------------------------------------------------------


def test_init_takes_the_ema_and_lists_what_is_new_and_what_is_left_over(tmp_path):
    old = state_at(5, seed=1, head=(3,), x_embedder=(2, 2), gone=(1,))
    write(tmp_path, old)
    said = []
    fresh = state_at(0, head=(3,), x_embedder=(2, 2), memorize=(4,))
    state = with_weights(fresh, tmp_path, said.append)
    for room in ("head", "x_embedder"):
        np.testing.assert_array_equal(state.params[room]["kernel"], old.ema[room]["kernel"])
        np.testing.assert_array_equal(state.ema[room]["kernel"], old.ema[room]["kernel"])
    np.testing.assert_array_equal(state.params["memorize"]["kernel"], fresh.params["memorize"]["kernel"])
    np.testing.assert_array_equal(state.ema["memorize"]["kernel"], fresh.params["memorize"]["kernel"])
    assert int(state.step) == 0
    assert said == [
        f"weights of update 5 from {tmp_path}",
        "1 new parameters start fresh: memorize/kernel",
        f"1 parameters of {tmp_path} are not in this model: gone/kernel",
    ]


def test_init_refuses_other_shapes_and_other_networks(tmp_path):
    write(tmp_path, state_at(5, head=(3,), x_embedder=(2, 2)))
    with pytest.raises(InputError, match=r"x_embedder/kernel has shape \(2, 2\), this model needs \(2, 4\)"):
        with_weights(state_at(0, head=(3,), x_embedder=(2, 4)), tmp_path, lambda _: None)
    with pytest.raises(InputError, match="none of its parameters occurs"):
        with_weights(state_at(0, memorize=(3,)), tmp_path, lambda _: None)


# -- log.jsonl -------------------------------------------------------------------------------------------------------


def test_the_log_drops_what_lies_beyond_the_step_it_goes_on_from(tmp_path):
    """Later lines and a line that a kill cut short go; what is written again stands once."""
    with MetricsLog(tmp_path, 0) as log:
        for step in (1, 2, 3, 4):
            log.scalars(step, "train", {"loss": float(step)})
    with (tmp_path / "log.jsonl").open("a") as file:
        file.write('{"step": 2, "tra')
    with MetricsLog(tmp_path, 2) as log:
        log.scalars(3, "train", {"loss": 30.0})
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [(line["step"], line["train/loss"]) for line in lines] == [(1, 1.0), (2, 2.0), (3, 30.0)]
