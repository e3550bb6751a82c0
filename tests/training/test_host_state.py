"""Averages and optimizer state that wait in the host's memory between updates: the same run, bit for bit."""

import dataclasses

import jax
import numpy as np
import pytest

from mpjax.diffusion.flow import TimeDistribution
from mpjax.diffusion.forcing import Teacher
from mpjax.experiment import HOST_STATES
from mpjax.parallel.mesh import MeshShape
from mpjax.stopping import Stopped
from mpjax.training.checkpoints import Checkpoints
from mpjax.training.checksums import checksums
from mpjax.training.compiled_step import state_factory
from mpjax.training.curriculum import Stage
from mpjax.training.gradients import Objective
from mpjax.training.initialize import with_weights
from mpjax.training.numerics import not_finite
from mpjax.training.optimizer import Optimizer
from mpjax.training.state import StateFactory
from mpjax.training.step import make_train_step
from tests.parallel import processes
from tests.tracing import equations
from tests.training.linear_denoiser import batch
from tests.training.linear_runs import BACK, SKIP, Small, arrays, assert_same, run, settings, stop_after
from tests.training.runs import log

WEIGHT = [[1, 1, 1], [1, 1, 0]]
STAGE = Stage(steps=4, optimizer=Optimizer(learning_rate=0.1), curriculum=((0, 3),))


def waiting(name):
    return f"--config.training.host_state={name}"


def in_host(tree):
    """Which arrays of a tree are in the host's memory, in the order of its leaves."""
    return [x.sharding.memory_kind == "pinned_host" for x in jax.tree.leaves(tree)]


@pytest.fixture(scope="module")
def factory():
    return StateFactory(
        denoiser=Small(None, None),
        seed=0,
        batch=batch(WEIGHT),
        mesh=MeshShape().build(),
        counts_faults=True,
        waiting=HOST_STATES["both"],
    )


@pytest.fixture
def kept(poison, monkeypatch):
    """What of each state was in the host when it was saved: (averages, moments, anything else); update 8 is bad."""
    poison.add(8)
    seen, plain = [], Checkpoints.save

    def save(checkpoints, state):
        moments = [x for x in jax.tree.leaves(state.opt_state) if x.ndim]
        rest = state.replace(ema=None, opt_state=[x for x in jax.tree.leaves(state.opt_state) if not x.ndim])
        seen.append((all(in_host(state.ema)), all(in_host(moments)) and bool(moments), any(in_host(rest))))
        plain(checkpoints, state)

    monkeypatch.setattr(Checkpoints, "save", save)
    return seen


def test_the_bits_of_a_run_do_not_depend_on_what_waits(tmp_path, kept, monkeypatch):
    """Two stages with validation, one of them going back behind a bad update, from a start and after a stop."""
    flags = ["--config.training.validate_every=3", "--config.training.validation_batches=1"]
    whole = run(tmp_path, "whole", BACK, *flags)
    assert set(kept) == {(False, False, False)}
    assert len(arrays(whole)) > 10 and any("validation/loss" in line for line in log(whole))
    kept.clear()
    folder = run(tmp_path, "both", BACK, waiting("both"), *flags)
    assert set(kept) == {(True, True, False)}
    assert_same(arrays(folder), arrays(whole))
    assert log(folder) == log(whole)
    for first, then in (("none", "both"), ("both", "none")):
        folder = f"{first}_{then}"
        with monkeypatch.context() as patch, pytest.raises(Stopped):
            stop_after(patch, 4)
            run(tmp_path, folder, BACK, waiting(first), *flags)
        kept.clear()
        again = run(tmp_path, folder, BACK, waiting(then), *flags)
        assert set(kept) == {(then == "both", then == "both", False)}
        assert_same(arrays(again), arrays(whole))


@pytest.mark.parametrize(
    ("name", "averages", "moments"),
    [("none", False, False), ("averages", True, False), ("optimizer", False, True), ("both", True, True)],
)
def test_what_waits(tmp_path, factory, name, averages, moments):
    """Scalars, as the optimizer's count of updates, stay where they are."""
    made = state_factory(settings(tmp_path, SKIP, waiting(name)), factory.denoiser, factory.batch, factory.mesh)
    for state in (made.abstract(STAGE), made.create(STAGE), made.enter(STAGE, made.create(STAGE))):
        arrays, scalars = ([x for x in jax.tree.leaves(state.opt_state) if bool(x.ndim) == wide] for wide in (1, 0))
        assert in_host(state.ema) == [averages] * 2 and in_host(arrays) == [moments] * 4
        assert scalars and not any(in_host(state.replace(ema=None, opt_state=scalars)))
        assert not any(in_host(state.averaged))


def test_weights_of_another_run_start_in_the_host_too(tmp_path, poison, factory):
    folder = run(tmp_path, "first", BACK)
    state = with_weights(factory.create(STAGE), folder, lambda _: None)
    stored = arrays(folder)
    assert all(in_host(state.ema)) and not any(in_host(state.params))
    for tree in (state.params, state.ema):
        for room, name in (("head", "w"), ("x_embedder", "b")):
            np.testing.assert_array_equal(tree[room][name], stored[f"ema['{room}']['{name}']"])
    # On one device they are not the same arrays, else an update could not take the memory of both.
    state = with_weights(dataclasses.replace(factory, waiting=()).create(STAGE), folder, lambda _: None)
    places = [x.unsafe_buffer_pointer() for x in jax.tree.leaves((state.params, state.ema))]
    assert len(set(places)) == len(places) == 4


def test_programs_only_move_what_is_in_the_host(factory):
    """An accelerator computes nothing with it: every operation on it brings it to the device."""
    state = factory.create(STAGE)
    objective = Objective(denoiser=factory.denoiser, forcing=Teacher(), time=TimeDistribution())
    step = make_train_step(objective, STAGE.optimizer.transformation(STAGE.steps))
    averages, moments = (jax.tree.leaves(tree) for tree in (state.ema, state.opt_state))
    moved = sum(in_host((averages, moments)))
    assert moved == 2 + 4  # of two parameters: averages and two moments
    for program, arguments, count in (
        (step, (state, batch(WEIGHT)), moved),
        (checksums, ((state.ema, state.opt_state),), moved),
        (not_finite, (averages,), len(averages)),
    ):
        assert readers(jax.make_jaxpr(program)(*arguments)) == ["device_put"] * count
    assert readers(jax.make_jaxpr(step)(dataclasses.replace(factory, waiting=()).create(STAGE), batch(WEIGHT))) == []
    assert not any(in_host(state.averaged)) and state.averaged["head"]["w"] is not state.ema["head"]["w"]


def readers(traced):
    """What the operations of a trace on arrays in the host are, calls of other functions apart."""
    return [
        equation.primitive.name
        for equation in equations(traced.jaxpr)
        if equation.primitive.name not in ("jit", "pjit")
        for x in equation.invars
        if getattr(x.aval, "memory_space", None) == jax.memory.Space.Host
    ]


def test_on_a_mesh_every_device_has_its_part_in_the_host(tmp_path):
    """The bits are the same, and what was saved with the setting is read without it, and the other way."""
    found = processes.run("host_state.py", {"mesh": {"data": 2, "fsdp": 4}, "folder": str(tmp_path)})
    assert found == {"same": True, "waiting": [[3], [3], [3], [3], [3], [3]], "restored": [True, True]}
