"""The arms inside the train step: what they cost, what they keep between updates, and when they are teacher forcing."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mpjax.diffusion.flow import TimeDistribution
from mpjax.diffusion.forcing import (
    Direct,
    Echo,
    ErrorRecycling,
    Helios,
    HistoryNoise,
    LowNoise,
    Resampling,
    Residual,
    SeparateTime,
    Student,
    Teacher,
)
from mpjax.diffusion.forcing.residual import Sights
from mpjax.training.checkpoints import Checkpoints
from mpjax.training.gradients import Objective
from mpjax.training.optimizer import Optimizer
from mpjax.training.retention import Retention
from mpjax.training.state import TrainState
from mpjax.training.step import make_train_step
from tests.training.linear_denoiser import RecurrentDenoiser, batch, recurrent_parameters

KEY = jax.random.key(11)
SHAPE = (4, 6, 2, 2, 2, 3)  # of `batch(WEIGHT).segments`
WEIGHT = [[0, 1, 0, 2, 1, 1], [1, 1, 0, 0.5, 1, 0], [0, 1, 0, 1, 1, 0], [0, 1, 0, 1, 0, 0]]
# Evaluations for a segment that a later one reads, besides the loss's own.
ARMS = [
    (Teacher(), 0),
    (HistoryNoise(), 0),
    (Helios(), 0),
    (Direct(), 0),
    (Direct(estimate=LowNoise(), clean_mix=0.5), 0),
    (Direct(steps=2), 1),
    (Direct(estimate=SeparateTime(), steps=2), 2),
    (Residual(), 0),
    (Residual(estimate=SeparateTime()), 1),
    (Echo(), 0),
    (Student(steps=2), 2),
    (Resampling(steps=3), 3),
    (ErrorRecycling(size=4, intervals=2, input_probability=0.5), 0),
]


def make(forcing, denoiser=None, data=None, **fields):
    """(fresh state, compiled step) of a network with a memory."""
    objective = Objective(denoiser=denoiser or RecurrentDenoiser(), forcing=forcing, time=TimeDistribution())
    transformation, params = Optimizer(learning_rate=0.01).transformation(100), recurrent_parameters()
    state = TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        ema=recurrent_parameters(),
        opt_state=transformation.init(params),
        carry=forcing.init(SHAPE if data is None else data.segments.shape),
        key=KEY,
    )
    return state, jax.jit(make_train_step(objective, transformation, **fields))


def assert_same(a, b):
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
            x, y = jax.random.key_data(x), jax.random.key_data(y)
        np.testing.assert_array_equal(x, y)


@pytest.mark.parametrize(
    ("arm", "extra", "parts"),
    [(arm, extra, 1) for arm, extra in ARMS]
    + [(arm, extra, 2) for arm, extra in ARMS if extra or jax.tree.leaves(arm.init(SHAPE))],
    ids=str,
)
def test_three_updates_of_every_arm(arm, extra, parts):
    """Finite losses, a carry that keeps its shape, and forwards counted as they happen: of micro-batches, their share.

    The videos of part 0 use segments 1, 3, 4, 5 and those of part 1 segments 0, 1, 3, 4, 5 or fewer.
    """
    calls = []
    state, step = make(arm, RecurrentDenoiser(calls), micro_batches=parts)
    shapes = jax.tree.map(jnp.shape, state.carry)
    used = [np.any([WEIGHT[i] for i in range(part, 4, parts)], 0).sum() for part in range(parts)]
    for n in range(3):
        state, metrics = step(state, batch(WEIGHT, seed=n))
        jax.block_until_ready(state)
        jax.effects_barrier()
        assert len(calls) == sum(used) + extra * sum(count - 1 for count in used)
        assert float(metrics["forwards_per_update"]) == len(calls) / parts
        assert np.isfinite(metrics["loss"]) and float(metrics["gradient_norm"]) > 0
        calls.clear()
    assert jax.tree.map(jnp.shape, state.carry) == shapes


@pytest.mark.parametrize(
    "arm",
    [
        Residual(scale=0.0, in_history=False),
        Residual(in_input=False, in_history=False),
        Echo(scale=0.0, in_history=False),
    ],
    ids=str,
)
def test_without_its_halves_residual_is_teacher_forcing(arm):
    """Bit for bit in loss and gradient; Adam's moments are those of the gradient."""
    state, step = make(arm)
    teacher, teacher_step = make(Teacher())
    for n in range(2):
        state, metrics = step(state, batch(WEIGHT, seed=n))
        teacher, wanted = teacher_step(teacher, batch(WEIGHT, seed=n))
        assert_same(metrics, wanted)
        assert_same((state.params, state.opt_state), (teacher.params, teacher.opt_state))
    assert any(np.abs(x).max() > 0 for x in jax.tree.leaves(state.carry))


