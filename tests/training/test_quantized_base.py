"""Training beside quantised weights: the numbers of the weights they stand for, and no state of their own."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mpjax.diffusion.flow import TimeDistribution
from mpjax.diffusion.forcing import Direct
from mpjax.errors import InputError
from mpjax.experiment import fingerprint
from mpjax.experiment import load as load_experiment
from mpjax.interop.transformer_names import parameter_shapes
from mpjax.models import lora
from mpjax.models.lora import Lora
from mpjax.models.memorypack import Denoiser
from mpjax.models.quantization import Quantization, quantize
from mpjax.parallel.mesh import MeshShape
from mpjax.parameters import merge, pruned
from mpjax.training.curriculum import Stage
from mpjax.training.gradients import Objective
from mpjax.training.instruments import Instruments
from mpjax.training.loop import train
from mpjax.training.optimizer import Optimizer
from mpjax.training.state import StateFactory
from mpjax.training.step import make_train_step
from mpjax.training.trainable import partition
from mpjax.weights import load_run, read_run, whole_arrays, with_quantization
from tests.generation.runs import recallworld_experiment, write_run
from tests.quantized import quantized
from tests.tiny import perturbed_params, tiny_architecture, tiny_batch
from tests.training.beside import assert_goes_on, assert_trained, by_path, two_updates
from tests.training.runs import checkpoint

SPEC = Quantization(format="int8", block=8)
ADAPTER = Lora(rank=2, alpha=4.0)


def described(tree):
    return jax.tree.map(lambda x: (x.shape, x.dtype), tree)


@pytest.mark.parametrize("trainable", ["output_head", pytest.param("lora", marks=pytest.mark.slow)])
def test_an_update_is_that_beside_what_the_weights_stand_for(trainable):
    """Adam's moments and averages are those of what is trained; the 8 bits stay as they are."""
    denoiser = Denoiser(tiny_architecture(memory=None, remat="full"))
    batch = tiny_batch(denoiser.architecture, segments=2)
    stage = Stage(steps=2, trainable=trainable, optimizer=Optimizer(learning_rate=1e-2), curriculum=((0, 2),))
    adapted = {"lora": ADAPTER, "trained": ("lora",)} if trainable == "lora" else {"trained": ("output_head",)}
    factory = StateFactory(
        denoiser=denoiser,
        seed=0,
        batch=batch,
        mesh=MeshShape().build(),
        base_dtype="float32",
        base_quantization=SPEC,
        **adapted,
    )
    weights = perturbed_params(denoiser, batch)
    eight, plain = quantized(SPEC, weights)
    constants = lora.scales(ADAPTER, weights) if trainable == "lora" else {}
    fresh = factory.create(stage)
    own = fresh.params if trainable == "lora" else pruned(partition(weights, trainable)[0])
    started = fresh.replace(params=own, ema=own)
    bases = {}
    for name, whole in (("eight", eight), ("plain", plain)):
        rest = whole if trainable == "lora" else pruned(partition(whole, trainable)[1])
        bases[name] = merge(rest, constants)
    assert described(factory.abstract(stage).base) == described(bases["eight"])
    assert described(factory.fresh_base(stage)) == described(bases["eight"])
    objective = Objective(denoiser=denoiser, forcing=Direct(), time=TimeDistribution())
    step = jax.jit(make_train_step(objective, stage.optimizer.transformation(stage.steps), trainable=trainable))
    ended = {}
    for name, base in bases.items():
        state = started.replace(base=base)
        for _ in range(2):
            state, metrics = step(state, batch)
        ended[name] = state, float(metrics["loss"])
    (got, loss), (want, expected) = ended["eight"], ended["plain"]
    np.testing.assert_allclose(loss, expected, rtol=1e-5)
    for part in ("params", "ema"):
        before, after, wanted = (by_path(getattr(state, part)) for state in (started, got, want))
        assert after and after.keys() == before.keys()
        for path, array in after.items():
            assert np.abs(array - before[path]).max() > 1e-4
            np.testing.assert_allclose(array, wanted[path], rtol=1e-3, atol=1e-5)
    kept, given = by_path(got.base), by_path(bases["eight"])
    assert all(kept[path].tobytes() == array.tobytes() for path, array in given.items())
    moments = [x for x in jax.tree.leaves(got.opt_state) if x.ndim]
    assert sum(x.size for x in moments) == 2 * sum(x.size for x in jax.tree.leaves(got.params))


