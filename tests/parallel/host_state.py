"""Run as a script by `processes.run`: three updates on a mesh, all of the state on devices, or a part in the host.

Printed: whether the bits are the same, the shape of a device's part of each array that waits in the host, and whether
what either run saved is read by the other.
"""

import json
import sys
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from mpjax.experiment import HOST_STATES
from mpjax.parallel.mesh import MeshShape
from mpjax.parallel.rules import batch_sharding
from mpjax.training.checkpoints import Checkpoints
from mpjax.training.compiled_step import stage_step
from mpjax.training.curriculum import Stage
from mpjax.training.optimizer import Optimizer
from mpjax.training.retention import Retention
from mpjax.training.state import StateFactory
from tests.generation.runs import recallworld_experiment
from tests.parallel.processes import join
from tests.training.linear_denoiser import LinearDenoiser, batch, parameters

UPDATES = 3


class Wide(LinearDenoiser):
    """Every parameter is the mean of four, which the devices of `fsdp` share."""

    def init(self, *_):
        return jax.tree.map(lambda x: nn.LogicallyPartitioned(jnp.tile(x, 4), ("embed",)), parameters())

    def velocity(self, params, *arguments):
        return super().velocity(jax.tree.map(lambda x: x.reshape(4, 3).mean(0), params), *arguments)


def bits(state):
    return [np.asarray(x).tobytes() for x in jax.tree.leaves(state.replace(key=jax.random.key_data(state.key)))]


def shardings(state):
    return [x.sharding for x in jax.tree.leaves(state)]


def main(spec):
    settings, data = recallworld_experiment(), batch(np.ones((8, 3)))
    stage = Stage(steps=UPDATES, optimizer=Optimizer(learning_rate=1e-2), curriculum=((0, 3),))
    mesh = MeshShape(**spec["mesh"]).build()
    placed = jax.device_put(data, batch_sharding(mesh, 8))
    states, targets = {}, {}
    for name in ("none", "both"):
        factory = StateFactory(denoiser=Wide(), seed=0, batch=data, mesh=mesh, waiting=HOST_STATES[name])
        targets[name], state = factory.abstract(stage), factory.create(stage)
        step = stage_step(settings, stage, factory.denoiser, state, mesh, first_update=0)
        with jax.set_mesh(mesh):
            for _ in range(UPDATES):
                state, _ = step.run(state, placed)
        assert int(state.step) == UPDATES and shardings(state) == shardings(targets[name])
        states[name] = state
    restored = []
    for saved, into in (("none", "both"), ("both", "none")):
        with Checkpoints(Path(spec["folder"]) / saved, Retention()) as checkpoints:
            checkpoints.save(states[saved])
            checkpoints.wait()
            again = checkpoints.restore(UPDATES, targets[into])
        restored.append(bits(again) == bits(states[saved]) and shardings(again) == shardings(targets[into]))
    there = [x for x in jax.tree.leaves(states["both"]) if x.sharding.memory_kind == "pinned_host"]
    found = {
        "same": bits(states["both"]) == bits(states["none"]),
        "waiting": [x.sharding.shard_shape(x.shape) for x in there],
        "restored": restored,
    }
    print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main(join(sys.argv[1:]))
