"""The network's cases on our side, with the functions that training and generation call."""

import dataclasses
import functools
import operator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from safetensors.numpy import load_file

from benchmarks.side_by_side.our_job import Job
from benchmarks.side_by_side.workload import INPUTS
from mpjax.diffusion.samplers import UniPC
from mpjax.interop.checkpoint_files import CONFIG, Checkpoint, read_json
from mpjax.interop.layout import Entry
from mpjax.interop.stored_array import place_tree
from mpjax.interop.transformer_config import from_config
from mpjax.interop.transformer_names import parameter_shapes, transformer_entries
from mpjax.interop.transformer_tensors import stored_arrays
from mpjax.models.architecture import FramePack
from mpjax.models.encoders import Condition
from mpjax.models.framepack import History
from mpjax.models.memory import empty_memory
from mpjax.models.memorypack import TIME_SCALE, Denoiser


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Network:
    """A plain FramePack network with its weights and inputs on the device."""

    denoiser: Denoiser
    entries: tuple[Entry, ...]
    params: dict[str, Any]
    x_t: jax.Array
    target: jax.Array
    t: jax.Array
    history: History
    condition: Condition

    def velocity(self, params: dict, x: jax.Array, t: jax.Array, history: History, condition: Condition) -> jax.Array:
        return self.denoiser.velocity(
            params, x, t, history, condition, empty_memory(1, 0, self.denoiser.architecture.width)
        )


def _network(job: dict[str, Any]) -> _Network:
    folder = Path(job["folder"])
    checkpoint = Checkpoint.open(folder)
    inputs = {name: jnp.asarray(array) for name, array in load_file(folder / INPUTS).items()}
    arch = from_config(read_json(checkpoint.texts[CONFIG], folder / CONFIG), folder / CONFIG)
    pack = FramePack(segment_frames=inputs["noisy"].shape[1], history_frames=tuple(job["history_frames"]))
    arch = dataclasses.replace(arch, framepack=pack, dtype=job["dtype"], remat=job["remat"])
    entries = transformer_entries(arch)
    here = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    like = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, jnp.dtype(job["dtype"]), sharding=here), parameter_shapes(arch)
    )
    return _Network(
        denoiser=Denoiser(arch, guidance=job["guidance"] / TIME_SCALE),
        entries=entries,
        params=place_tree(stored_arrays(checkpoint.tensors, entries), like),
        x_t=inputs["noisy"],
        target=inputs["target"],
        t=jnp.full((1,), 1.0 - job["timestep"] / TIME_SCALE),
        history=History(
            reference=inputs["reference"], frames=inputs["history"], segments=jnp.int32(3), total=jnp.int32(5)
        ),
        condition=Condition(
            text=inputs["text"],
            text_mask=jnp.ones(inputs["text"].shape[:2], bool),
            pooled=inputs["pooled"],
            image=inputs["image"],
        ),
    )


def forward(job: dict[str, Any]) -> Job:
    """One network evaluation."""
    network = _network(job)
    arguments = (network.params, network.x_t, network.t, network.history, network.condition)
    return Job(network.velocity, arguments, job["dtype"], lambda v: {"prediction": -_array(v)})


def gradient(job: dict[str, Any]) -> Job:
    """Gradient of the mean squared error to every parameter, which are the network's forward and backward pass."""
    network = _network(job)

    def loss(params: dict, target: jax.Array, *inputs: Any) -> jax.Array:
        # The network predicts the negative of the velocity, and the target is one of predictions.
        return jnp.mean(jnp.square(-network.velocity(params, *inputs) - target))

    arguments = (network.params, network.target, network.x_t, network.t, network.history, network.condition)
    return Job(
        jax.value_and_grad(loss), arguments, job["dtype"], functools.partial(_gradients_to_file, network.entries)
    )


def _gradients_to_file(entries: tuple[Entry, ...], result: tuple[jax.Array, dict]) -> dict[str, np.ndarray]:
    loss, gradients = result
    tensors = {"loss": np.asarray(loss, np.float32).reshape(1)}
    for entry in entries:
        array = _array(functools.reduce(operator.getitem, entry.path, gradients))
        for name, layer in zip(entry.names, array if entry.stacked else [array], strict=True):
            tensors[name] = np.ascontiguousarray(entry.to_tensor(layer))
    return tensors


def segment(job: dict[str, Any]) -> Job:
    """A segment by UniPC, as generation samples it."""
    network, sampler = _network(job), UniPC(steps=job["steps"], shift=job["shift"])

    def sample(params: dict, noise: jax.Array, history: History, condition: Condition) -> jax.Array:
        return sampler.sample(lambda x, t: network.velocity(params, x, t, history, condition), noise)

    arguments = (network.params, network.x_t, network.history, network.condition)
    return Job(sample, arguments, job["dtype"], lambda x: {"latents": _array(x)})


def _array(x: Any) -> np.ndarray:
    return np.asarray(x, np.float32)
