"""Adapters in training: only they have gradients, averages and checkpoints; the base stays where it is."""

import dataclasses
import shutil

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mpjax import config
from mpjax.diffusion.flow import TimeDistribution
from mpjax.diffusion.forcing import Teacher
from mpjax.errors import InputError
from mpjax.experiment import fingerprint
from mpjax.experiment import load as load_experiment
from mpjax.interop.transformer_names import parameter_shapes
from mpjax.models import lora
from mpjax.models.lora import Lora
from mpjax.models.memorypack import Denoiser
from mpjax.parallel.mesh import MeshShape
from mpjax.parameters import merge, parameter_path, without
from mpjax.training.curriculum import Stage
from mpjax.training.gradients import Objective
from mpjax.training.instruments import Instruments
from mpjax.training.loop import train
from mpjax.training.optimizer import Optimizer
from mpjax.training.state import StateFactory
from mpjax.training.step import make_train_step
from mpjax.training.trainable import partition
from mpjax.weights import load_run, read_run
from tests.generation.runs import add_checkpoint, recallworld_experiment, write_run
from tests.tiny import perturbed_params, tiny_architecture, tiny_batch
from tests.training.beside import assert_goes_on, assert_trained, two_updates
from tests.training.runs import checkpoint

SPEC = Lora(rank=2, alpha=4.0)


def paths_of(tree):
    return {parameter_path(path) for path, _ in jax.tree.leaves_with_path(tree)}


def bits(tree):
    return {parameter_path(path): np.asarray(leaf).tobytes() for path, leaf in jax.tree.leaves_with_path(tree)}


def test_what_a_run_owns():
    """By name: the adapter and what a stage trains; everything else is base, in its own dtype."""
    names = ("lora_and_memory", "output_head")
    denoiser = Denoiser(tiny_architecture())
    batch = tiny_batch(denoiser.architecture)
    mesh = MeshShape().build()
    factory = StateFactory(
        denoiser=denoiser, seed=0, batch=batch, mesh=mesh, lora=SPEC, base_dtype="bfloat16", trained=names
    )
    stage = Stage(steps=1, trainable=names[0], curriculum=((0, 3),))
    state = factory.abstract(stage)
    rooms = {path.split("/")[0] for path in paths_of(state.params)}
    assert rooms == {"blocks", "memorize", "squeeze", "head"}
    own = {path for path in paths_of(state.params) if path.startswith("blocks/")}
    assert own and all(path.endswith(("/lora/a", "/lora/b")) for path in own)
    args = (jax.random.key(0), batch.first_prompts, batch.reference, batch.segments[:, 0])
    network = paths_of(nn.unbox(jax.eval_shape(denoiser.init, *args)))
    base = paths_of(state.base)
    assert paths_of(state.params) & base == set()
    assert {path for path in base | paths_of(state.params) if "/lora/" not in path} == network
    frozen = [x for path, x in jax.tree.leaves_with_path(state.base) if path[-1].key != "scale"]
    assert all(x.dtype == jnp.bfloat16 for x in frozen)
    moments = [x for x in jax.tree.leaves(state.opt_state) if x.ndim]
    trained = jax.tree.leaves(partition(state.params, names[0])[0])
    assert sum(x.size for x in moments) == 2 * sum(x.size for x in trained)
    assert paths_of(state.ema) == paths_of(state.params)


def test_the_loss_falls_and_the_base_keeps_its_bits():
    denoiser = Denoiser(tiny_architecture(memory=None))
    batch = tiny_batch(denoiser.architecture, segments=1)
    stage = Stage(steps=30, trainable="lora", optimizer=Optimizer(learning_rate=2e-2), curriculum=((0, 1),))
    factory = StateFactory(
        denoiser=denoiser,
        seed=0,
        batch=batch,
        mesh=MeshShape().build(),
        lora=SPEC,
        base_dtype="float32",
        trained=("lora",),
    )
    weights = perturbed_params(denoiser, batch)
    base = merge(weights, lora.scales(SPEC, weights))
    before = bits(base)
    state = factory.create(stage).replace(base=base)
    objective = Objective(denoiser=denoiser, forcing=Teacher(), time=TimeDistribution())
    step = jax.jit(make_train_step(objective, stage.optimizer.transformation(30), trainable="lora"), donate_argnums=0)
    started, losses = bits(state.params), []
    for _ in range(30):
        average = jax.device_get(state.ema)
        state, metrics = step(state.replace(step=jnp.zeros((), jnp.int32)), batch)  # always the same t and noise
        losses.append(float(metrics["loss"]))
    assert losses[-1] < 0.5 * losses[0]
    assert bits(state.base) == before
    assert {path for path, value in bits(state.params).items() if value != started[path]} == set(started)
    expected = jax.tree.map(lambda old, p: 0.1 * old + 0.9 * p, average, state.params)  # as at update 0
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7), state.ema, expected)
    assert (
        max(np.abs(a - b).max() for a, b in zip(*map(jax.tree.leaves, (state.ema, state.params)), strict=True)) > 1e-5
    )


