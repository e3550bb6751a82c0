"""What is timed is the state that the run itself has."""

import dataclasses

import jax

from mpjax.datasets import open_datasets
from mpjax.evaluation import step_time
from mpjax.evaluation.step_time import paired_step_times
from mpjax.models.lora import Lora
from mpjax.models.memorypack import Denoiser
from mpjax.training.compiled_step import StageStep, state_factory
from tests.generation.runs import recallworld_experiment


def kinds(tree):
    return jax.tree.map(lambda x: (x.shape, x.dtype, x.sharding), tree)


def test_an_adapter_is_timed_beside_its_base(monkeypatch):
    whole = recallworld_experiment()
    plain = dataclasses.replace(whole, model=dataclasses.replace(whole.model, memory=None))
    stage = dataclasses.replace(plain.training.stages[-1], trainable="lora")
    training = dataclasses.replace(plain.training, stages=(stage,), lora=Lora(rank=2), base_dtype="bfloat16")
    styled = dataclasses.replace(plain, training=training)
    timed = {}

    def stage_step(experiment, stage, denoiser, state, mesh, **_):
        timed[stage.trainable] = state
        run = lambda state, batch: (state, {"forwards_per_update": 1.0})  # noqa: E731
        return StageStep(objective=None, make=None, run=run)

    monkeypatch.setattr(step_time, "stage_step", stage_step)
    times = paired_step_times(plain, styled, pairs=6)
    assert times["pairs"] == 6 and times["other_forwards"] == 1.0
    for experiment in (plain, styled):
        (stage,) = experiment.training.stages
        batch = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), open_datasets(experiment).train[0])
        denoiser, mesh = Denoiser(experiment.model, experiment.guidance), experiment.mesh.build()
        assert kinds(timed[stage.trainable]) == kinds(state_factory(experiment, denoiser, batch, mesh).abstract(stage))
    assert timed["lora"].base is not None and timed["all"].base is None
