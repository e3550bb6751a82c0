"""Activation memory does not grow with the number of segments: XLA's plan for the compiled update; nothing is run."""

import jax
import jax.numpy as jnp
import pytest

from mpjax.data.batch import Batch
from mpjax.diffusion.flow import TimeDistribution
from mpjax.diffusion.forcing import Direct
from mpjax.models.architecture import Encoders, FramePack
from mpjax.models.memorypack import Denoiser
from mpjax.models.semanticpack import SemanticPack
from mpjax.parallel.mesh import MeshShape
from mpjax.training.curriculum import Stage
from mpjax.training.gradients import Objective, chain_loss
from mpjax.training.state import StateFactory
from mpjax.training.step import make_train_step
from tests.tiny import tiny_architecture

F, SIDE, PSI, WIDTH = 8, 16, 64, 256  # 8 × 8 × 8 noisy tokens of width 256 a segment


def network(remat):
    return tiny_architecture(
        heads=4,
        head_dim=64,
        dual_blocks=2,
        single_blocks=2,
        rope_axes=(16, 24, 24),
        framepack=FramePack(segment_frames=F, history_frames=(1, 2, 4)),
        memory=SemanticPack(patch=(2, 4, 4), depth=1, heads=4),
        encoders=Encoders(prompt_bytes=16, width=32, depth=1, heads=2),
        remat=remat,
    )


def planned(make, remat, segments):
    """Temporary bytes of a compiled function of (state, batch), less what must be kept of each segment."""
    denoiser = Denoiser(network(remat))
    shape = jax.ShapeDtypeStruct
    batch = Batch(
        reference=shape((1, 1, SIDE, SIDE, 3), jnp.float32),
        segments=shape((1, segments, F, SIDE, SIDE, 3), jnp.float32),
        prompts=shape((1, segments, 16), jnp.int32),
        weight=shape((1, segments), jnp.float32),
    )
    stage = Stage(steps=1, curriculum=((0, segments),))
    mesh = MeshShape().build()
    state = StateFactory(denoiser=denoiser, seed=0, batch=batch, mesh=mesh).abstract(stage)
    objective = Objective(denoiser=denoiser, forcing=Direct(), time=TimeDistribution())
    compiled = jax.jit(make(objective, stage)).lower(state, batch).compile()
    kept = segments * 4 * (2 * PSI * WIDTH + F * SIDE * SIDE * 3)  # ψ, its cotangent, and the segment that was fed
    return compiled.memory_analysis().temp_size_in_bytes - kept


def whole_update(objective, stage):
    return make_train_step(objective, stage.optimizer.transformation(stage.steps))


def plain_backpropagation(objective, stage):
    """What a gradient through the scan would cost, to see that the measure sees it."""
    return lambda state, batch: jax.grad(lambda p: chain_loss(objective, p, batch, state.key).sum())(state.params)


@pytest.mark.slow
@pytest.mark.parametrize("remat", ["none", "full"])
def test_twenty_segments_need_the_memory_of_two(remat):
    two, twenty = (planned(whole_update, remat, segments) for segments in (2, 20))
    assert two > 10e6
    assert twenty / two <= 1.05


@pytest.mark.slow
def test_the_measure_sees_a_gradient_that_keeps_every_segment():
    two, four = (planned(plain_backpropagation, "none", segments) for segments in (2, 4))
    assert four / two > 1.3