def plain_framepack():
    whole = recallworld_experiment()
    return dataclasses.replace(whole, model=dataclasses.replace(whole.model, memory=None))


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("lora") / "base", plain_framepack())


@pytest.fixture(scope="module")
def experiment():
    """Two updates, and a checkpoint after each."""
    return two_updates(plain_framepack(), "lora", lora=SPEC)


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return Instruments(compilation_cache=tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="module")
def run(tmp_path_factory, base, experiment, cache):
    """A finished run beside the base."""
    folder = tmp_path_factory.mktemp("lora") / "run"
    assert_trained(experiment, folder, base, cache)
    return folder


def test_checkpoints_hold_no_base_and_go_on(run, base, experiment, cache, tmp_path):
    arrays = dict(checkpoint(run, 2))
    weights = [name for name in arrays if name.startswith(("ema", "state['params']"))]
    assert weights and all("['lora']" in name for name in weights)
    assert_goes_on(experiment, run, base, cache, tmp_path / "again")


def test_the_run_reads_as_a_whole_network(run, base):
    trained, plain = load_run(run), load_run(base)
    assert bits(without(trained.params, lora.only_entries(trained.params))) == bits(plain.params)
    averages = {name: array for name, array in checkpoint(run, 2) if name.startswith("ema")}
    entries = list(lora.entries_of(trained.params))
    assert len(averages) == 2 * len(entries) > 0
    for path, entry in entries:
        keys = "".join(f"['{key}']" for key in (*path, "lora"))
        for name in "ab":
            np.testing.assert_array_equal(entry[name], averages[f"ema{keys}['{name}']"])
        assert np.abs(entry["b"]).max() > 0 and (np.asarray(entry["scale"]) == 2.0).all()


def test_another_base_is_refused(run, base, experiment, tmp_path, cache):
    other = tmp_path / "other"
    shutil.copytree(base, other)
    add_checkpoint(other, plain_framepack(), step=3)
    moved = tmp_path / "moved"
    shutil.copytree(run, moved)
    text = (moved / "run.json").read_text().replace(str(base), str(other))
    (moved / "run.json").write_text(text)
    with pytest.raises(InputError, match=r"is not what .* was trained beside"):
        load_run(moved)
    with pytest.raises(InputError, match=r"is not what .* was trained beside: give the weights"):
        train(experiment, moved, init=other, instruments=cache, say=lambda _: None)
    (moved / "run.json").write_text(text.replace(str(other), str(tmp_path / "nowhere")))
    with pytest.raises(InputError, match=r"nowhere, beside which .* was trained, is gone"):
        load_run(moved)
    assert read_run(run).base is not None and read_run(base).base is None


def test_what_is_refused(experiment, base, tmp_path):
    with pytest.raises(InputError, match="stay where they are: name them, --init"):
        train(experiment, tmp_path / "run", say=lambda _: None)
    training = experiment.training
    with pytest.raises(InputError, match=r"set training.lora"):
        dataclasses.replace(training, lora=None)
    for trainable, said in (("all", "freezes weights: use 'lora'"), ("output_head", "no stage trains it")):
        stage = dataclasses.replace(training.stages[0], trainable=trainable)
        with pytest.raises(InputError, match=said):
            dataclasses.replace(training, stages=(stage,))
    deeper = dataclasses.replace(experiment, model=recallworld_experiment().model)
    with pytest.raises(InputError, match=r"lacks memorize/.* which no stage trains"):
        train(deeper, tmp_path / "run", init=base, say=lambda _: None)
    assert not (tmp_path / "run").exists()


def test_the_adapter_of_the_13b():
    """Rank 32 for every linear layer of the blocks but the modulations."""
    full = load_experiment(str(config.find("framepack_f1_lora.py")))
    shapes = parameter_shapes(full.model)
    adapter = jax.eval_shape(lambda: lora.init_adapter(full.training.lora, jax.random.key(0), shapes))
    d, mlp = 3072, 4 * 3072
    dual, single = 8 * 2 * d + 4 * (d + mlp), 3 * 2 * d + (d + mlp) + (2 * d + mlp)
    assert sum(x.size for x in jax.tree.leaves(adapter)) == 32 * (20 * dual + 40 * single) == 137_625_600


def test_runs_without_adapters_keep_their_fingerprint(experiment):
    plain = recallworld_experiment()
    assert fingerprint(plain) == "dca4ab01cfe38e0e"
    other = dataclasses.replace(experiment.training, lora=dataclasses.replace(SPEC, rank=3))
    assert fingerprint(experiment) != fingerprint(dataclasses.replace(experiment, training=other))
