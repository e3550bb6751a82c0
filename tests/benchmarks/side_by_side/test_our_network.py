"""What our side computes for a case, against the same network reached by another way."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file

from benchmarks.side_by_side import our_network
from benchmarks.side_by_side.our_job import Job
from benchmarks.side_by_side.workload import Workload, weight, write_network
from mpjax.interop.transformer_names import transformer_entries
from mpjax.models.architecture import FramePack
from mpjax.models.encoders import Condition
from mpjax.models.framepack import empty_history, push
from mpjax.models.memory import empty_memory
from mpjax.models.memorypack import Denoiser
from tests.interop.trees import to_tree
from tests.tiny import tiny_architecture

TINY = Workload(
    name="tiny",
    architecture=tiny_architecture(
        memory=None,
        encoders=None,
        guidance_embeds=True,
        framepack=FramePack(segment_frames=3, history_frames=(1, 2, 4)),
    ),
    latent_size=(4, 6),
    text=5,
    image=3,
)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("network")
    job = write_network(TINY, folder)
    return job, {name: jnp.asarray(array) for name, array in load_file(folder / "inputs.safetensors").items()}


@pytest.fixture(scope="module")
def prediction(written):
    """The network as a function of (params, x, timestep): its raw output, from what the files hold."""
    _, inputs = written
    arch = TINY.architecture
    history = push(empty_history(inputs["reference"], arch.framepack), inputs["history"], arch.framepack)
    condition = Condition(
        text=inputs["text"], text_mask=jnp.ones((1, 5), bool), pooled=inputs["pooled"], image=inputs["image"]
    )

    def call(params, x, timestep):
        arguments = (x, jnp.full(1, timestep), history, condition, empty_memory(1, 0, arch.width), jnp.full(1, 1000.0))
        return Denoiser(arch).module.apply({"params": params}, *arguments, method="prediction")

    return jax.jit(call)


@pytest.fixture(scope="module")
def params():
    entries = transformer_entries(TINY.architecture)
    return to_tree(entries, {name: weight(name, entry.shape) for entry in entries for name in entry.names})


def result(case, written, tmp_path, **job):
    ready = case({**written[0], **job})
    ready.run()
    ready.write(str(tmp_path / "a.safetensors"))
    return load_file(tmp_path / "a.safetensors")


def test_forward(written, prediction, params, tmp_path):
    wanted = prediction(params, written[1]["noisy"], 500.0)
    np.testing.assert_allclose(result(our_network.forward, written, tmp_path)["prediction"], wanted, atol=2e-5)


def test_gradient(written, prediction, params, tmp_path):
    """Names are diffusers'; the gradient's product with itself is the slope of the loss along it."""
    found = result(our_network.gradient, written, tmp_path)
    entries = transformer_entries(TINY.architecture)
    assert set(found) == {"loss", *(name for entry in entries for name in entry.names)}
    assert all(found[name].shape == entry.shape for entry in entries for name in entry.names)

    def loss(params):
        return ((prediction(params, written[1]["noisy"], 500.0) - written[1]["target"]) ** 2).mean()

    assert found["loss"] == pytest.approx([float(loss(params))], rel=1e-5)
    wanted = jax.grad(loss)(params)
    for (path, ours), theirs in zip(
        jax.tree.leaves_with_path(to_tree(entries, found)), jax.tree.leaves(wanted), strict=True
    ):
        np.testing.assert_allclose(ours, theirs, atol=1e-5, err_msg=str(path))


def test_segment(written, prediction, params, tmp_path):
    """Two evaluations of UniPC by hand: σ is 1 and, shifted by 3, 3/4; its first step is of order 1 with m alone."""
    found = result(our_network.segment, written, tmp_path, steps=2, shift=3.0)["latents"]
    noise = written[1]["noisy"]
    data = noise - prediction(params, noise, 1000.0)
    x = 0.75 * noise + 0.25 * data
    np.testing.assert_allclose(found, x - 0.75 * prediction(params, x, 750.0), atol=2e-5)
    assert not np.allclose(found, data, atol=0.1)


def test_what_measures_the_matmul_multiplies_in_the_jobs_type():
    ready = Job(lambda x: x, (jnp.zeros(2),), "bfloat16", dict)
    assert ready.multiply() == 2 * 2048**3 and ready._square.dtype == jnp.bfloat16
    assert ready.device_bytes() is None  # a CPU does not tell
