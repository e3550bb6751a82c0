"""Which steps TeaCache leaves out, and what it puts in their place."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mpjax.errors import InputError
from mpjax.models.framepack import empty_history
from mpjax.models.memory import Memory
from mpjax.models.memorypack import Denoiser
from mpjax.models.teacache import CachedDenoiser, TeaCache
from tests.fixtures import seeded
from tests.tiny import perturbed_params, tiny_architecture, tiny_batch

STEPS = 8


@pytest.fixture(scope="module")
def setting():
    """Denoiser, parameters, condition and so on of two videos; noisy latents and t of eight steps, ever closer."""
    denoiser = Denoiser(tiny_architecture(memory=None, guidance_embeds=True), guidance=3.0)
    batch = tiny_batch(denoiser.architecture)
    params = perturbed_params(denoiser, batch)
    condition = denoiser.condition(params, batch.first_prompts, batch.reference)
    history = empty_history(batch.reference, denoiser.architecture.framepack)
    memory = Memory(tokens=jnp.zeros((2, 0, 16)), valid=jnp.zeros((2, 0), bool))
    start, direction = (jnp.asarray(seeded.normal(name, batch.segments[:, 0].shape)) for name in ("start", "direction"))
    times = jnp.linspace(0, 0.9, STEPS)
    x = [start + 0.3 * t**2 * direction for t in times]
    return denoiser, params, history, condition, memory, list(zip(x, times, strict=True))


def run(setting, threshold, denoiser=None):
    plain, params, history, condition, memory, steps = setting
    cached = CachedDenoiser(denoiser or plain, TeaCache(threshold=threshold), STEPS)
    state = cached.start(params, steps[0][0], history, condition, memory)
    velocity = jax.jit(cached.velocity)
    found = []
    for x, t in steps:
        v, state = velocity(params, x, jnp.full((2,), t), history, condition, memory, state)
        found.append((np.asarray(v), bool(state.change == 0)))
    return [v for v, _ in found], [ran for _, ran in found]


def inputs_of(setting, step):
    denoiser, params, history, condition, memory, steps = setting
    x, t = steps[step]
    timestep = 1000 * (1 - jnp.full((2,), t))
    return denoiser.apply(params, x, timestep, history, condition, memory, jnp.full((2,), 3000.0), method="embed")


def expected_runs(setting, threshold):
    """The rule in float64 NumPy."""
    params = setting[1]
    linear = params["blocks"]["dual_blocks"]["norm1"]["linear"]
    ran, before, change = [], None, 0.0
    for step in range(STEPS):
        inputs = inputs_of(setting, step)
        x, temb = np.float64(inputs.latents), np.float64(inputs.temb)
        temb = temb / (1 + np.exp(-temb))
        modulation = temb @ np.float64(linear["kernel"][0]) + np.float64(linear["bias"][0])
        shift, scale = modulation[:, None, :16], modulation[:, None, 16:32]
        x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-6)
        signal = x * (1 + scale) + shift
        if before is not None:
            rel = np.abs(signal - before).mean() / np.abs(before).mean()
            change += 733.226126 * rel**4 - 401.131952 * rel**3 + 67.5869174 * rel**2 - 3.149878 * rel + 0.0961237896
        run = step in (0, STEPS - 1) or change >= threshold
        change = 0.0 if run else change
        before = signal
        ran.append(run)
    return ran


def plain_velocities(setting):
    denoiser, params, history, condition, memory, steps = setting
    velocity = jax.jit(denoiser.velocity)
    return [np.asarray(velocity(params, x, jnp.full((2,), t), history, condition, memory)) for x, t in steps]


def test_threshold_zero_is_the_network(setting):
    found, ran = run(setting, 0.0)
    assert ran == [True] * STEPS
    for a, b in zip(found, plain_velocities(setting), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


@pytest.mark.parametrize("threshold", [0.2, 0.35, 0.5])
def test_steps_are_left_out_by_the_rule(setting, threshold):
    ran = run(setting, threshold)[1]
    assert ran == expected_runs(setting, threshold)
    assert 2 < sum(ran) < STEPS


def test_a_step_left_out_adds_what_the_blocks_added_before(setting):
    denoiser, params = setting[:2]
    found, ran = run(setting, 1e9)
    assert ran == [True] + [False] * (STEPS - 2) + [True]
    first, now = inputs_of(setting, 0), inputs_of(setting, 4)
    added = denoiser.apply(params, first, method="run_blocks") - first.latents
    expected = -denoiser.apply(params, now.latents + added, now, (2, 4, 4), method="project")
    np.testing.assert_allclose(found[4], expected, atol=1e-5)
    plain = plain_velocities(setting)
    np.testing.assert_allclose(found[-1], plain[-1], atol=1e-6)
    assert np.abs(found[4] - plain[4]).max() > 1e-4


def test_in_bfloat16_a_step_that_runs_is_the_network_to_the_bit(setting):
    """What the blocks return is used as it is, not as input plus difference, which would round it once more."""
    denoiser = setting[0]
    low = dataclasses.replace(denoiser, architecture=dataclasses.replace(denoiser.architecture, dtype="bfloat16"))
    found, ran = run(setting, 1e9, low)
    assert sum(ran) == 2
    plain = plain_velocities((low, *setting[1:]))
    for step in (0, -1):
        np.testing.assert_array_equal(found[step], plain[step])


def test_a_threshold_below_zero_is_refused():
    with pytest.raises(InputError, match="threshold is -1"):
        TeaCache(threshold=-1)
