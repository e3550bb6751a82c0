"""Residual forcing: the target leads back to the truth, and chains by hand in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mpjax.diffusion.flow import TimeDistribution
from mpjax.diffusion.forcing import Echo, Residual, SeparateTime
from mpjax.diffusion.forcing.residual import Sights
from mpjax.errors import InputError
from tests.diffusion.forcing.cases import NOISE, SHAPE, X_T, T, V, X, assert_detached, context, f64, wide

RNG = np.random.default_rng(5)
R = jnp.asarray(RNG.normal(size=SHAPE), jnp.float32)
# Three segments of two videos; the second video's chain starts anew at the last one.
CHAIN = [{name: jnp.asarray(RNG.normal(size=SHAPE), jnp.float32) for name in ("x", "v", "noise")} for _ in range(3)]
STARTS = [(True, True), (False, False), (False, True)]
TIMES = [jnp.asarray(t, jnp.float32) for t in ((0.3, 0.9), (0.97, 0.5), (0.6, 0.1))]


def carry_of(arm, residual=R):
    """A carry with this residual in front of segment 1."""
    if isinstance(arm, Residual):
        return residual
    return Sights(residuals=jnp.stack([0 * R, residual, 0 * R], 1), seen=jnp.ones((len(R), 3), bool))


@pytest.mark.parametrize("arm", [Residual(scale=1.5), Echo(scale=1.5)], ids=lambda arm: arm.kind)
def test_the_target_leads_back_to_the_truth(arm):
    """Wherever 1 − t is above the floor; closer to the data the share (1 − t)/floor of the error goes."""
    t = jnp.array([0.2, 0.89])
    for start in ((False, False), (True, False)):
        error = 1.5 * f64(R) * ~np.array(start)[:, None, None, None, None]
        x_t, target = arm.inputs(carry_of(arm), context(starts=start), X, t, NOISE)
        np.testing.assert_allclose(x_t, wide(t) * (f64(X) + error) + (1 - wide(t)) * f64(NOISE), atol=1e-6)
        np.testing.assert_allclose(f64(x_t) + (1 - wide(t)) * f64(target), f64(X), atol=1e-5)
    near = jnp.array([0.95, 0.999])
    x_t, target = arm.inputs(carry_of(arm), context(), X, near, NOISE)
    left = 1.5 * f64(R) * wide(near) * (1 - (1 - wide(near)) / 0.1)
    np.testing.assert_allclose(f64(x_t) + (1 - wide(near)) * f64(target), f64(X) + left, atol=1e-5)
    correction = f64(X) - f64(NOISE) - f64(target)
    assert np.abs(correction).max() <= 1.5 * np.abs(f64(R)).max() / 0.1 + 1e-4
    np.testing.assert_allclose(correction, 1.5 * f64(R) * wide(near) / 0.1, atol=1e-4)


def by_hand(c, gamma, entry, in_input, in_history):
    """(x_t, target, history) of every segment of the chain."""
    rows, r = [], np.zeros(SHAPE)
    for segment, start, t in zip(CHAIN, STARTS, TIMES, strict=True):
        x, v, noise = (f64(segment[name]) for name in ("x", "v", "noise"))
        first, t = np.array(start)[:, None, None, None, None], wide(t)
        before = np.where(first, 0, r)
        e = c * before * in_input
        x_t = t * (x + e) + (1 - t) * noise
        target = (x - noise) - e * t / np.maximum(1 - t, 0.1)
        r = x_t + (1 - t) * v - x + gamma * before
        r = np.where(first & (not entry), 0, r)
        rows.append((x_t, target, x + r if in_history else x))
    return rows


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"scale": 1.0, "carry_over": 0.5},
        {"entry": False},
        {"in_input": False},
        {"in_history": False},
        {"in_input": False, "carry_over": 1.0},
    ],
    ids=str,
)
def test_a_chain_by_hand(fields):
    arm = Residual(**fields)
    rows = by_hand(arm.scale, arm.carry_over, arm.entry, arm.in_input, arm.in_history)
    carry = arm.init((2, 3, *SHAPE[1:]))
    assert arm.forwards_per_segment == 1 and carry.shape == SHAPE
    for segment, start, t, want in zip(CHAIN, STARTS, TIMES, rows, strict=True):
        ctx = context(starts=start, denoise=None)
        x_t, target = arm.inputs(carry, ctx, segment["x"], t, segment["noise"])
        past, carry = arm.history(carry, ctx, segment["x"], x_t, segment["v"], t)
        for got, value in zip((x_t, target, past), want, strict=True):
            np.testing.assert_allclose(got, value, atol=2e-5)


@pytest.mark.parametrize(
    "fields", [{}, {"entry": False}, {"carry_over": 0.5}, {"in_input": False}, {"in_history": False}], ids=str
)
def test_echoes_by_hand(fields):
    """First sight: Direct Forcing. Then what each segment's own residual was, in input and history."""
    arm = Echo(**fields)
    carry = arm.init((2, 3, *SHAPE[1:]))
    assert arm.least_repeat == 2 and carry.residuals.shape == (2, 3, *SHAPE[1:])
    kept = np.zeros((3, *SHAPE))
    for sight in range(3):
        for n, (segment, start) in enumerate(zip(CHAIN, STARTS, strict=True)):
            t = TIMES[(n + sight) % 3]
            ctx = context(starts=start, index=n, denoise=None)
            x_t, target = arm.inputs(carry, ctx, segment["x"], t, segment["noise"])
            past, carry = arm.history(carry, ctx, segment["x"], x_t, segment["v"], t)
            x, v, noise = (f64(segment[name]) for name in ("x", "v", "noise"))
            first, t = np.array(start)[:, None, None, None, None], wide(t)
            before = np.where(first, 0, kept[n])
            e = 2 * before * arm.in_input
            want_t = t * (x + e) + (1 - t) * noise
            np.testing.assert_allclose(x_t, want_t, atol=1e-4)
            np.testing.assert_allclose(target, x - noise - e * t / np.maximum(1 - t, 0.1), atol=1e-3)
            r = want_t + (1 - t) * v - x + arm.carry_over * before
            r = np.where(first & (not arm.entry), 0, r)
            np.testing.assert_allclose(past, x + (kept[n] if sight else r) * arm.in_history, atol=1e-4)
            kept[n] = r
            np.testing.assert_allclose(carry.residuals[:, n], r, atol=1e-4)
            np.testing.assert_array_equal(carry.seen[0], [n >= m or sight > 0 for m in range(3)])


