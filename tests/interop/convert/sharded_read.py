"""Run as a script on 4 CPU devices: reads a PyTorch checkpoint and a run folder into a mesh; prints what was seen."""

import dataclasses
import json
import sys
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from mpjax.interop.stored_array import place_tree
from mpjax.models.encoders import Condition
from mpjax.models.memorypack import Denoiser
from mpjax.parallel.mesh import MeshShape
from mpjax.parallel.rules import tree_shardings
from mpjax.weights import stored_weights
from tests.interop.checkpoints import ARCHITECTURE


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
    shardings = tree_shardings(boxed, MeshShape(fsdp=4).build())
    return jax.tree.map(lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), nn.unbox(boxed), shardings)


def watched(array, shares):
    """The array, noting the largest share of it that is read at once."""

    def read(index):
        piece = array.read(index)
        shares.append(piece.size / np.prod(array.shape))
        return piece

    return dataclasses.replace(array, read=read)


def main(paths):
    """A row a path."""
    rows = []
    like = targets()
    leaves = jax.tree.leaves(like)
    for path in paths:
        stored, _ = stored_weights(Path(path))
        shares: list[float] = []
        seen = [
            watched(a, shares) if sharded(leaf) else a for a, leaf in zip(jax.tree.leaves(stored), leaves, strict=True)
        ]
        placed = jax.tree.leaves(place_tree(jax.tree.unflatten(jax.tree.structure(stored), seen), like))
        share = max(shares)
        equal = [bool((np.asarray(a) == b.all()).all()) for a, b in zip(placed, seen, strict=True)]
        where = [a.sharding == leaf.sharding for a, leaf in zip(placed, leaves, strict=True)]
        rows.append({"equal": all(equal + where), "sharded": sum(map(sharded, leaves)), "largest_share": share})
    return rows


def sharded(leaf):
    """Whether no device holds all of it."""
    return not leaf.sharding.is_fully_replicated


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1:])))
