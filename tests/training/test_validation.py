"""What is looked at during training: samples as the experiment says, held-out batches where those of training lie."""

import types

import jax
import jax.numpy as jnp
import numpy as np

from mpjax import config
from mpjax.diffusion.guidance import ClassifierFree
from mpjax.diffusion.samplers import UniPC
from mpjax.experiment import load
from mpjax.models.memorypack import Denoiser
from mpjax.parallel.mesh import MeshShape
from mpjax.parallel.rules import batch_sharding
from mpjax.training import observer, validation
from tests.tiny import tiny_architecture, tiny_batch

SMOKE = f"{config.find('recall_tiny.py')}:smoke"


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


def test_held_out_batches_lie_where_those_of_training_do(tmp_path, monkeypatch):
    """Split over the mesh, not whole on the first device; read once."""
    experiment = load(SMOKE, ["--config.training.batch_size=2"])
    placement = batch_sharding(MeshShape().build(), 2)
    batch = jax.tree.map(np.asarray, tiny_batch(tiny_architecture()))
    datasets = types.SimpleNamespace(validation=[batch] * experiment.training.validation_batches)
    seen = []
    monkeypatch.setattr(
        observer, "make_validation", lambda objective: lambda params, batches: seen.append(batches) or 0.5
    )
    watching = observer.Observer(
        experiment, datasets, Denoiser(tiny_architecture()), placement, tmp_path, lambda _: None
    )
    log = types.SimpleNamespace(scalars=lambda *_: None)
    watching.validate(1, "objective", {}, log)
    watching.validate(2, "objective", {}, log)
    assert seen[0] is seen[1] and len(seen[0]) == experiment.training.validation_batches
    for leaf in jax.tree.leaves(seen[0]):
        assert leaf.sharding == placement
