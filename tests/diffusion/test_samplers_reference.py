"""Schedules, samplers and guidance against diffusers: what it computed once, and where torch is installed, live."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file

from mpjax.diffusion.guidance import ClassifierFree
from mpjax.diffusion.samplers import Euler, UniPC
from tests.fixtures import reference_samplers as reference

STORED = load_file(Path(reference.__file__).with_name("samplers.safetensors"))


@pytest.fixture(params=["stored", pytest.param("live", marks=pytest.mark.parity)], scope="module")
def golden(request):
    """Results of diffusers 0.42.1."""
    if request.param == "stored":
        return STORED
    pytest.importorskip("torch")
    pytest.importorskip("diffusers")
    live = reference.golden()
    assert live.keys() == STORED.keys()
    for name, value in live.items():
        np.testing.assert_allclose(value, STORED[name], atol=1e-6, err_msg=name)
    return live


def test_sigmas(golden):
    for steps, shift in reference.GRIDS:
        grid = Euler(steps=steps, shift=shift).sigmas()
        np.testing.assert_allclose(grid, golden[f"sigmas.{steps}.{shift:g}"], atol=2e-7)
    for tokens in reference.TOKENS:
        grid = UniPC(steps=10, shift=None).sigmas(tokens)
        np.testing.assert_allclose(grid, golden[f"sigmas.tokens.{tokens}"], atol=2e-7)


def recorded(sampler):
    """What the network was evaluated at, then the result, `[steps + 1, …]`."""
    seen = []

    def velocity(x, t):
        seen.append(x)
        sigma = 1 - t[:, None, None]
        return (reference.prediction_of_data(jnp, x, sigma) - x) / sigma

    with jax.disable_jit():
        result = sampler.sample(velocity, jnp.asarray(reference.noise()))
    return np.stack([*seen, result])


def test_euler(golden):
    steps, shift = reference.EULER
    np.testing.assert_allclose(recorded(Euler(steps=steps, shift=shift)), golden["euler"], atol=2e-6)


@pytest.mark.parametrize(("variant", "steps", "shift"), reference.UNIPC)
def test_unipc(golden, variant, steps, shift):
    want = golden[f"unipc.{variant}.{steps}"]
    assert want.shape[0] == steps + 1 and np.abs(np.diff(want, axis=0)).max(axis=(1, 2, 3)).min() > 1e-4
    got = recorded(UniPC(steps=steps, shift=shift, variant=variant))
    np.testing.assert_allclose(got, want, atol=5e-6)


def test_guidance(golden):
    positive, negative = map(jnp.asarray, reference.velocities())
    for rescale in reference.RESCALES:
        guided = ClassifierFree(scale=reference.SCALE, rescale=rescale).combine(positive, negative)
        np.testing.assert_allclose(guided, golden[f"guided.{rescale:g}"], atol=5e-6)
