"""Run as a script by `processes.run`: five updates of a tiny network on every mesh of a spec, into an .npz a mesh.

The optimizer of the spec is `sgd`, or `adamw`, which is that of the product.

`MESH.npz`, by process 0: `losses` [5], `forwards` [5], `gradient.STEP.NAME`, `params.NAME`, `carry`. Printed for each
mesh: the share of parameters, gradients, averages and carry that the first device of this process holds, and how many
programs the last update compiled.
"""

import dataclasses
import functools
import json
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import NamedSharding, PartitionSpec

from mpjax.diffusion.flow import TimeDistribution
from mpjax.diffusion.forcing import Echo
from mpjax.models.memorypack import Denoiser
from mpjax.parallel.mesh import MeshShape
from mpjax.parallel.rules import batch_sharding
from mpjax.parameters import parameter_path
from mpjax.training.curriculum import Stage
from mpjax.training.gradients import Objective
from mpjax.training.optimizer import Optimizer
from mpjax.training.state import StateFactory
from mpjax.training.step import make_train_step
from tests.parallel.processes import join
from tests.tiny import perturbed_params, tiny_architecture, tiny_batch

COMPILED: list[str] = []  # a name for every compilation of this process
jax.monitoring.register_event_duration_secs_listener(
    lambda name, *_, **__: COMPILED.append(name) if name == "/jax/core/compile/backend_compile_duration" else None
)
STEPS = 5
LEARNING_RATES = {"sgd": 0.05, "adamw": 1e-3}


@dataclasses.dataclass(frozen=True)
class Recorded:
    """An optimizer that keeps the gradient it was given."""

    kind: str

    def transformation(self, steps):
        rate = LEARNING_RATES[self.kind]
        keep = optax.GradientTransformation(
            lambda params: jax.tree.map(jnp.zeros_like, params), lambda grads, _, params=None: (grads, grads)
        )
        rest = optax.sgd(rate) if self.kind == "sgd" else Optimizer(learning_rate=rate).transformation(steps)
        return optax.chain(keep, rest)


def ragged_batch(architecture):
    """8 videos of 3 segments: some end early, some begin with given segments, prompts of two lengths."""
    batch = tiny_batch(architecture, batch=8, segments=3)
    weight = np.ones((8, 3), np.float32)
    weight[1, 2] = weight[4, 1] = weight[4, 2] = weight[2, 0] = weight[7, 0] = 0
    return batch.replace(weight=jnp.asarray(weight))


def updates(shape, optimizer):
    """(arrays by name, shares) of five updates on a mesh."""
    denoiser = Denoiser(tiny_architecture())
    batch = ragged_batch(denoiser.architecture)
    # Echo: its carry, the residuals of the last update, is sharded as the batch.
    stage = Stage(steps=STEPS, forcing=Echo(), optimizer=Recorded(optimizer), curriculum=((0, 3),), repeat=2)
    mesh = MeshShape(**shape).build()
    factory = StateFactory(denoiser=denoiser, seed=0, batch=batch, mesh=mesh)
    state, given = factory.create(stage), perturbed_params(denoiser, batch)
    place = lambda x, like: jax.make_array_from_callback(like.shape, like.sharding, lambda i: np.asarray(x)[i])  # noqa: E731
    params = jax.tree.map(place, given, state.params)
    state = state.replace(params=params, ema=jax.tree.map(jnp.copy, params))
    placement = batch_sharding(mesh, 8)
    batch = jax.tree.map(lambda x: place(x, jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=placement)), batch)
    objective = Objective(denoiser=denoiser, forcing=stage.forcing, time=TimeDistribution())
    shardings = jax.tree.map(lambda x: x.sharding, state)
    step = jax.jit(
        make_train_step(
            objective, stage.optimizer.transformation(STEPS), repeat=stage.repeat, shardings=shardings.params
        ),
        out_shardings=(shardings, NamedSharding(mesh, PartitionSpec())),
    )
    found = {"losses": [], "forwards": []}
    with jax.set_mesh(mesh):
        for n in range(STEPS):
            before = len(COMPILED)
            state, metrics = step(state, batch)
            again = len(COMPILED) - before  # the state of an update is what the next one takes
            found["losses"].append(float(metrics["loss"]))
            found["forwards"].append(float(metrics["forwards_per_update"]))
            found.update(named(f"gradient.{n}", state.opt_state[0], mesh))
    found.update(named("params", state.params, mesh))
    found.update(named("carry", state.carry, mesh))
    trees = {"params": state.params, "gradient": state.opt_state[0], "ema": state.ema, "carry": state.carry}
    return found, {name: share(tree) for name, tree in trees.items()} | {"compiled_again": again}


def named(prefix, tree, mesh):
    """Whole arrays on the host, by name."""
    if jax.process_count() > 1:
        tree = gathering(mesh)(tree)
    leaves = jax.tree.leaves_with_path(tree)
    return {f"{prefix}.{parameter_path(path)}": np.asarray(leaf) for path, leaf in leaves}


@functools.cache
def gathering(mesh):
    """Makes every array whole on every device."""
    return jax.jit(lambda tree: tree, out_shardings=NamedSharding(mesh, PartitionSpec()))


def share(tree):
    """How much of a tree the first device of this process holds."""
    leaves = jax.tree.leaves(tree)
    return sum(x.addressable_shards[0].data.size for x in leaves) / sum(x.size for x in leaves)


def main(spec):
    """{"folder", "optimizer", "meshes": {name: fields}} → the shares by name."""
    rows = {}
    for name, shape in spec["meshes"].items():
        found, rows[name] = updates(shape, spec["optimizer"])
        if jax.process_index() == 0:
            np.savez(Path(spec["folder"]) / f"{name}.npz", **found)
    print(json.dumps(rows), flush=True)


if __name__ == "__main__":
    main(join(sys.argv[1:]))
    jax.distributed.shutdown()