def test_a_separate_estimate_starts_from_the_disturbed_truth():
    """With the network that leads to x_1 + e from anywhere the residual is e."""
    arm = Residual(estimate=SeparateTime(time=TimeDistribution(shift=2.0)))
    disturbed = X + 2 * R
    exact = context(denoise=lambda x, t: (disturbed - x) / (1 - t.reshape(-1, 1, 1, 1, 1)))
    segment, carry = arm.history(R, exact, X, X_T, V, T)
    np.testing.assert_allclose(carry, 2 * f64(R), atol=1e-4)
    np.testing.assert_allclose(segment, disturbed, atol=1e-4)
    still, _ = arm.history(R, context(denoise=lambda x, t: 0 * x), X, X_T, V, T)
    _, key_noise = jax.random.split(context().key)
    lines = (f64(still) - f64(jax.random.normal(key_noise, SHAPE))) / (
        f64(disturbed) - f64(jax.random.normal(key_noise, SHAPE))
    )
    np.testing.assert_allclose(lines.reshape(2, -1).std(1), 0, atol=1e-2)  # on the line from noise to x_1 + e
    assert arm.forwards_per_segment == 2


@pytest.mark.parametrize(
    "arm", [Residual(carry_over=0.5), Residual(estimate=SeparateTime()), Echo(carry_over=0.5)], ids=str
)
def test_no_gradient_follows(arm):
    assert_detached(arm, carry_of(arm))


@pytest.mark.parametrize("arm", [Residual, Echo])
@pytest.mark.parametrize("fields", [{"scale": -1.0}, {"floor": 0.0}, {"floor": 1.5}, {"carry_over": 2.0}])
def test_bad_fields_are_named(arm, fields):
    with pytest.raises(InputError, match=next(iter(fields))):
        arm(**fields)
