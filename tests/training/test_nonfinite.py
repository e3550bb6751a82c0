"""Updates that are not finite: what is kept of them, what the run does, and that a killed run decides the same.

The runs go through the whole loop, with a network of six numbers; a poisoned batch holds a NaN.
"""

import types

import jax
import numpy as np
import pytest

from mpjax import experiment
from mpjax.errors import InputError
from mpjax.stopping import Stopped
from mpjax.training import loop
from mpjax.training.curriculum import Stage
from mpjax.training.nonfinite import Faults
from mpjax.training.optimizer import Optimizer
from mpjax.training.retention import Retention
from mpjax.training.roll_back import last_scheduled
from tests.training import runs
from tests.training.linear_denoiser import batch, parameters
from tests.training.linear_runs import BACK, LAST, SKIP, arrays, assert_same, run, settings, stop_after
from tests.training.test_step import WEIGHT, make

# -- The step --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", ["nan", "inf"])
def test_the_step_counts_such_an_update_and_applies_nothing(value):
    state, step = make(Optimizer(learning_rate=0.1))
    state = state.replace(faults=Faults.none())
    good, _ = step(state, batch(WEIGHT))
    poisoned = batch(WEIGHT)
    poisoned = poisoned.replace(segments=poisoned.segments.at[1, 1].set(float(value)))
    bad, metrics = step(good, poisoned)
    assert not np.isfinite(metrics["loss"])
    for name in ("params", "ema", "opt_state", "carry"):
        jax.tree.map(np.testing.assert_array_equal, getattr(bad, name), getattr(good, name))
    assert int(bad.step) == 2
    assert jax.tree.map(int, bad.faults) == Faults(skipped=1, first=2, rolled_back=0)
    # Behind it the run goes on, and the first one stays the first.
    after, _ = step(bad, batch(WEIGHT))
    assert not np.array_equal(after.params["head"]["w"], bad.params["head"]["w"])
    after, _ = step(after, poisoned)
    assert jax.tree.map(int, after.faults) == Faults(skipped=2, first=2, rolled_back=0)


def test_a_gradient_alone_may_be_bad():
    """A loss of 1e38 is a number, the square of its gradient's norm is none."""
    state, step = make(Optimizer(learning_rate=0.1))
    state = state.replace(faults=Faults.none())
    huge = batch(WEIGHT)
    huge = huge.replace(segments=huge.segments.at[0, 1].set(2e18))
    after, metrics = step(state, huge)
    assert np.isfinite(metrics["loss"]) and not np.isfinite(metrics["gradient_norm"])
    np.testing.assert_array_equal(after.params["head"]["w"], state.params["head"]["w"])
    assert int(after.faults.skipped) == 1


# -- Skip ------------------------------------------------------------------------------------------------------------


def test_skipped_updates_are_told_logged_and_bounded(tmp_path, poison):
    poison |= {2, 8}
    said = []
    folder = run(tmp_path, "run", SKIP, say=said.append)
    assert [line for line in said if "not finite" in line] == [
        "update 2: not finite and skipped so far: 1, the first was update 2",
        "update 8: not finite and skipped so far: 2, the first was update 2",
    ]
    lines = runs.log(folder)
    assert [line["train/skipped"] for line in lines] == [0, 1, 1, 1, 1, 1, 1, 2, 2, 2]
    assert ["train/loss" in line for line in lines] == [n not in poison for n in range(1, LAST + 1)]
    assert all(np.isfinite(x).all() for x in arrays(folder).values() if x.dtype.kind == "f")

    poison.add(9)
    with pytest.raises(InputError, match=r"3 updates were not finite and skipped, more than .*limit = 2 at update 9"):
        run(tmp_path, "more", SKIP)
    assert runs.steps(tmp_path / "more") == [3, 6]
    # The limit may be thought over; everything else is as if it had been so from the start.
    poison.discard(9)
    run(tmp_path, "more", {"kind": "skip", "limit": 5})
    assert_same(arrays(tmp_path / "more"), arrays(folder))


def test_a_stopped_run_skips_the_same(tmp_path, poison, monkeypatch):
    poison |= {2, 5, 8}
    policy = {"kind": "skip", "limit": 5}
    whole = run(tmp_path, "whole", policy)
    with monkeypatch.context() as patch:
        stop_after(patch, 4)
        with pytest.raises(Stopped):
            run(tmp_path, "stopped", policy)
    assert runs.steps(tmp_path / "stopped")[-1] == 5
    run(tmp_path, "stopped", policy)
    assert_same(arrays(tmp_path / "stopped"), arrays(whole))
    assert runs.log(tmp_path / "stopped") == runs.log(whole)


def test_without_a_fault_every_policy_makes_the_same_run(tmp_path, poison):
    want = arrays(run(tmp_path, "stop", {"kind": "stop"}))
    for policy in (SKIP, BACK):
        got = arrays(run(tmp_path, policy["kind"], policy))
        faults = {name for name in got if "faults" in name}
        assert len(faults) == 3 and got.keys() - faults == want.keys()
        for name in want:
            np.testing.assert_allclose(got[name], want[name], rtol=1e-6, err_msg=name)