@pytest.mark.parametrize("parts", [1, 2])
def test_an_echo_is_heard_at_second_sight(parts):
    """Batches 0 0 0 1 1 1 from update 4 on: the first sights are Direct Forcing's updates, and only those."""
    state, step = make(Echo(), micro_batches=parts, first_update=4, repeat=3)
    _, direct_step = make(Direct(), micro_batches=parts)
    left = Sights(residuals=state.carry.residuals + 5.0, seen=~state.carry.seen)
    state = state.replace(step=jnp.int32(4), carry=left)  # what another stage left is void
    for n in range(6):
        data = batch(WEIGHT, seed=n // 3)
        after, metrics = step(state, data)
        wanted, wanted_metrics = direct_step(state.replace(carry=()), data)
        if n % 3 == 0:  # x_1 + (x̃_1 − x_1) is x̃_1 up to rounding
            for x, y in zip(
                *map(jax.tree.leaves, ((after.params, metrics), (wanted.params, wanted_metrics))), strict=True
            ):
                np.testing.assert_allclose(x, y, rtol=1e-3, atol=1e-5)
        else:
            assert abs(float(metrics["loss"]) - float(wanted_metrics["loss"])) > 1e-3
        state = after


@pytest.mark.parametrize("parts", [1, 2])
def test_every_video_keeps_its_own_residuals(parts):
    """After one update the carry is x̃_1 − x_1, with t and noise of the part that the video was in."""
    data = batch(np.ones((4, 2)))
    silent = jax.tree.map(jnp.zeros_like, recurrent_parameters())
    for arm, segments in ((Echo(), (0, 1)), (Residual(), (1,))):
        state, step = make(arm, data=data, micro_batches=parts)
        after, _ = step(state.replace(params=silent), data)
        kept = after.carry.residuals if isinstance(arm, Echo) else after.carry[:, None]
        for video in range(4):
            part, place = video % parts, video // parts
            key = jax.random.fold_in(KEY, 0)
            key = key if parts == 1 else jax.random.fold_in(key, part)
            residual = 0.0
            for n in (0, 1):
                key_t, key_noise, _ = jax.random.split(jax.random.fold_in(key, n), 3)
                count = 4 // parts
                t = float(TimeDistribution().sample(key_t, count)[place])
                noise = np.asarray(jax.random.normal(key_noise, (count, *data.segments.shape[2:])), np.float64)[place]
                x = np.asarray(data.segments[video, n], np.float64)
                error = 2 * residual if n and isinstance(arm, Residual) else 0.0
                residual = t * (x + error) + (1 - t) * noise - x  # the network says 0
                if n in segments:
                    np.testing.assert_allclose(kept[video, n - segments[0]], residual, atol=1e-5)


@pytest.mark.parametrize("arm", [Echo(), ErrorRecycling(size=4, intervals=2)], ids=lambda arm: arm.kind)
def test_a_run_that_stops_in_the_middle_of_a_repeat_goes_on_with_the_same_bits(tmp_path, arm):
    """Saved after update 3 of the batches 0 0 1 1 2 2."""
    state, step = make(arm, repeat=2)
    for n in range(6):
        state, _ = step(state, batch(WEIGHT, seed=n // 2))
        if n == 2:
            with Checkpoints(tmp_path / "checkpoints", Retention()) as checkpoints:
                checkpoints.save(state)
    fresh, _ = make(arm, repeat=2)
    with Checkpoints(tmp_path / "checkpoints", Retention()) as checkpoints:
        resumed = checkpoints.restore(3, fresh)
    for n in range(3, 6):
        resumed, _ = step(resumed, batch(WEIGHT, seed=n // 2))
    assert_same(resumed, state)
