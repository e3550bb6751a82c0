"""Teacher and Student Forcing, and the inputs that most arms share."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mpjax.diffusion.forcing import Direct, Helios, HistoryNoise, Resampling, Student, Teacher
from mpjax.errors import InputError
from tests.diffusion.forcing.cases import KEY, NOISE, SHAPE, X_T, T, V, X, context, f64, wide


@pytest.mark.parametrize(
    "arm", [Teacher(), HistoryNoise(), Helios(), Direct(), Student(), Resampling()], ids=lambda arm: arm.kind
)
def test_inputs_are_the_paper_s_path(arm):
    assert arm.init((2, 3, *SHAPE[1:])) == ()
    x_t, target = arm.inputs((), context(), X, T, NOISE)
    np.testing.assert_allclose(x_t, wide(T) * f64(X) + (1 - wide(T)) * f64(NOISE), atol=1e-6)
    np.testing.assert_allclose(target, f64(X) - f64(NOISE), atol=1e-6)


def test_teacher_feeds_the_truth():
    segment, carry = Teacher().history((), context(), X, X_T, V, T)
    np.testing.assert_array_equal(segment, X)
    assert carry == () and Teacher().forwards_per_segment == 1


@pytest.mark.parametrize("steps", [2, 5, 10])
def test_student_feeds_a_sample_drawn_by_hand(steps):
    """Shifted Euler steps from noise of the context's key, whatever x_1, x_t and v are."""
    arm = Student(steps=steps, shift=2.0)
    segment, _ = arm.history((), context(denoise=lambda x, t: jnp.sin(x) + t.reshape(-1, 1, 1, 1, 1)), X, X_T, V, T)
    x = f64(jax.random.normal(KEY, SHAPE))
    sigmas = [2 * s / (1 + s) for s in np.linspace(1, 0, steps + 1)]
    for now, following in itertools.pairwise(sigmas):
        x = x + (now - following) * (np.sin(x) + (1 - now))
    np.testing.assert_allclose(segment, x, atol=1e-5)
    assert arm.forwards_per_segment == 1 + steps


@pytest.mark.parametrize("arm", [Student(steps=1), Resampling(steps=1)], ids=lambda arm: arm.kind)
def test_a_drawn_history_has_no_gradient_and_nothing_is_drawn_that_nobody_reads(arm):
    @jax.jit
    @jax.value_and_grad
    def total(scale, later):
        return arm.history((), context(later, lambda x, t: scale * x), X, X_T, V, T)[0].sum()

    (low, slope), (high, _), (unread, _) = total(0.5, True), total(1.0, True), total(0.5, False)
    assert float(slope) == 0 and float(low) != float(high)
    assert float(unread) == pytest.approx(float(X.sum()), abs=1e-4)


@pytest.mark.parametrize("fields", [{"steps": 0}, {"shift": -1.0}])
def test_bad_fields_are_named(fields):
    with pytest.raises(InputError, match=next(iter(fields))):
        Student(**fields)
