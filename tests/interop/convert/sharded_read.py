"""Run as a script on 4 CPU devices: reads a PyTorch checkpoint and a run folder into a mesh, generates there, and
prints what was seen."""

import dataclasses
import json
import sys
from pathlib import Path
from unittest import mock

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from mpjax import weights
from mpjax.generation.rollout import Rollout
from mpjax.interop.stored_array import place_tree
from mpjax.models.encoders import Condition
from mpjax.models.memorypack import Denoiser
from mpjax.models.quantization import Quantization
from mpjax.parallel.mesh import MeshShape
from mpjax.parallel.rules import tree_shardings
from mpjax.weights import stored_weights
from tests.fixtures import seeded
from tests.interop.checkpoints import ARCHITECTURE

MESH = MeshShape(fsdp=4)
EIGHT = Quantization(block=16)  # a device has 8 of 32 inputs


def targets():
    """Shapes, dtypes and shardings of the tiny network's parameters on fsdp 4."""
    condition = Condition(
        text=jnp.zeros((1, 1, 24)),
        text_mask=jnp.ones((1, 1), bool),
        pooled=jnp.zeros((1, 20)),
        image=jnp.zeros((1, 1, 28)),
    )
    frames = jnp.zeros((1, 9, 8, 8, 16))
    boxed = jax.eval_shape(Denoiser(ARCHITECTURE).init, jax.random.key(0), condition, frames[:, :1], frames)
    shardings = tree_shardings(boxed, MESH.build())
    return jax.tree.map(lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), nn.unbox(boxed), shardings)


def watched(array, shares):
    """The array, noting the largest share of it that is read at once."""

    def read(index):
        piece = array.read(index)
        shares.append(piece.size / np.prod(array.shape))
        return piece

    return dataclasses.replace(array, read=read)


def placed_from(path, like, shares):
    """The weights of a path on the mesh, noting the shares that are read of each array that is sharded."""

    def watch(stored):
        return jax.tree.map(lambda a, leaf: watched(a, shares) if sharded(leaf) else a, stored, like)

    if not (path / "run.json").is_file():
        return place_tree(watch(stored_weights(path)[0]), like)
    read = weights.read_step
    with mock.patch.object(weights, "read_step", lambda folder: watch(read(folder))):
        return weights.load_run(path, mesh=MESH).params


def first_segment(folder, mesh, quantization=None):
    """Latents that the weights of a run folder generate on a mesh."""
    rollout = Rollout.of(weights.load_run(folder, mesh=mesh, quantization=quantization))
    prompt = Condition(
        text=seeded.normal("text", (5, 24)),
        text_mask=np.arange(5) < 3,
        pooled=seeded.normal("pooled", (20,)),
        image=seeded.normal("image", (3, 28)),
    )
    _, state = rollout.start(prompt, seeded.normal("reference", (1, 4, 6, 16)), seed=0)
    _, state = rollout.generate(state, prompt)
    return np.asarray(state.video.history.frames[:, -9:])


def quantized_kernels(folder):
    """Whether the mesh holds the bits of one device, its part of the values each; blocks reach over several parts."""
    one, four = (weights.load_run(folder, mesh=mesh, quantization=EIGHT).params for mesh in (MeshShape(), MESH))
    equal = jax.tree.map(lambda a, b: np.asarray(a).tobytes() == np.asarray(b).tobytes(), one, four)
    values = [x for path, x in jax.tree.leaves_with_path(four["blocks"]) if path[-1].key == "values"]
    shares = {x.addressable_shards[0].data.size / x.size for x in values}
    return {"equal": all(jax.tree.leaves(equal)), "kernels": len(values), "shares": sorted(shares)}


def main(paths):
    """A row a path; then how far segments differ that the run folder generates on the mesh and on one device, from the
    weights as they are and quantised; and these.
    """
    rows = []
    like = targets()
    leaves = jax.tree.leaves(like)
    for path in map(Path, paths):
        shares: list[float] = []
        placed, stored = (jax.tree.leaves(t) for t in (placed_from(path, like, shares), stored_weights(path)[0]))
        equal = [bool((np.asarray(a) == b.all()).all()) for a, b in zip(placed, stored, strict=True)]
        where = [a.sharding == leaf.sharding for a, leaf in zip(placed, leaves, strict=True)]
        rows.append({"equal": all(equal + where), "sharded": sum(map(sharded, leaves)), "largest_share": max(shares)})
    for quantization in (None, EIGHT):
        one, four = (first_segment(Path(paths[-1]), mesh, quantization) for mesh in (MeshShape(), MESH))
        rows.append({"difference": float(np.abs(one - four).max()), "deviation": float(one.std())})
    return [*rows, quantized_kernels(Path(paths[-1]))]


def sharded(leaf):
    """Whether no device holds all of it."""
    return not leaf.sharding.is_fully_replicated


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1:])))
