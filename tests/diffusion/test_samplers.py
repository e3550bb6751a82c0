"""The Euler sampler: its grid, its exactness, its order."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mpjax.diffusion.samplers import Euler
from mpjax.errors import InputError

# σ of FramePack-F1 at 25 steps and shift 7, as the reference prints them
F1_SIGMAS = """1 .994083 .98773 .980892 .97351 .965517 .956835 .947368 .937008 .92562 .913043 .899083 .883495 .865979
.846154 .823529 .797468 .767123 .731343 .688525 .636364 .571429 .488372 .378378 .225806 0"""


def test_grid_is_that_of_framepack_f1():
    times = Euler(steps=25, shift=7.0).times()
    assert times.dtype == np.float32
    np.testing.assert_allclose(1 - times, [float(x) for x in F1_SIGMAS.split()], atol=1e-6)


def test_constant_velocity_is_exact_in_one_step_and_in_many():
    noise, data = jnp.array([[1.0, 2.0]]), jnp.array([[-3.0, 5.0]])
    for steps, shift in ((1, 1.0), (7, 1.0), (7, 5.0)):
        got = Euler(steps=steps, shift=shift).sample(lambda x, t: data - noise, noise)
        np.testing.assert_allclose(got, data, atol=2e-6)


def test_first_order_on_a_linear_equation():
    """dx/dt = a(t)·x with a = −2 + 3t has x(1) = x(0)·exp(−1/2); halving the step halves the error."""
    errors = []
    for steps in (20, 40, 80):
        x = Euler(steps=steps).sample(lambda x, t: (-2 + 3 * t[:, None]) * x, jnp.ones((1, 1)))
        errors.append(float(x[0, 0]) - np.exp(-0.5))
    assert np.log2(errors[0] / errors[1]) == pytest.approx(1, abs=0.1)
    assert np.log2(errors[1] / errors[2]) == pytest.approx(1, abs=0.05)


def test_every_step_by_hand_at_its_own_time():
    """Non-linear in x and in t, two rows, shifted: in float64 with the reference's update x += (σ' − σ)·(−v)."""
    sampler = Euler(steps=6, shift=3.0)
    start = np.array([[0.3, -1.0], [2.0, 0.5]])
    x, sigmas = start.copy(), [3 * s / (1 + 2 * s) for s in np.linspace(1, 0, 7)]
    for now, following in itertools.pairwise(sigmas):
        x = x + (following - now) * -(np.sin(3 * x) + np.cos(5 * (1 - now)))
    got = sampler.sample(lambda x, t: jnp.sin(3 * x) + jnp.cos(5 * t[:, None]), jnp.asarray(start, jnp.float32))
    np.testing.assert_allclose(got, x, atol=1e-5)


def test_the_network_is_called_once_a_step_and_never_at_the_data():
    called = []

    def velocity(x, t):
        jax.debug.callback(lambda t: called.append(float(t[0])), t)
        return x

    jax.block_until_ready(Euler(steps=4).sample(velocity, jnp.ones((1, 1))))
    jax.effects_barrier()
    assert sorted(called) == [0.0, 0.25, 0.5, 0.75]


@pytest.mark.parametrize("fields", [{"steps": 0}, {"shift": 0.0}])
def test_bad_fields_are_named(fields):
    with pytest.raises(InputError, match=next(iter(fields))):
        Euler(**fields)
