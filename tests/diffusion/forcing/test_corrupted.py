"""Noise, blur and saturation on the history: their formulas against SciPy and NumPy, their frequencies by counting."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.ndimage import correlate1d

from mpjax.diffusion.forcing import Helios, HistoryNoise
from mpjax.diffusion.forcing.corrupted import blur, saturate
from mpjax.errors import InputError
from tests.diffusion.forcing.cases import X_T, T, V, X, assert_detached, context, f64

MANY = jnp.asarray(np.random.default_rng(1).normal(size=(60, 10, 6, 6, 3)), jnp.float32)


def history(arm, x, seed=0):
    """What an arm that looks at x_1 alone feeds."""
    return f64(arm.history((), context(key=jax.random.key(seed)), x, None, None, None)[0])


def test_noise_has_the_drawn_deviation_once_a_video():
    added = history(HistoryNoise(sigma=(0.2, 0.6)), MANY) - f64(MANY)
    sigma = added.std((1, 2, 3, 4))
    assert 0.17 < sigma.min() < 0.25 and 0.55 < sigma.max() < 0.65
    np.testing.assert_allclose(added.std((2, 3, 4)) / sigma[:, None], 1, atol=0.3)  # every frame alike
    assert abs(np.corrcoef(added[0].ravel(), f64(MANY)[0].ravel())[0, 1]) < 0.1
    np.testing.assert_array_equal(history(HistoryNoise(sigma=(0.0, 0.0)), MANY), MANY)
    assert (history(HistoryNoise(), MANY) != history(HistoryNoise(), MANY, seed=1)).any()


def test_blur_is_a_separable_correlation_with_repeated_edges():
    a = np.random.default_rng(2).uniform(0, 1 / 3, X.shape[:2])
    got = blur(X, jnp.asarray(a, jnp.float32))
    for i, j in np.ndindex(*a.shape):
        kernel = [a[i, j], 1 - 2 * a[i, j], a[i, j]]
        want = correlate1d(correlate1d(f64(X[i, j]), kernel, axis=0, mode="nearest"), kernel, axis=1, mode="nearest")
        np.testing.assert_allclose(got[i, j], want, atol=1e-6)


def test_saturation_stretches_the_channels_about_their_mean():
    s = np.random.default_rng(3).uniform(0.3, 1.7, X.shape[:2])
    mean = f64(X).mean(-1, keepdims=True)
    want = mean + s[:, :, None, None, None] * (f64(X) - mean)
    np.testing.assert_allclose(saturate(X, jnp.asarray(s, jnp.float32)), want, atol=1e-6)
    grey = jnp.broadcast_to(X[..., :1], (*X.shape[:-1], 3))
    np.testing.assert_allclose(saturate(grey, jnp.asarray(s, jnp.float32)), grey, atol=1e-6)


def test_helios_damages_each_frame_on_its_own_with_the_given_frequencies():
    """Damage of one known size tells the frames apart."""
    clean = history(Helios(noise_probability=0.0, blur_probability=0.0, saturation_probability=0.0), MANY)
    np.testing.assert_array_equal(clean, MANY)
    fields = {"noise": (0.5, 0.5), "blur": (0.2, 0.2), "saturation": (2.0, 2.0)}
    apart = {"noise_probability": 0.0, "blur_probability": 0.0, "saturation_probability": 0.0}

    saturated = history(Helios(**fields, **{**apart, "saturation_probability": 0.3}), MANY)
    want = np.asarray(saturate(MANY, jnp.full(MANY.shape[:2], 2.0)))
    hit = np.isclose(saturated, want, atol=1e-5).all((2, 3, 4))
    np.testing.assert_allclose(saturated[~hit], f64(MANY)[~hit], atol=1e-6)
    assert 0.23 < hit.mean() < 0.37 and 0 < hit[0].sum() < 10

    both = history(Helios(**fields, **{**apart, "noise_probability": 0.5, "blur_probability": 0.3}), MANY)
    blurred = np.isclose(both, np.asarray(blur(MANY, jnp.full(MANY.shape[:2], 0.2))), atol=1e-5).all((2, 3, 4))
    kept = np.isclose(both, f64(MANY), atol=1e-6).all((2, 3, 4))
    noisy = ~blurred & ~kept
    np.testing.assert_allclose((both - f64(MANY))[noisy].std(), 0.5, rtol=0.02)
    np.testing.assert_allclose([noisy.mean(), blurred.mean(), kept.mean()], [0.5, 0.3, 0.2], atol=0.06)


@pytest.mark.parametrize("arm", [HistoryNoise(), Helios()], ids=lambda arm: arm.kind)
def test_damage_reads_nothing_of_the_network(arm):
    assert arm.forwards_per_segment == 1
    assert_detached(arm)
    one, _ = arm.history((), context(), X, X_T, V, T)
    other, _ = arm.history((), context(), X, -X_T, -V, 1 - T)
    np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(
    ("arm", "fields"),
    [
        (HistoryNoise, {"sigma": (0.3, 0.1)}),
        (HistoryNoise, {"sigma": (-0.1, 0.1)}),
        (Helios, {"noise": (-1.0, 0.0)}),
        (Helios, {"blur": (0.0, 0.4)}),
        (Helios, {"saturation": (2.0, 1.0)}),
        (Helios, {"noise_probability": 1.5}),
        (Helios, {"saturation_probability": -0.5}),
        (Helios, {"blur_probability": 0.5}),
    ],
)
def test_bad_fields_are_named(arm, fields):
    with pytest.raises(InputError, match=next(iter(fields))):
        arm(**fields)
