"""Weights that no stage trains, beside what a run owns: read from `--init`, held in their own dtype, never saved."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mpjax.diffusion.flow import TimeDistribution
from mpjax.diffusion.forcing import Direct
from mpjax.errors import InputError
from mpjax.experiment import fingerprint
from mpjax.interop.convert.exporting import export_run
from mpjax.models.lora import Lora
from mpjax.models.memorypack import Denoiser
from mpjax.parallel.mesh import MeshShape
from mpjax.parameters import parameter_path, pruned
from mpjax.plan.command import count
from mpjax.training.curriculum import Stage
from mpjax.training.gradients import Objective
from mpjax.training.instruments import Instruments
from mpjax.training.loop import train
from mpjax.training.optimizer import Optimizer
from mpjax.training.state import StateFactory
from mpjax.training.step import make_train_step
from mpjax.training.trainable import partition
from mpjax.weights import load_run, stored_weights
from tests.generation.runs import recallworld_experiment, write_run
from tests.tiny import perturbed_params, tiny_architecture, tiny_batch
from tests.training.beside import assert_goes_on, assert_trained, by_path, two_updates
from tests.training.runs import checkpoint

HEAD = "output_head"


def updates(state, stage, batch, denoiser, number=2):
    objective = Objective(denoiser=denoiser, forcing=Direct(), time=TimeDistribution())
    step = jax.jit(make_train_step(objective, stage.optimizer.transformation(stage.steps), trainable=stage.trainable))
    for _ in range(number):
        state, metrics = step(state, batch)
    return state, metrics


def test_an_update_is_that_of_a_run_that_owns_the_whole_network():
    """Beside weights in bfloat16, the head moves as in a network of the same, rounded numbers."""
    denoiser = Denoiser(tiny_architecture(memory=None))
    batch = tiny_batch(denoiser.architecture, segments=2)
    stage = Stage(steps=2, trainable=HEAD, optimizer=Optimizer(learning_rate=1e-2), curriculum=((0, 2),))
    weights = perturbed_params(denoiser, batch)
    own, rest = (pruned(part) for part in partition(weights, HEAD))
    half = jax.tree.map(lambda x: x.astype(jnp.bfloat16), rest)
    rounded = jax.tree.map(lambda x: x.astype(jnp.float32), half)
    factory = StateFactory(denoiser=denoiser, seed=0, batch=batch, mesh=MeshShape().build())
    whole = factory.create(stage).replace(params={**rounded, **own}, ema={**rounded, **own})
    beside = dataclasses.replace(factory, base_dtype="bfloat16", trained=(HEAD,))
    part = beside.create(stage)
    assert jax.tree.map(jnp.shape, part.params) == jax.tree.map(jnp.shape, own) and part.base is None
    like = beside.abstract(stage).base
    assert jax.tree.map(lambda x: (x.shape, x.dtype), like) == jax.tree.map(lambda x: (x.shape, x.dtype), half)
    part, metrics = updates(part.replace(params=own, ema=own, base=half), stage, batch, denoiser)
    whole, expected = updates(whole, stage, batch, denoiser)
    np.testing.assert_allclose(metrics["loss"], expected["loss"], rtol=1e-6)
    assert all(jax.tree.leaves(jax.tree.map(np.array_equal, part.base, half)))
    for name in ("params", "ema"):
        got, want = by_path(getattr(part, name)), by_path(getattr(whole, name))
        assert got and {path.split("/")[0] for path in got} == {"head"}
        for path, array in got.items():
            assert np.abs(array - by_path(own)[path]).max() > 1e-3
            np.testing.assert_allclose(array, want[path], rtol=1e-5, atol=1e-7)
    moments = [x for x in jax.tree.leaves(part.opt_state) if x.ndim]
    assert sum(x.size for x in moments) == 2 * sum(x.size for x in jax.tree.leaves(own))


def test_a_fresh_base_is_what_the_states_hold():
    denoiser = Denoiser(tiny_architecture(memory=None))
    batch = tiny_batch(denoiser.architecture, segments=2)
    stage = Stage(steps=1, trainable=HEAD, curriculum=((0, 2),))
    mesh = MeshShape().build()
    factory = StateFactory(
        denoiser=denoiser, seed=0, batch=batch, mesh=mesh, base_dtype="bfloat16", trained=(HEAD,), lora=Lora(rank=2)
    )
    base, like = factory.fresh_base(stage), factory.abstract(stage).base
    assert jax.tree.map(lambda x: (x.shape, x.dtype, x.sharding), base) == jax.tree.map(
        lambda x: (x.shape, x.dtype, x.sharding), like
    )
    kernels = [x for path, x in by_path(base).items() if path.endswith("to_q/kernel")]
    assert kernels and all(np.abs(x.astype(np.float32)).max() > 0 for x in kernels)
    assert dataclasses.replace(factory, lora=None, base_dtype=None).fresh_base(stage) is None
    with pytest.raises(ValueError, match="beside a base: give base_dtype"):
        dataclasses.replace(factory, base_dtype=None)


@pytest.fixture(scope="module")
def init(tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("base") / "whole", recallworld_experiment())


@pytest.fixture(scope="module")
def experiment():
    """Two updates of the head, and a checkpoint after each."""
    return two_updates(recallworld_experiment(), HEAD, stage={"forcing": Direct()}, base_dtype="bfloat16")


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return Instruments(compilation_cache=tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="module")
def run(tmp_path_factory, init, experiment, cache):
    folder = tmp_path_factory.mktemp("base") / "run"
    assert_trained(experiment, folder, init, cache)
    return folder


def test_checkpoints_hold_the_head_and_go_on_with_the_same_bits(run, init, experiment, cache, tmp_path):
    arrays = dict(checkpoint(run, 2))
    weights = [name for name in arrays if name.startswith(("ema", "state['params']", "state['opt_state']"))]
    assert weights and all("['head']" in name for name in weights if arrays[name].ndim)
    assert_goes_on(experiment, run, init, cache, tmp_path / "again")


def test_what_lies_beside_other_weights_is_no_start(run):
    with pytest.raises(InputError, match=r"holds only what it trained beside other weights: .*convert --weights="):
        stored_weights(run)


def test_the_run_reads_and_exports_as_a_whole_network(run, init, tmp_path):
    trained, before = by_path(load_run(run).params), by_path(load_run(init).params)
    export_run(run, tmp_path / "exported")
    exported = {
        parameter_path(path): array.all()
        for path, array in jax.tree.leaves_with_path(stored_weights(tmp_path / "exported")[0])
    }
    assert trained.keys() == before.keys() == exported.keys()
    averages = dict(checkpoint(run, 2))
    for path, array in trained.items():
        np.testing.assert_array_equal(exported[path], array)
        if path.startswith("head/"):
            keys = "".join(f"['{key}']" for key in path.split("/"))
            np.testing.assert_array_equal(array, averages[f"ema{keys}"])
            assert np.abs(array - before[path]).max() > 0
        else:
            assert array.dtype == jnp.bfloat16
            np.testing.assert_array_equal(array, before[path].astype(jnp.bfloat16))


def test_what_is_refused(experiment, tmp_path):
    with pytest.raises(InputError, match=r"training\.base_dtype trains beside weights that stay where they are"):
        train(experiment, tmp_path / "run", say=lambda _: None)
    training = experiment.training
    whole = dataclasses.replace(training.stages[0], trainable="all")
    with pytest.raises(InputError, match=r"stages\[1\].trainable is 'all', which leaves no weights"):
        dataclasses.replace(training, stages=(training.stages[0], whole))
    with pytest.raises(InputError, match="base_dtype is 'int7': it must be None, float32 or bfloat16"):
        dataclasses.replace(training, base_dtype="int7")
    with pytest.raises(InputError, match=r"state of training\.base_dtype"):
        count(experiment, HEAD)
    assert not (tmp_path / "run").exists()
    adapter = dataclasses.replace(training.stages[0], trainable="lora")
    said, unsaid = (
        dataclasses.replace(training, stages=(adapter,), lora=Lora(), base_dtype=dtype) for dtype in ("float32", None)
    )
    marks = [fingerprint(dataclasses.replace(experiment, training=training)) for training in (said, unsaid)]
    assert marks[0] == marks[1]
    plain = dataclasses.replace(experiment, training=dataclasses.replace(training, base_dtype=None))
    assert fingerprint(plain) != fingerprint(experiment)
