"""Run as a script on 8 CPU devices: one update of a tiny network on one device and on meshes; prints the differences.

python tests/parallel/sharded_step.py '{"data": 8}' '{"fsdp": 4, "data": 2}'
"""

import json
import sys

import jax
import jax.numpy as jnp
import numpy as np

from mpjax.diffusion.flow import TimeDistribution
from mpjax.diffusion.forcing import Echo
from mpjax.models.memorypack import Denoiser
from mpjax.parallel.mesh import MeshShape
from mpjax.parallel.rules import batch_sharding
from mpjax.training.curriculum import Stage
from mpjax.training.gradients import Objective
from mpjax.training.optimizer import Optimizer
from mpjax.training.state import StateFactory
from mpjax.training.step import make_train_step
from tests.tiny import perturbed_params, tiny_architecture, tiny_batch

# A large epsilon keeps Adam from turning the rounding of a vanishing gradient into a full step.
STAGE = Stage(
    steps=1,
    forcing=Echo(),  # its carry is sharded as the batch
    optimizer=Optimizer(learning_rate=1.0, epsilon=1.0, clip_norm=1e6),
    curriculum=((0, 2),),
    repeat=2,
)


def update(denoiser, batch, params, shape):
    """(parameters, moments, loss, carry) after one update on a mesh, at the second sight of a batch."""
    mesh = MeshShape(**shape).build()
    factory = StateFactory(denoiser=denoiser, seed=0, batch=batch, mesh=mesh)
    zeros = lambda x: jnp.zeros(x.shape, x.dtype, device=x.sharding)  # noqa: E731
    abstract = factory.abstract(STAGE)
    params = jax.tree.map(lambda x, like: jax.device_put(x, like.sharding), params, abstract.params)
    key = jax.device_put(jax.random.key(5), abstract.key.sharding)
    opt_state, step = jax.tree.map(zeros, (abstract.opt_state, abstract.step))
    carry = np.random.default_rng(1).normal(size=abstract.carry.shape).astype(np.float32)
    carry = jax.device_put(carry, abstract.carry.sharding)
    state = abstract.replace(step=step + 1, params=params, ema=params, opt_state=opt_state, carry=carry, key=key)
    objective = Objective(denoiser=denoiser, forcing=STAGE.forcing, time=TimeDistribution())
    train_step = jax.jit(make_train_step(objective, STAGE.optimizer.transformation(1), repeat=STAGE.repeat))
    with jax.set_mesh(mesh):
        state, metrics = train_step(state, jax.device_put(batch, batch_sharding(mesh, 8)))
    return state.params, state.opt_state[1][0].mu, float(metrics["loss"]), state.carry


def fresh(denoiser, batch, shape):
    """Parameters as a run on this mesh would begin with."""
    return StateFactory(denoiser=denoiser, seed=0, batch=batch, mesh=MeshShape(**shape).build()).create(STAGE).params


def share(tree):
    """How much of a tree the first device holds."""
    leaves = jax.tree.leaves(tree)
    return sum(x.addressable_shards[0].data.size for x in leaves) / sum(x.size for x in leaves)


def main(shapes):
    denoiser = Denoiser(tiny_architecture())
    batch = tiny_batch(denoiser.architecture, batch=8, segments=2)
    start = perturbed_params(denoiser, batch)
    # On one device a prompt a segment, on the meshes one a video: the same prompt.
    batch = batch.replace(prompts=batch.prompts[:, :1])
    repeated = batch.replace(prompts=jnp.repeat(batch.prompts, 2, 1))
    want, _, want_loss, want_carry = update(denoiser, repeated, start, {})
    largest = lambda a, b: max(  # noqa: E731
        float(np.abs(np.asarray(x) - np.asarray(y)).max())
        for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    )
    moved = largest(want, start)
    initial = largest(fresh(denoiser, batch, shapes[-1]), fresh(denoiser, batch, {}))
    rows = []
    for shape in shapes:
        params, moments, loss, carry = update(denoiser, batch, start, shape)
        rows.append(
            {
                "loss": abs(loss / want_loss - 1),
                "params": largest(params, want) / moved,
                "share": share(params),
                "moments": share(moments),
                "carry": largest(carry, want_carry),
                "carry_share": share(carry),
            }
        )
    print(json.dumps({"devices": jax.device_count(), "moved": moved, "initial": initial, "rows": rows}))


if __name__ == "__main__":
    main([json.loads(shape) for shape in sys.argv[1:]])
