"""`python splash_step.py`: a train step that splash attention is in, compiled for four TPU chips.

Prints the row of `plan`, and the bytes of state and batch on a chip, counted from their shapes and shardings.
"""

import dataclasses
import json
import math

import jax

from mpjax import experiment
from mpjax.models.memorypack import Denoiser
from mpjax.parallel.mesh import MeshShape
from mpjax.parallel.rules import batch_sharding
from mpjax.plan.row import compile_row
from mpjax.plan.steps import example_batch, mesh_on, topology_devices
from mpjax.training.state import StateFactory

TOPOLOGY, MESH, SEGMENTS = "v5e:2x2", MeshShape(fsdp=2, tensor=2), 2
# 729 image tokens and 512 of the prompt; widths in whole tiles of 128, so that hardly any memory is padding.
FLAGS = {
    "heads": 4,
    "head_dim": 64,
    "rope_axes": (16, 24, 24),
    "text_width": 256,
    "pooled_width": 256,
    "image_width": 256,
    "dtype": "bfloat16",
}


def bytes_on_a_chip(loaded):
    """Of the state of stage 1 and of its batch: what the step is given."""
    mesh = mesh_on(topology_devices(TOPOLOGY), MESH)
    batch = example_batch(loaded, mesh.shape["fsdp"], SEGMENTS)
    denoiser = Denoiser(loaded.model, loaded.guidance)
    counts = loaded.training.nonfinite.counts
    factory = StateFactory(denoiser=denoiser, seed=0, batch=batch, mesh=mesh, counts_faults=counts)
    state = factory.abstract(loaded.training.stages[0])
    rows = batch_sharding(mesh, mesh.shape["fsdp"])
    size = lambda x, sharding: math.prod(sharding.shard_shape(x.shape)) * x.dtype.itemsize  # noqa: E731
    return {
        "state": sum(size(x, x.sharding) for x in jax.tree.leaves(state)),
        "batch": sum(size(x, rows) for x in jax.tree.leaves(batch)),
        "parameters": sum(x.size for x in jax.tree.leaves(state.params)),
    }


if __name__ == "__main__":
    flags = [f"--config.model.{name}={value!r}" for name, value in FLAGS.items()]
    loaded = experiment.load("configs/framepack_f1_13b.py:smoke", [f.replace("'", "") for f in flags])
    row = compile_row(loaded, TOPOLOGY, MESH, "stage 1", SEGMENTS)
    print(json.dumps({"row": dataclasses.asdict(row), "bytes": bytes_on_a_chip(loaded)}))
