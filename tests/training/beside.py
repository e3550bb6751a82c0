"""Runs that own a part of a network, beside weights that stay in their files."""

import dataclasses
import shutil

import jax
import numpy as np

from mpjax.parameters import parameter_path
from mpjax.training.loop import train
from mpjax.training.optimizer import Optimizer
from tests.training.runs import checkpoint


def by_path(tree):
    return {parameter_path(path): np.asarray(leaf) for path, leaf in jax.tree.leaves_with_path(tree)}


def two_updates(whole, trainable, *, stage=None, **training):
    """An experiment that trains a part of `whole` for two updates, with a checkpoint after each.

    Args:
        stage: further fields of its stage.
        training: further fields of its training.
    """
    adam = Optimizer(learning_rate=1e-2)
    fields = {"steps": 2, "trainable": trainable, "optimizer": adam, "curriculum": ((0, 2),), **(stage or {})}
    stages = (dataclasses.replace(whole.training.stages[0], **fields),)
    shared = {"stages": stages, "segments": 2, "checkpoint_every": 1, "validate_every": 0, "sample_every": 0}
    return dataclasses.replace(whole, training=dataclasses.replace(whole.training, **shared, **training))


def assert_trained(experiment, folder, init, cache):
    """Trains it; what it said. Nothing starts fresh, and nothing of `init` is left over."""
    said = []
    assert train(experiment, folder, init=init, instruments=cache, say=said.append) == 2
    assert any("that stay as they are" in line for line in said)
    assert not any("start fresh" in line or "not in this model" in line for line in said)
    return said


def assert_goes_on(experiment, run, init, cache, again):
    """A copy of the run without its second checkpoint makes that again, with the same bits."""
    arrays = dict(checkpoint(run, 2))
    shutil.copytree(run, again)
    shutil.rmtree(again / "checkpoints" / "2")
    assert train(experiment, again, init=init, instruments=cache, say=lambda _: None) == 2
    for name, array in checkpoint(again, 2):
        assert array.tobytes() == arrays[name].tobytes(), name
