"""Classifier-free guidance: closed forms, restored contrast, and no cost where it is off."""

import jax.numpy as jnp
import numpy as np
import pytest

from mpjax.diffusion.guidance import UNGUIDED, ClassifierFree
from mpjax.diffusion.samplers import Euler, UniPC
from mpjax.errors import InputError

RNG = np.random.default_rng(0)
POSITIVE = RNG.normal(size=(3, 2, 5)).astype(np.float32) * np.array([1, 2, 3], np.float32)[:, None, None] + 1
NEGATIVE = RNG.normal(size=(3, 2, 5)).astype(np.float32)


def std(v):
    return np.std(np.asarray(v, np.float64), axis=(1, 2))


def test_the_scale_goes_away_from_the_negative():
    guided = ClassifierFree(scale=3.0).combine(POSITIVE, NEGATIVE)
    np.testing.assert_allclose(guided, 3 * POSITIVE - 2 * NEGATIVE, atol=1e-5)
    np.testing.assert_allclose(ClassifierFree(scale=9.0).combine(POSITIVE, POSITIVE), POSITIVE, atol=1e-5)


@pytest.mark.parametrize("rescale", [0.0, 0.4, 1.0])
def test_rescale_takes_the_contrast_of_each_sample_back(rescale):
    plain = 3 * POSITIVE - 2 * NEGATIVE
    guided = np.asarray(ClassifierFree(scale=3.0, rescale=rescale).combine(POSITIVE, NEGATIVE))
    assert (np.abs(std(plain) / std(POSITIVE) - 1) > 0.1).all()
    np.testing.assert_allclose(std(guided), rescale * std(POSITIVE) + (1 - rescale) * std(plain), rtol=1e-5)
    np.testing.assert_allclose(guided / plain, (guided / plain)[:, :1, :1] + np.zeros_like(plain), rtol=1e-4)


def test_nothing_learned_stays_nothing():
    zero = jnp.zeros((2, 4))
    np.testing.assert_array_equal(ClassifierFree(scale=2.0, rescale=1.0).combine(zero, zero), zero)


def test_the_negative_is_evaluated_once_a_step_and_not_at_all_at_scale_1():
    """Counted where the network is traced: the negative is part of the program only where guidance is active."""

    def traces(classifier_free):
        seen = []

        def named(name):
            return lambda x, t, calls: (seen.append(name) or x * t[:, None], calls + 1)

        velocity = classifier_free.guide(named("+"), named("-"))
        _, calls = Euler(steps=3).sample_with_state(velocity, jnp.ones((1, 2)), (0, 0))
        assert [int(count) for count in calls] == [3, 3 if classifier_free.active else 0]  # each keeps its own state
        return seen

    assert traces(UNGUIDED) == traces(ClassifierFree(scale=1.0, rescale=0.7)) == ["+"]
    assert traces(ClassifierFree(scale=1.5)) == ["+", "-"]


@pytest.mark.parametrize("cls", [Euler, UniPC])
def test_a_guided_sample_by_hand(cls):
    """Towards a under the prompt and b under the negative: the guided velocity leads to b + s·(a − b)."""
    a, b = jnp.array([[1.0, -2.0]]), jnp.array([[0.5, 3.0]])

    def towards(data):
        return lambda x, t, state: ((data - x) / (1 - t[:, None]), state)

    velocity = ClassifierFree(scale=2.5).guide(towards(a), towards(b))
    got, _ = cls(steps=5, shift=2.0).sample_with_state(velocity, jnp.array([[0.3, 0.1]]), ((), ()))
    np.testing.assert_allclose(got, b + 2.5 * (a - b), atol=1e-5)


@pytest.mark.parametrize(
    "fields", [{"scale": 0.5}, {"scale": float("nan")}, {"scale": float("inf")}, {"rescale": -0.1}, {"rescale": 1.1}]
)
def test_bad_fields_are_named(fields):
    with pytest.raises(InputError, match=next(iter(fields))):
        ClassifierFree(**fields)
