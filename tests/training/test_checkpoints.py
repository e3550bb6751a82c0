"""Checkpoints and starting from earlier weights, without a network."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mpjax.errors import InputError
from mpjax.training.checkpoints import Checkpoints
from mpjax.training.initialize import with_weights
from mpjax.training.metrics import MetricsLog
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
    with Checkpoints(folder / "checkpoints", keep) as checkpoints:
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
    with Checkpoints(tmp_path / "checkpoints") as checkpoints:
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
    with Checkpoints(tmp_path / "checkpoints") as checkpoints:
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
    with Checkpoints(tmp_path / "checkpoints") as checkpoints, pytest.raises(InputError, match="position and step"):
        checkpoints.restore(3, state_at(0, head=(3,)))


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
