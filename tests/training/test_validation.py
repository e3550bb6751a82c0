"""Samples during training are drawn as the experiment says."""

import jax.numpy as jnp
import numpy as np

from mpjax.diffusion.guidance import ClassifierFree
from mpjax.diffusion.samplers import UniPC
from mpjax.models.memorypack import Denoiser
from mpjax.training import validation
from tests.tiny import tiny_architecture, tiny_batch


def test_sampler_and_guidance_of_the_experiment_draw_the_samples(monkeypatch):
    seen = []

    def sample(denoiser, sampler, params, state, prompts, noise, classifier_free):
        seen.append((sampler, classifier_free))
        return state + noise

    monkeypatch.setattr(validation, "start_video", lambda *_: jnp.zeros(()))
    monkeypatch.setattr(validation, "append_segment", lambda denoiser, params, state, segment: state + 1)
    monkeypatch.setattr(validation, "sample_segment", sample)
    sampler, guidance = UniPC(steps=3), ClassifierFree(scale=2.0)
    batch = tiny_batch(tiny_architecture())
    drawn = validation.make_sampler(Denoiser(tiny_architecture()), sampler, guidance)({}, batch)
    assert drawn.shape == batch.segments.shape and seen == [(sampler, guidance)]
    np.testing.assert_allclose(drawn.mean((0, 2, 3, 4, 5)), [0, 1, 2], atol=0.3)
