"""Operations of a step against the matrix products of its trace."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import pytest

from mpjax import experiment
from mpjax.diffusion.forcing import Direct
from mpjax.models import attention
from mpjax.models.architecture import Architecture
from mpjax.models.flops import velocity_flops
from mpjax.models.memorypack import Denoiser
from mpjax.parallel.mesh import MeshShape
from mpjax.plan.operations import generate_operations, train_operations
from mpjax.plan.steps import lower_generate_step, lower_train_step, network_inputs, tokens_of
from tests.tracing import multiplications

SMOKE = experiment.load("configs/framepack_f1_13b.py:smoke")


def with_model(**changes):
    return dataclasses.replace(SMOKE, model=dataclasses.replace(SMOKE.model, **changes))


def test_tokens_are_those_of_the_network():
    """32 × 48 pixels: latents of 4 × 6, patches of 2."""
    tokens = tokens_of(SMOKE)
    assert (tokens.text, tokens.image, tokens.noisy) == (512, 729, 9 * 2 * 3)
    assert tokens.memory == SMOKE.model.memory.size((9, 4, 6), 512 + 729)
    assert tokens_of(with_model(memory=None)).memory == 0


def test_the_13b_reads_21157_tokens():
    full = experiment.load("configs/framepack_f1_13b.py")
    tokens = tokens_of(full)
    assert full.model == Architecture(encoders=None) and tokens.latents + tokens.context == 21_157


@pytest.mark.parametrize(("trainable", "share"), [("all", 3.0), ("memory", 2.0)])
def test_useful_operations_of_an_update(trainable, share):
    """Forward, and backward with respect to inputs and parameters: each as much."""
    stage = dataclasses.replace(SMOKE.training.stages[0], trainable=trainable)
    tokens = tokens_of(SMOKE)
    forward = sum(velocity_flops(SMOKE.model, tokens, 4).values())
    found = train_operations(SMOKE, stage, tokens, 4, 5)
    assert found.useful == 5 * share * forward


def test_a_head_alone_is_cheap_and_direct_forcing_reads_once_more():
    tokens = tokens_of(SMOKE)
    parts = velocity_flops(SMOKE.model, tokens, 1)
    stage = dataclasses.replace(SMOKE.training.stages[1], forcing=Direct(steps=3))
    found = train_operations(SMOKE, stage, tokens, 1, 5)
    assert found.useful == found.executed == (5 + 2 * 4) * sum(parts.values()) + 5 * 2 * parts["head"]


def test_an_evaluation_and_its_gradient_are_three_forwards():
    """The trace of a gradient without remat; the first products need no gradient of what goes in.

    Attention computes its scores again.
    """
    config = with_model(memory=None)
    tokens = tokens_of(config)
    forward, backward = traced_products(config)
    want = sum(velocity_flops(config.model, tokens).values())
    assert forward == want
    assert 2.9 * want < backward - scores_again(config) <= 3 * want


@pytest.mark.parametrize("remat", ["none", "dots", "full"])
def test_executed_operations_follow_the_remat_policy(remat):
    """Against the trace, apart from what splash goes through again: three products of all pairs a block.

    The trace is one of plain attention, which goes through one again; `dots` keeps the result of either.
    """
    config = with_model(memory=None, remat=remat)
    tokens = tokens_of(config)
    arch, n = config.model, tokens.latents + tokens.context
    splash = 3 * (arch.dual_blocks + arch.single_blocks) * 2 * n * n * arch.width
    found = train_operations(config, config.training.stages[0], tokens, 1, 1)
    _, traced = traced_products(config)
    assert found.executed - splash == pytest.approx(traced - scores_again(config), rel=0.02)


def scores_again(config):
    """Products of q and k, in the blocks and in the token refiner."""
    arch, tokens = config.model, tokens_of(config)
    n = tokens.latents + tokens.context
    return 2 * arch.width * ((arch.dual_blocks + arch.single_blocks) * n**2 + arch.refiner_blocks * tokens.text**2)


@functools.cache
def traced_products(config):
    """Matrix products of one evaluation of the network, and of it with its gradient in all parameters."""
    denoiser = Denoiser(config.model, config.guidance)
    params, arguments = network_inputs(config)

    def loss(params, *arguments):
        return jnp.square(denoiser.velocity(params, *arguments)).sum()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(attention, "CACHED_SCORES", 2**40)  # pieces of queries would be filled up
        forward = jax.make_jaxpr(denoiser.velocity)(params, *arguments)
        pulled = jax.make_jaxpr(jax.grad(loss))(params, *arguments)
    return multiplications(forward.jaxpr), multiplications(pulled.jaxpr)


def test_a_generated_segment_is_as_many_evaluations_as_the_sampler_makes():
    tokens = tokens_of(SMOKE)
    found = generate_operations(SMOKE, tokens)
    assert found.useful == found.executed == 2 * sum(velocity_flops(SMOKE.model, tokens).values())


def test_the_steps_lower_on_this_machine():
    """They are jitted functions of the experiment alone: no data and no weights are needed."""
    mesh = MeshShape().build()
    assert "while" in lower_train_step(SMOKE, 2, mesh, 2).as_text()
    assert "while" in lower_generate_step(SMOKE, mesh).as_text()