# -- Roll back -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("bad", "good", "log_every"),
    [
        (2, 0, 1),  # before anything of the schedule was saved
        (5, 3, 7),  # seen at 6
        (7, 6, 7),  # the first update of stage 2: a fresh optimizer, which the checkpoint does not have
        (9, 6, 1),
        (10, 9, 1),  # the last update of the run
    ],
)
def test_a_bad_update_takes_back_those_since_the_last_checkpoint(tmp_path, poison, monkeypatch, bad, good, log_every):
    """Parameters and average just behind the fault are those of the checkpoint, whenever it was seen."""
    seen = []
    plain = loop.last_good

    def last_good(*arguments):
        state, step = plain(*arguments)
        seen.append((int(state.step), step, jax.device_get((state.params, state.ema))))
        return state, step

    monkeypatch.setattr(loop, "last_good", last_good)
    poison.add(bad)
    said = []
    folder = run(tmp_path, "run", BACK, f"--config.training.log_every={log_every}", say=said.append)
    ((step, back, (params, ema)),) = seen
    assert (step, back) == (bad, good)
    assert f"update {bad} was not finite: going on behind it with the weights of update {good}" in said
    if good:
        want = arrays(folder, good)
        np.testing.assert_array_equal(params["head"]["w"], want["state['params']['head']['w']"])
        np.testing.assert_array_equal(ema["head"]["w"], want["ema['head']['w']"])
    else:
        np.testing.assert_array_equal(params["head"]["w"], parameters()["head"]["w"])
    assert {"step": bad, "train/rolled_back": 1} in runs.log(folder)
    assert runs.steps(folder)[-1] == LAST


def test_a_stopped_run_rolls_back_the_same(tmp_path, poison, monkeypatch):
    """A checkpoint that a signal left at 5 is not what update 6 goes back to."""
    poison.add(6)
    whole = run(tmp_path, "whole", BACK)
    with monkeypatch.context() as patch:
        stop_after(patch, 4)
        with pytest.raises(Stopped):
            run(tmp_path, "stopped", BACK)
    assert runs.steps(tmp_path / "stopped") == [0, 3, 5]
    run(tmp_path, "stopped", BACK)
    assert_same(arrays(tmp_path / "stopped"), arrays(whole))
    assert runs.log(tmp_path / "stopped") == runs.log(whole)


def test_returns_are_bounded(tmp_path, poison):
    """Three bad updates behind one checkpoint: it does not know of the first two returns."""
    poison |= {7, 8}
    run(tmp_path, "two", BACK, "--config.training.checkpoint_every=6")
    poison.add(9)
    with pytest.raises(InputError, match=r"update 9 was not finite, after training.nonfinite.limit = 2 returns"):
        run(tmp_path, "three", BACK, "--config.training.checkpoint_every=6")


# -- What belongs to a run -------------------------------------------------------------------------------------------


def test_the_policy_belongs_to_the_run_and_its_limit_does_not(tmp_path):
    mark = lambda *of: experiment.fingerprint(settings(tmp_path, *of))  # noqa: E731
    every = "--config.training.checkpoint_every=4"
    assert mark(SKIP) == mark({**SKIP, "limit": 9}) == mark(SKIP, every)
    assert len({mark({"kind": "stop"}), mark(SKIP), mark(BACK), mark(BACK, every)}) == 4
    with pytest.raises(InputError, match=r"config.training.nonfinite.limit is 0: it must be at least 1"):
        settings(tmp_path, {"kind": "skip", "limit": 0})


def test_the_default_is_older_than_the_field():
    """Runs that began before there was a policy go on: the mark is that of the day before."""
    assert experiment.fingerprint(experiment.load("configs/recall_tiny.py")) == "0fec25b43b4a1a32"


@pytest.mark.parametrize("keep", [1, 2])
def test_hosts_choose_the_same_step_whatever_the_first_one_sends(keep):
    """Runs saved at every third update and ended by a signal; at each save the mirror is sending some step."""
    draw, stages = np.random.default_rng(0), (Stage(steps=1000, curriculum=((0, 1),)),)
    folder, begun, more = [0], 0, 0
    for _ in range(30):
        first, other = list(folder), list(folder)  # opened: what the folder holds
        mine, theirs = Retention(keep), Retention(keep)
        end = begun + int(draw.integers(1, 12))
        saves = [s for s in range(begun + 1, end) if s % 3 == 0]
        for step in saves:
            assert last_scheduled(first, stages, 3) == last_scheduled(other, stages, 3)
            first, other = (sorted({*listed, step}) for listed in (first, other))
            with mine.held(int(draw.choice(first))):
                first = [s for s, stays in zip(first, preserve(mine, first), strict=True) if stays]
            other = [s for s, stays in zip(other, preserve(theirs, other), strict=True) if stays]
            more += first != other
            assert last_scheduled(first, stages, 3) == last_scheduled(other, stages, 3) == step
        folder, begun = sorted({*first, end}), end
    assert more > 5


def preserve(retention, steps):
    return retention.should_preserve([types.SimpleNamespace(step=step) for step in steps], context=None)
