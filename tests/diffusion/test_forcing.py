"""What each forcing feeds to the next segment, and that no gradient follows it."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mpjax.diffusion.forcing import Direct, ForcingContext, Student, Teacher
from mpjax.errors import InputError

RNG = np.random.default_rng(0)
SHAPE = (2, 3, 4, 4, 1)
X, X_T, V, NOISE = (jnp.asarray(RNG.normal(size=SHAPE), jnp.float32) for _ in range(4))
T = jnp.array([0.2, 0.9])


def context(later=True, denoise=lambda x, t: 0.5 * x):
    return ForcingContext(
        key=jax.random.key(4),
        index=jnp.int32(1),
        starts_chain=jnp.zeros(2, bool),
        later=jnp.asarray(later),
        denoise=denoise,
    )


@pytest.mark.parametrize("arm", [Teacher(), Direct(), Student()], ids=lambda arm: arm.kind)
def test_inputs_are_the_paper_s_path(arm):
    assert arm.init(SHAPE) == ()
    x_t, target = arm.inputs((), context(), X, T, NOISE)
    t = np.asarray(T, np.float64)[:, None, None, None, None]
    np.testing.assert_allclose(x_t, t * np.asarray(X, np.float64) + (1 - t) * np.asarray(NOISE), atol=1e-6)
    np.testing.assert_allclose(target, np.asarray(X) - np.asarray(NOISE), atol=1e-6)


def test_teacher_feeds_the_truth():
    segment, carry = Teacher().history((), context(), X, X_T, V, T)
    np.testing.assert_array_equal(segment, X)
    assert carry == () and Teacher().forwards_per_segment == 1


def test_direct_feeds_the_one_step_estimate_without_gradient():
    segment, _ = Direct().history((), context(), X, X_T, V, T)
    t = np.asarray(T, np.float64)[:, None, None, None, None]
    np.testing.assert_allclose(segment, np.asarray(X_T) + (1 - t) * np.asarray(V), atol=1e-6)
    gradient = jax.grad(lambda v: Direct().history((), context(), X, X_T, v, T)[0].sum())(V)
    assert float(jnp.abs(gradient).max()) == 0
    assert Direct().forwards_per_segment == 1


def test_student_feeds_a_sample_drawn_by_hand():
    """Five shifted Euler steps from noise of the context's key, whatever x_1, x_t and v are."""
    arm = Student(steps=5, shift=2.0)
    segment, _ = arm.history((), context(denoise=lambda x, t: jnp.sin(x) + t.reshape(-1, 1, 1, 1, 1)), X, X_T, V, T)
    x = np.asarray(jax.random.normal(jax.random.key(4), SHAPE), np.float64)
    sigmas = [2 * s / (1 + s) for s in np.linspace(1, 0, 6)]
    for now, following in itertools.pairwise(sigmas):
        x = x + (now - following) * (np.sin(x) + (1 - now))
    np.testing.assert_allclose(segment, x, atol=1e-5)
    assert arm.forwards_per_segment == 6


def test_student_has_no_gradient_and_draws_nothing_that_nobody_reads():
    @jax.jit
    @jax.value_and_grad
    def total(scale, later):
        return Student(steps=1).history((), context(later, lambda x, t: scale * x), X, X_T, V, T)[0].sum()

    (low, slope), (high, _), (unread, _) = total(0.5, True), total(1.0, True), total(0.5, False)
    assert float(slope) == 0 and float(low) != float(high)
    assert float(unread) == pytest.approx(float(X.sum()), abs=1e-4)


@pytest.mark.parametrize("fields", [{"steps": 0}, {"shift": -1.0}])
def test_bad_fields_are_named(fields):
    with pytest.raises(InputError, match=next(iter(fields))):
        Student(**fields)
