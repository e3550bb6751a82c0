"""The samplers: their grid, their exactness, their order; UniPC against its definition as a loop in float64."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mpjax.diffusion.samplers import Euler, UniPC, dynamic_shift
from mpjax.errors import InputError

# σ of FramePack-F1 at 25 steps and shift 7, as the reference prints them
F1_SIGMAS = """1 .994083 .98773 .980892 .97351 .965517 .956835 .947368 .937008 .92562 .913043 .899083 .883495 .865979
.846154 .823529 .797468 .767123 .731343 .688525 .636364 .571429 .488372 .378378 .225806 0"""


@pytest.mark.parametrize("cls", [Euler, UniPC])
def test_grid_is_that_of_framepack_f1(cls):
    times = cls(steps=25, shift=7.0).times()
    assert times.dtype == np.float32
    np.testing.assert_allclose(1 - times, [float(x) for x in F1_SIGMAS.split()], atol=1e-6)


@pytest.mark.parametrize(
    ("tokens", "shift"), [(256, math.exp(0.5)), (576, 1.740490), (1024, 1.877611), (4096, 3.158193), (8797, 6.998824)]
)
def test_the_dynamic_shift_goes_by_the_tokens(tokens, shift):
    assert dynamic_shift(tokens) == pytest.approx(shift, abs=1e-6)
    grid = Euler(steps=9, shift=shift).sigmas()
    np.testing.assert_allclose(UniPC(steps=9, shift=None).sigmas(tokens), grid, atol=1e-6)


def test_the_dynamic_shift_saturates_at_7_and_needs_the_tokens():
    assert dynamic_shift(8798) == dynamic_shift(10**9) == pytest.approx(7)
    for sampler in (Euler(shift=None), UniPC(shift=None)):
        with pytest.raises(ValueError, match="number of noisy tokens"):
            sampler.sample(lambda x, t: x, jnp.ones((1, 1)))


@pytest.mark.parametrize("sampler", [Euler(steps=3, shift=None), UniPC(steps=3, shift=None)])
def test_the_tokens_reach_the_grid(sampler):
    got = jax.jit(lambda x: sampler.sample(lambda x, t: jnp.sin(x), x, 1024))(jnp.ones((1, 1)))
    fixed = type(sampler)(steps=3, shift=dynamic_shift(1024)).sample(lambda x, t: jnp.sin(x), jnp.ones((1, 1)))
    np.testing.assert_allclose(got, fixed, atol=1e-6)


@pytest.mark.parametrize("cls", [Euler, UniPC])
def test_constant_velocity_is_exact_in_one_step_and_in_many(cls):
    noise, data = jnp.array([[1.0, 2.0]]), jnp.array([[-3.0, 5.0]])
    for steps, shift in ((1, 1.0), (7, 1.0), (7, 5.0)):
        got = cls(steps=steps, shift=shift).sample(lambda x, t: data - noise, noise)
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


@pytest.mark.parametrize("cls", [Euler, UniPC])
def test_the_network_is_traced_once_called_once_a_step_and_never_at_the_data(cls):
    traced, called = [], []

    def velocity(x, t):
        traced.append(t.shape)
        jax.debug.callback(lambda t: called.append(float(t[0])), t)
        return x

    jax.block_until_ready(jax.jit(lambda x: cls(steps=4).sample(velocity, x))(jnp.ones((2, 1))))
    jax.effects_barrier()
    assert traced == [(2,)] and sorted(called) == [0.0, 0.25, 0.5, 0.75]


@pytest.mark.parametrize(
    ("cls", "fields"),
    [
        (Euler, {"steps": 0}),
        (Euler, {"shift": 0.0}),
        (UniPC, {"steps": 0}),
        (UniPC, {"shift": float("inf")}),
        (UniPC, {"variant": "bh3"}),
    ],
)
def test_bad_fields_are_named(cls, fields):
    with pytest.raises(InputError, match=next(iter(fields))):
        cls(**fields)


# -- UniPC -----------------------------------------------------------------------------------------------------------


def definition(m, x, sigmas, variant):
    """UniPC step by step in float64, as docs/backbone.md 2.4 writes it: (corrected x after each step, result)."""
    steps, past, seen = len(sigmas) - 1, [], []
    for i in range(steps):
        if i == 0:
            past = [m(x, sigmas[0])]
            seen.append(x)
            continue
        order = min(i, 3, steps - 1)
        t, t0 = sigmas[i], sigmas[i - 1]
        h = math.log(t0 / t)
        hh = -h
        b_h = hh if variant == "bh1" else math.expm1(hh)
        r = [(-math.log(sigmas[i - 1 - k]) + math.log(t0)) / h for k in range(1, order)] + [1.0]
        differences = [(past[-1 - k] - past[-1]) / r[k - 1] for k in range(1, order)]
        phi, factorial, matrix, b = math.expm1(hh) / hh - 1, 1, [], []
        for j in range(1, order + 1):
            matrix.append([ratio ** (j - 1) for ratio in r])
            b.append(phi * factorial / b_h)
            factorial *= j + 1
            phi = phi / hh - 1 / factorial
        base = t / t0 * x - math.expm1(hh) * past[-1]
        if order <= 2:
            rho = [0.5][: order - 1]
        else:
            rho = np.linalg.solve(np.array(matrix)[: order - 1, : order - 1], b[: order - 1])
        predicted = base - b_h * sum((w * d for w, d in zip(rho, differences, strict=True)), 0 * x)
        new = m(predicted, t)
        rho = [0.5] if order == 1 else np.linalg.solve(matrix, b)
        x = base - b_h * sum(w * d for w, d in zip(rho, [*differences, new - past[-1]], strict=True))
        past.append(new)
        seen.append(x)
    return np.stack(seen), past[-1]


def by_weights(sampler, m, x):
    """The same through `weights`, in float64."""
    past, seen = [np.zeros_like(x)] * 3, []
    for sigma, predictor, corrector in zip(sampler.sigmas(), *sampler.weights(), strict=False):
        new = m(np.tensordot(predictor, [x, *past], 1), sigma)
        x = np.tensordot(corrector, [x, *past, new], 1)
        past = [new, *past[:-1]]
        seen.append(x)
    return np.stack(seen), past[0]


def as_velocity(m):
    """The velocity whose prediction of the data is m(x, σ)."""
    return lambda x, t: (m(x, (sigma := 1 - t[:, None])) - x) / sigma


VECTORS = {
    1: (0.9684311, -0.4830479, 1.9360838),
    3: (0.8735615, -0.4405289, 1.7496219),
    7: (0.3336421, -0.2219139, 0.7040129),
}


def test_the_vectors_of_the_reference():
    start, cos = np.array([1, -0.5, 2]), (np.cos, jnp.cos)
    numpy_m, jax_m = (lambda x, sigma, cos=f: 0.3 * x * sigma + 0.1 * cos(5 * sigma) for f in cos)
    sampler = UniPC(steps=8, shift=3.0)
    assert sampler == UniPC(steps=8, shift=3.0, variant="bh1")
    trace, result = by_weights(sampler, numpy_m, start)
    for i, x in VECTORS.items():
        np.testing.assert_allclose(trace[i], x, atol=6e-8)
    np.testing.assert_allclose(result, (0.0393278, -0.0112572, 0.0730511), atol=6e-8)
    for variant, want in (
        ("bh1", (0.0393278, -0.0112572, 0.0730511)),
        ("bh2", (0.0393286, -0.0112570, 0.0730523)),
    ):
        sampler = UniPC(steps=8, shift=3.0, variant=variant)
        got = jax.jit(lambda x, s=sampler: s.sample(as_velocity(jax_m), x))(jnp.array(start[None], jnp.float32))
        np.testing.assert_allclose(got[0], want, atol=3e-7)  # bh1 and bh2 differ by up to 1.2e-6


@pytest.mark.parametrize("variant", ["bh1", "bh2"])
@pytest.mark.parametrize(("steps", "shift"), [(1, 1.0), (2, 5.0), (3, 7.0), (4, 0.5), (5, 1.0), (25, 7.0), (100, 1.0)])
def test_every_step_of_the_definition(variant, steps, shift):
    """On random problems, not linear in x nor in σ, two rows."""
    rng = np.random.default_rng(steps)
    a, b, start = rng.normal(size=3), rng.normal(size=3), rng.normal(size=(2, 3))
    sampler = UniPC(steps=steps, shift=shift, variant=variant)
    numpy_m, jax_m = (lambda x, s, f=f: f.tanh(a * x + f.cos(4 * s)) + b * f.exp(-s) for f in (np, jnp))
    trace, result = definition(numpy_m, start, sampler.sigmas(), variant)
    assert np.abs(result).min() > 0.01
    got_trace, got = by_weights(sampler, numpy_m, start)
    np.testing.assert_allclose(got_trace, trace, atol=1e-9)
    np.testing.assert_allclose(got, result, atol=1e-9)
    drawn = sampler.sample(as_velocity(jax_m), jnp.asarray(start, jnp.float32))
    np.testing.assert_allclose(drawn, result, atol=1e-5)


def gaussian(mean, deviation):
    """E[x_0 | x] of data N(mean, deviation²), and where the exact flow takes z ~ N(0, 1) to."""

    def m(x, sigma):
        gain = deviation**2 * (1 - sigma) / ((deviation * (1 - sigma)) ** 2 + sigma**2)
        return mean + gain * (x - (1 - sigma) * mean)

    def flow(z, sigma):
        return (1 - sigma) * mean + np.sqrt((deviation * (1 - sigma)) ** 2 + sigma**2) * z

    return m, flow


@pytest.mark.parametrize("variant", ["bh1", "bh2"])
def test_third_order_on_the_exact_flow_of_a_gaussian(variant):
    """In the middle, since the result is a prediction of the data, whose own error is that of the last σ."""
    m, flow = gaussian(1.5, 0.4)
    start, errors = np.array([[-1.0], [2.0]]), []
    for steps in (20, 40, 80):
        trace, _ = by_weights(UniPC(steps=steps, variant=variant), m, start)
        errors.append(np.abs(trace[steps // 2] - flow(start, 0.5)).max())
    assert np.log2(errors[0] / errors[1]) > 2.8 and np.log2(errors[1] / errors[2]) > 2.8


def test_twice_the_steps_halve_the_error_of_euler_and_quarter_that_of_unipc():
    """Of the result, whose last evaluation at σ = 1/steps bounds it to second order."""
    m, flow = gaussian(1.5, 1.0)
    start = jnp.linspace(-2.0, 2.0, 9)[:, None]

    def error(sampler):
        drawn = jax.jit(lambda x: sampler.sample(as_velocity(m), x))(start)
        return np.abs(drawn - flow(np.asarray(start), 0.0)).max()

    euler, unipc = ([error(cls(steps=steps)) for steps in (24, 48, 96)] for cls in (Euler, UniPC))
    for n in (0, 1):
        assert 1.8 < euler[n] / euler[n + 1] < 2.2 and unipc[n] / unipc[n + 1] > 3.5
    assert unipc[0] < euler[0] / 5 and unipc[2] < euler[2] / 30