@pytest.fixture(scope="module")
def init(tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("quantized") / "whole", recallworld_experiment())


@pytest.fixture(scope="module")
def experiment():
    """Two updates of the head, and a checkpoint after each."""
    return two_updates(recallworld_experiment(), "output_head", base_dtype="bfloat16", base_quantization=SPEC)


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return Instruments(compilation_cache=tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="module")
def run(tmp_path_factory, init, experiment, cache):
    folder = tmp_path_factory.mktemp("quantized") / "run"
    said = assert_trained(experiment, folder, init, cache)
    params = parameter_shapes(experiment.model)
    head, rest = (sum(x.size for x in jax.tree.leaves(part)) for part in partition(params, "output_head"))
    assert any(f"{head:,} parameters beside {rest:,} that stay as they are" in line for line in said)
    return folder


def test_checkpoints_hold_the_head_and_go_on_with_the_same_bits(run, init, experiment, cache, tmp_path):
    arrays = dict(checkpoint(run, 2))
    weights = [name for name in arrays if name.startswith(("ema", "state['params']", "state['opt_state']"))]
    assert weights and all("['head']" in name for name in weights if arrays[name].ndim)
    assert_goes_on(experiment, run, init, cache, tmp_path / "again")


def test_the_run_is_read_as_it_was_trained(run, init):
    """Quantised from the kernels in bfloat16; a checkpoint for others has these kernels themselves."""
    before, trained = by_path(load_run(init).params), by_path(load_run(run).params)
    own = {path for path in trained if path.startswith("head/")}
    assert own and all(np.abs(trained[path] - before[path]).max() > 0 for path in own)
    kernels = [path for path in trained if path.endswith("/values")]
    assert len(kernels) == 17
    for path in kernels:
        module = path.removesuffix("/quantized/values")
        for number, layer in enumerate(before[f"{module}/kernel"].astype(jnp.bfloat16)):
            values, scales = quantize(SPEC, SPEC.block_of(layer.shape[0]), layer)
            assert trained[path][number].tobytes() == values.tobytes()
            assert trained[f"{module}/quantized/scales"][number].tobytes() == scales.tobytes()
    others = trained.keys() - own - set(kernels) - {path.replace("values", "scales") for path in kernels}
    assert others and all((trained[path] == before[path].astype(jnp.bfloat16)).all() for path in others)
    plain = by_path(jax.tree.map(lambda array: array.all(), whole_arrays(read_run(run), 2)[0]))
    assert plain.keys() == before.keys()
    with pytest.raises(InputError, match="read as they were then: leave --quantize out"):
        with_quantization(read_run(run), SPEC)


def test_what_is_refused_and_what_is_another_run(experiment, init, tmp_path):
    with pytest.raises(InputError, match=r"training\.base_dtype trains beside weights that stay where they are"):
        train(experiment, tmp_path / "run", say=lambda _: None)
    training = experiment.training
    whole = dataclasses.replace(training.stages[0], trainable="all")
    with pytest.raises(InputError, match="is 'all', which leaves no weights for base_quantization: set that to None"):
        dataclasses.replace(training, stages=(whole,), base_dtype=None)
    for targets, said in ((".*proj_out", "takes head/proj_out, which a stage trains"), ("to_x", "which is no module")):
        spec = dataclasses.replace(SPEC, targets=targets)
        other = dataclasses.replace(experiment, training=dataclasses.replace(training, base_quantization=spec))
        with pytest.raises(InputError, match=said):
            train(other, tmp_path / "run", init=init, say=lambda _: None)
    assert not (tmp_path / "run").exists()
    overrides = ["--config.training.base_quantization.format=fp8", "--config.training.base_quantization.block=32"]
    loaded = load_experiment("configs/framepack_f1_lora.py:smoke", overrides)
    assert loaded.training.base_quantization == Quantization(format="fp8", block=32)
    marks = {fingerprint(dataclasses.replace(experiment, training=dataclasses.replace(training, base_quantization=q)))
             for q in (None, SPEC, Quantization(format="fp8", block=8))}  # fmt: skip
    assert len(marks) == 3
