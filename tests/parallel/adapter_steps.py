"""Run as a script by `processes.run`: three updates of an adapter on one device and on a mesh of all of them.

Printed: the largest difference of losses and of parameters, relative to the largest entry, and the share of the base
and of the adapter that the first device holds on the mesh.
"""

import json
import sys

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from mpjax.diffusion.flow import TimeDistribution
from mpjax.diffusion.forcing import Direct
from mpjax.models.lora import Lora, scales
from mpjax.models.memorypack import Denoiser
from mpjax.models.quantization import Quantization
from mpjax.parallel.mesh import MeshShape
from mpjax.parallel.rules import batch_sharding
from mpjax.parameters import merge
from mpjax.training.curriculum import Stage
from mpjax.training.gradients import Objective
from mpjax.training.optimizer import Optimizer
from mpjax.training.state import StateFactory
from mpjax.training.step import make_train_step
from tests.parallel.five_steps import share
from tests.parallel.processes import join
from tests.quantized import quantized
from tests.tiny import perturbed_params, tiny_architecture, tiny_batch

SPEC = Lora(rank=2, alpha=3.0, targets=r"(blocks|memorize|context_embedder)/.*")


def updates(shape, quantization):
    """(losses, parameters, shares) of three updates on a mesh."""
    denoiser = Denoiser(tiny_architecture(remat="full"))
    batch = tiny_batch(denoiser.architecture, batch=8)
    stage = Stage(
        steps=3, forcing=Direct(), trainable="lora", optimizer=Optimizer(learning_rate=0.01), curriculum=((0, 3),)
    )
    mesh = MeshShape(**shape).build()
    factory = StateFactory(
        denoiser=denoiser,
        seed=0,
        batch=batch,
        mesh=mesh,
        lora=SPEC,
        base_dtype="float32",
        base_quantization=quantization,
        trained=("lora",),
    )
    weights = perturbed_params(denoiser, batch)
    constants = scales(SPEC, weights)
    if quantization is not None:
        weights, _ = quantized(quantization, weights)
    base = jax.tree.map(jax.device_put, merge(weights, constants), factory.shardings(stage).base)
    state = factory.create(stage).replace(base=base)
    batch = jax.device_put(batch, batch_sharding(mesh, 8))
    objective = Objective(denoiser=denoiser, forcing=stage.forcing, time=TimeDistribution())
    shardings = jax.tree.map(lambda x: x.sharding, state)
    step = jax.jit(
        make_train_step(objective, stage.optimizer.transformation(3), trainable="lora", shardings=shardings.params),
        out_shardings=(shardings, NamedSharding(mesh, PartitionSpec())),
        donate_argnums=0,
    )
    shares = {"base": share(state.base), "adapter": share(state.params)}
    losses = []
    with jax.set_mesh(mesh):
        for _ in range(3):
            state, metrics = step(state, batch)
            losses.append(float(metrics["loss"]))
    return np.array(losses), jax.device_get(jax.tree.leaves(state.params)), shares


def main(spec):
    """The fields of a mesh, and the block size of a quantised base or None → the differences."""
    quantization = None if spec["block"] is None else Quantization(block=spec["block"])
    losses, params, _ = updates({}, quantization)
    others, others_params, shares = updates(spec["mesh"], quantization)
    apart = max(np.abs(a - b).max() / np.abs(a).max() for a, b in zip(params, others_params, strict=True))
    moved = min(float(jnp.abs(x).max()) for x in params)
    rows = {"losses": float(np.abs(losses - others).max()), "params": float(apart), "moved": moved, **shares}
    print(json.dumps(rows))


if __name__ == "__main__":
    main(join(sys.argv[1:]))
