"""Rectified flow: the paper's equations in float64, the shift, and where t is drawn."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.integrate
import scipy.special
import scipy.stats

from mpjax.diffusion.flow import (
    TimeDistribution,
    expand,
    interpolate,
    one_step_estimate,
    shift_sigma,
    target_velocity,
)
from mpjax.errors import InputError

RNG = np.random.default_rng(0)
X, NOISE = RNG.normal(size=(3, 2, 4, 4, 2)), RNG.normal(size=(3, 2, 4, 4, 2))
T = np.array([0.0, 0.3, 1.0])


def f32(x):
    return jnp.asarray(x, jnp.float32)


def test_equations_3_4_and_7():
    t = T[:, None, None, None, None]
    np.testing.assert_allclose(interpolate(f32(X), f32(NOISE), f32(T)), t * X + (1 - t) * NOISE, atol=1e-6)
    np.testing.assert_allclose(target_velocity(f32(X), f32(NOISE)), X - NOISE, atol=1e-6)
    v = RNG.normal(size=X.shape)
    np.testing.assert_allclose(one_step_estimate(f32(X), f32(v), f32(T)), X + (1 - t) * v, atol=1e-6)


def test_velocity_is_the_time_derivative_of_the_path():
    moment = jnp.array([0.2, 0.5, 0.7])
    _, slope = jax.jvp(lambda t: interpolate(f32(X), f32(NOISE), t), (moment,), (jnp.ones(3),))
    np.testing.assert_allclose(slope, target_velocity(f32(X), f32(NOISE)), atol=1e-6)


def test_the_true_velocity_makes_the_estimate_exact_at_any_time():
    """Data at t = 1: there the path and the estimate are the data, and at t = 0 the path is the noise."""
    x_t = interpolate(f32(X), f32(NOISE), f32(T))
    np.testing.assert_array_equal(x_t[0], f32(NOISE)[0])
    np.testing.assert_array_equal(x_t[2], f32(X)[2])
    np.testing.assert_allclose(one_step_estimate(x_t, f32(X - NOISE), f32(T)), X, atol=1e-6)


def test_estimate_is_the_reference_code_in_its_own_convention():
    """x0 = x_σ − σ · output with σ = 1 − t and output = ε − x (FramePack, HunyuanVideo)."""
    sigma, output = 1 - T[:, None, None, None, None], RNG.normal(size=X.shape)
    got = one_step_estimate(f32(NOISE), f32(-output), f32(T))
    np.testing.assert_allclose(got, NOISE - sigma * output, atol=1e-6)


def test_shift_keeps_the_ends_composes_and_inverts():
    sigma = np.linspace(0, 1, 11)
    np.testing.assert_array_equal(shift_sigma(sigma, 1.0), sigma)
    np.testing.assert_allclose(shift_sigma(np.array([0.0, 1.0]), 7.0), [0, 1], atol=0)
    np.testing.assert_allclose(shift_sigma(shift_sigma(sigma, 7.0), 1 / 7.0), sigma, atol=1e-15)
    np.testing.assert_allclose(shift_sigma(shift_sigma(sigma, 2.0), 3.0), shift_sigma(sigma, 6.0), atol=1e-15)
    # The reference writes it shift / (shift + 1/σ − 1).
    np.testing.assert_allclose(shift_sigma(sigma[1:], 3.0), 3 / (3 + 1 / sigma[1:] - 1), atol=1e-15)


@pytest.mark.parametrize("mean", [0.0, -0.5])
@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_logit_normal_moments(mean, shift):
    """Mean and second moment of t by quadrature; σ = sigmoid(N(mean, std²)), then shifted towards noise."""
    std, count = 0.8, 200_000
    times = TimeDistribution(name="logit_normal", mean=mean, std=std, shift=shift)
    t = np.asarray(times.sample(jax.random.key(1), count))
    assert t.dtype == np.float32 and t.min() >= 0 and t.max() <= 1

    def moment(power):
        def integrand(z):
            s = scipy.special.expit(z)
            return (1 - shift * s / (1 + (shift - 1) * s)) ** power * scipy.stats.norm.pdf(z, mean, std)

        return scipy.integrate.quad(integrand, mean - 10 * std, mean + 10 * std)[0]

    for power in (1, 2):
        spread = np.sqrt(moment(2 * power) - moment(power) ** 2)
        assert abs((t.astype(np.float64) ** power).mean() - moment(power)) < 5 * spread / np.sqrt(count)


@pytest.mark.parametrize("shift", [1.0, 7.0])
def test_uniform_distribution(shift):
    """Unshifted σ is uniform, by Kolmogorov and Smirnov."""
    t = np.asarray(TimeDistribution(shift=shift).sample(jax.random.key(2), 20_000), np.float64)
    sigma = 1 - t
    assert scipy.stats.kstest(sigma / (shift - (shift - 1) * sigma), "uniform").pvalue > 1e-3


@pytest.mark.parametrize(
    ("fields", "named"), [({"name": "beta"}, "name"), ({"shift": 0.0}, "shift"), ({"std": -1.0}, "std")]
)
def test_bad_fields_are_named(fields, named):
    with pytest.raises(InputError, match=named):
        TimeDistribution(**fields)


def test_expand():
    assert expand(jnp.ones(3), jnp.ones((3, 2, 4))).shape == (3, 1, 1)
