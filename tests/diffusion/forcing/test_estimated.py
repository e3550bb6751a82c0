"""Direct Forcing in all its forms, and Resampling, against float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mpjax.diffusion.flow import TimeDistribution
from mpjax.diffusion.forcing import Direct, LossTime, LowNoise, Resampling, SeparateTime
from mpjax.errors import InputError
from tests.diffusion.forcing.cases import KEY, SHAPE, X_T, T, V, X, assert_detached, context, f64, wide


def network(x, t):
    return 0.3 * x + t.reshape(-1, 1, 1, 1, 1)


def steps_by_hand(x, t, steps):
    for n in range(steps):
        now = t + n * (1 - t) / steps
        x = x + (1 - t) / steps * (0.3 * x + now)
    return x


def test_direct_feeds_the_one_step_estimate():
    segment, carry = Direct().history((), context(), X, X_T, V, T)
    np.testing.assert_allclose(segment, f64(X_T) + (1 - wide(T)) * f64(V), atol=1e-6)
    assert carry == () and Direct().forwards_per_segment == 1


def test_a_second_step_goes_on_from_the_middle():
    arm = Direct(steps=2)
    segment, _ = arm.history((), context(denoise=network), X, X_T, V, T)
    t, half = wide(T), (1 - wide(T)) / 2
    middle = f64(X_T) + half * f64(V)
    np.testing.assert_allclose(segment, middle + half * (0.3 * middle + (t + half)), atol=1e-6)
    assert arm.forwards_per_segment == 2


def test_low_noise_keeps_the_truth_of_noisy_videos():
    arm = Direct(estimate=LowNoise(t_min=0.3))
    segment, _ = arm.history((), context(), X, X_T, V, T)  # t = 0.2 and 0.95
    np.testing.assert_array_equal(segment[0], X[0])
    np.testing.assert_allclose(segment[1], (f64(X_T) + (1 - wide(T)) * f64(V))[1], atol=1e-6)
    assert arm.forwards_per_segment == 1 and Direct(estimate=LowNoise(), steps=2).forwards_per_segment == 2


@pytest.mark.parametrize("steps", [1, 2])
def test_separate_noises_the_truth_anew_and_denoises_it(steps):
    """The loss's x_t, v and t do not matter; Resampling is the same thing with its own defaults."""
    time = TimeDistribution(name="logit_normal", mean=0.5, std=2.0)
    arms = [Direct(estimate=SeparateTime(time=time), steps=steps), Resampling(time=time, steps=steps)]
    for arm, key in zip(arms, (jax.random.split(KEY)[0], KEY), strict=True):
        key_t, key_noise = jax.random.split(key)
        t, noise = wide(time.sample(key_t, 2)), f64(jax.random.normal(key_noise, SHAPE))
        segment, _ = arm.history((), context(denoise=network), X, X_T, V, T)
        np.testing.assert_allclose(segment, steps_by_hand(t * f64(X) + (1 - t) * noise, t, steps), atol=1e-5)
        assert arm.forwards_per_segment == 1 + steps
        exact = context(denoise=lambda x, t: (X - x) / (1 - t.reshape(-1, 1, 1, 1, 1)))  # leads to x_1 from anywhere
        np.testing.assert_allclose(arm.history((), exact, X, X_T, V, T)[0], X, atol=1e-4)


def test_clean_mix_keeps_whole_videos():
    many = jnp.broadcast_to(X[:1], (400, *SHAPE[1:]))
    segment, _ = Direct(clean_mix=0.25).history((), context(), many, many, many, jnp.full(400, 0.5))
    clean = np.asarray(segment == many).reshape(400, -1)
    assert set(clean.mean(1)) == {0.0, 1.0} and 0.18 < clean.mean() < 0.32


@pytest.mark.parametrize(
    "arm",
    [
        Direct(),
        Direct(clean_mix=0.5),
        Direct(steps=2),
        Direct(estimate=LowNoise()),
        Direct(estimate=SeparateTime()),
        Resampling(),
    ],
    ids=str,
)
def test_no_gradient_follows(arm):
    assert_detached(arm)


@pytest.mark.parametrize("arm", [Direct(steps=2), Direct(estimate=SeparateTime()), Resampling()], ids=str)
def test_nothing_is_evaluated_that_nobody_reads(arm):
    calls = []

    def counted(x, t):
        jax.debug.callback(lambda: calls.append(1))
        return x

    for later, count in ((False, 0), (True, arm.forwards_per_segment - 1)):
        jax.block_until_ready(arm.history((), context(later, counted), X, X_T, V, T))
        jax.effects_barrier()
        assert len(calls) == count


@pytest.mark.parametrize(
    ("arm", "fields"),
    [
        (Direct, {"steps": 0}),
        (Direct, {"clean_mix": 1.5}),
        (LowNoise, {"t_min": -0.1}),
        (Resampling, {"steps": 0}),
    ],
)
def test_bad_fields_are_named(arm, fields):
    with pytest.raises(InputError, match=next(iter(fields))):
        arm(**fields)


def test_the_default_of_the_paper_evaluates_nothing():
    assert Direct().estimate == LossTime()
    segment, _ = Direct().history((), context(denoise=None), X, X_T, V, T)
    assert segment.shape == SHAPE
