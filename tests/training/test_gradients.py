"""The accumulated gradient against `jax.grad` of the unrolled loss, and what it must reach."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mpjax.diffusion.flow import TimeDistribution, interpolate, one_step_estimate, target_velocity
from mpjax.diffusion.forcing import (
    Direct,
    Echo,
    ErrorRecycling,
    ForcingContext,
    Residual,
    SeparateTime,
    Student,
    Teacher,
)
from mpjax.diffusion.samplers import Euler
from mpjax.models.architecture import FramePack
from mpjax.models.framepack import push
from mpjax.models.memorypack import Denoiser
from mpjax.parameters import parameter_path
from mpjax.training.gradients import Objective, chain_gradients, chain_loss
from mpjax.training.state import TrainState
from mpjax.training.step import make_train_step
from mpjax.training.trainable import partition
from tests.memories import KINDS
from tests.tiny import perturbed_params, tiny_architecture, tiny_batch
from tests.training import linear_denoiser
from tests.training.memory_denoiser import MemoryDenoiser

KEY = jax.random.key(3)


def objective_for(denoiser, forcing=None, **fields):
    return Objective(denoiser=denoiser, forcing=forcing or Teacher(), time=TimeDistribution(), **fields)


def used_carry(forcing, batch):
    """A carry as earlier updates leave it, so that what an arm keeps has an effect."""
    rng = np.random.default_rng(7)

    def fill(x):
        return jnp.full(x.shape, 3, x.dtype) if x.dtype == jnp.int32 else jnp.asarray(rng.normal(size=x.shape), x.dtype)

    return jax.tree.map(fill, forcing.init(batch.segments.shape))


def unrolled_loss(params, objective, batch, key, depth=None):
    """The definition, segment by segment in Python: loss n sees ψ_n through its last `depth` updates.

    Teacher, Direct and Student Forcing are written out; other arms are asked, and what they say is detached.
    """
    denoiser, forcing = objective.denoiser, objective.forcing
    detached = jax.lax.stop_gradient(params)
    segments, total = batch.segments.shape[1], batch.weight.sum()
    history, memory = denoiser.start(params, batch.prompts[:, 0], batch.reference)
    weight = np.asarray(batch.weight)
    memories, fed, loss, carry = [memory], [], 0.0, used_carry(forcing, batch)
    for n in range(segments):
        key_t, key_noise, key_forcing = jax.random.split(jax.random.fold_in(key, n), 3)
        x_1 = batch.segments[:, n]
        t = objective.time.sample(key_t, x_1.shape[0])
        noise = jax.random.normal(key_noise, x_1.shape)
        x_t, target = interpolate(x_1, noise, t), target_velocity(x_1, noise)
        given = weight[:, n] == 0

        def denoise(x, t, n=n, history=history, memory=memory):
            condition = denoiser.condition(detached, batch.prompts[:, n], batch.reference)
            return denoiser.velocity(detached, x, t, history, condition, memory)

        context = ForcingContext(
            key=key_forcing,
            index=jnp.int32(n),
            starts_chain=jnp.asarray(~given & (weight[:, n - 1] == 0 if n else True)),
            trained=jnp.asarray(~given),
            later=jnp.asarray((weight[:, n + 1 :] != 0).any()),
            denoise=denoise,
        )
        skipped = given.all()
        if not (skipped or isinstance(forcing, Teacher | Direct | Student)):
            x_t, target = jax.lax.stop_gradient(forcing.inputs(carry, context, x_1, t, noise))
        if depth is not None:  # replay the last `depth` updates from a detached ψ
            first = max(0, n - depth)
            memory = memories[0] if first == 0 else jax.lax.stop_gradient(memories[first])
            for m in range(first, n):
                memory = denoiser.update_memory(params, memory, fed[m])
        condition = denoiser.condition(params, batch.prompts[:, n], batch.reference)
        v = denoiser.velocity(params, x_t, t, history, condition, memory)
        loss += (batch.weight[:, n] * jnp.square(v - target).mean((1, 2, 3, 4))).sum() / total
        if isinstance(forcing, Teacher) or skipped:
            x = x_1
        elif forcing == Direct():
            x = one_step_estimate(x_t, v, t)
        elif isinstance(forcing, Student):
            x = Euler(steps=forcing.steps).sample(denoise, jax.random.normal(key_forcing, x_1.shape))
        else:
            x, carry = jax.lax.stop_gradient(forcing.history(carry, context, x_1, x_t, jax.lax.stop_gradient(v), t))
        x = jax.lax.stop_gradient(jnp.where(given[:, None, None, None, None], x_1, x))
        fed.append(x)
        history, memory = push(history, x, denoiser.architecture.framepack), denoiser.update_memory(params, memory, x)
        memories.append(memory)
    return loss


def assert_same_gradient(got, want, tolerance=1e-5):
    scale = max(float(jnp.abs(g).max()) for g in jax.tree.leaves(want))
    for (path, a), b in zip(jax.tree.leaves_with_path(got), jax.tree.leaves(want), strict=True):
        np.testing.assert_allclose(a, b, atol=tolerance * scale, rtol=tolerance, err_msg=parameter_path(path))


def assert_gradient_of_the_unrolled_loss(denoiser, batch, params, forcing, depth):
    objective = objective_for(denoiser, forcing, bptt_depth=depth)
    trainable, frozen = partition(params, "all")
    carry = used_carry(forcing, batch)
    losses, grads, _ = jax.jit(lambda p: chain_gradients(objective, p, frozen, carry, batch, KEY, batch.weight.sum()))(
        trainable
    )
    loss, want = jax.jit(jax.value_and_grad(lambda p: unrolled_loss(p, objective, batch, KEY, depth)))(params)
    np.testing.assert_allclose(losses.sum(), loss, rtol=1e-5)
    assert_same_gradient(grads, want)
    memorize = sum(float(jnp.abs(g).sum()) for g in jax.tree.leaves(want["memorize"]))
    assert (memorize == 0) == (depth == 0)


@pytest.mark.parametrize(
    ("forcing", "depth"),
    [
        (Teacher(), None),
        (Teacher(), 0),
        (Teacher(), 1),
        (Direct(), None),
        (Direct(), 2),
        (Student(steps=2), None),
    ],
    ids=lambda x: getattr(x, "kind", f"depth_{x}"),
)
def test_accumulated_gradient_of_a_small_recurrence(forcing, depth):
    """Five segments, given ones and padding among them, through a memory of one number."""
    data = linear_denoiser.batch([[0, 1, 0, 2, 1, 0], [1, 1, 0, 0.5, 1, 0]])
    params = linear_denoiser.recurrent_parameters()
    assert_gradient_of_the_unrolled_loss(linear_denoiser.RecurrentDenoiser(), data, params, forcing, depth)


@pytest.mark.parametrize(
    ("forcing", "depth"),
    [
        (Direct(estimate=SeparateTime(), clean_mix=0.3), None),
        (Residual(), None),
        (Echo(), 1),
        (ErrorRecycling(size=2, intervals=2, input_probability=0.5), None),
    ],
    ids=lambda x: getattr(x, "kind", f"depth_{x}"),
)
def test_accumulated_gradient_with_what_an_arm_keeps_and_evaluates(forcing, depth):
    """A chain that starts late in one video and ends early in the other."""
    data = linear_denoiser.batch([[0, 1, 2, 1], [1, 0.5, 1, 0]])
    params = linear_denoiser.recurrent_parameters()
    assert_gradient_of_the_unrolled_loss(linear_denoiser.RecurrentDenoiser(), data, params, forcing, depth)


EVERY_MEMORY = [
    *((kind, None) for kind in ("mean_pool", "retrieval", "long_window")),
    *(
        pytest.param(kind, depth, marks=pytest.mark.slow)
        for depth, kinds in {
            None: ("A_gate", "B", "C_gate", "B_image_gate", "first_segment"),
            0: ("C", "mean_pool", "retrieval", "long_window"),
            1: ("B", "C", "mean_pool", "retrieval", "long_window"),
            4: ("A", "C_gate", "retrieval"),
        }.items()
        for kind in kinds
    ),
]


@pytest.mark.parametrize(("kind", "depth"), EVERY_MEMORY)
def test_accumulated_gradient_of_every_memory(kind, depth):
    """A memory behind a small velocity: a given segment, a gap, more segments than a bank holds."""
    denoiser = MemoryDenoiser(KINDS[kind])
    data = linear_denoiser.batch([[0, 1, 0, 1, 2], [1, 1, 0, 0.5, 1]])
    assert_gradient_of_the_unrolled_loss(denoiser, data, denoiser.parameters(), Teacher(), depth)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("forcing", "depth"),
    [(Direct(), None), (Student(steps=2), None), (Residual(), None), (Teacher(), 1), (Teacher(), None), (Teacher(), 0)],
    ids=lambda x: getattr(x, "kind", f"depth_{x}"),
)
def test_accumulated_gradient_of_the_network(tiny, forcing, depth):
    denoiser, batch, params = tiny
    batch = batch.replace(weight=jnp.array([[0.0, 1.0, 1.0], [1.0, 1.0, 0.5]]))
    assert_gradient_of_the_unrolled_loss(denoiser, batch, params, forcing, depth)


def test_every_parameter_gets_a_gradient_over_two_segments():
    framepack = FramePack(segment_frames=4, history_frames=(1, 2, 4), rope_layout="global")
    denoiser = Denoiser(tiny_architecture(framepack=framepack))
    batch = tiny_batch(denoiser.architecture, segments=2)
    params = perturbed_params(denoiser, batch)
    trainable, frozen = partition(params, "all")
    objective = objective_for(denoiser)
    grads = jax.jit(lambda p: chain_gradients(objective, p, frozen, (), batch, KEY, jnp.float32(4))[1])(trainable)
    # Softmax cannot see a key bias unless the key is normalised after it, which the refiner's is not.
    blind = {f"context_embedder/block_{i}/to_k/bias" for i in range(denoiser.architecture.refiner_blocks)}
    largest = max(float(jnp.abs(g).max()) for g in jax.tree.leaves(grads))
    silent = {
        parameter_path(path) for path, g in jax.tree.leaves_with_path(grads) if float(jnp.abs(g).max()) < 1e-7 * largest
    }
    assert silent == blind
    assert not any(path.startswith(("memorize", "squeeze")) for path in blind)


@pytest.mark.slow
def test_segments_of_weight_zero_are_given_and_cost_nothing(tiny):
    """A given segment reaches history as truth, under Direct Forcing too; padding after the last changes nothing."""
    denoiser, batch, params = tiny
    weight = jnp.array([[0.0, 1.0, 0.0]] * 2)
    trainable, frozen = partition(params, "all")

    def gradients(forcing, segments):
        b = batch.replace(weight=weight, segments=segments)
        objective = objective_for(denoiser, forcing)
        return chain_gradients(objective, trainable, frozen, (), b, KEY, jnp.float32(2))[:2]

    run = jax.jit(gradients, static_argnums=0)
    teacher = run(Teacher(), batch.segments)
    direct = run(Direct(), batch.segments)
    for a, b in zip(jax.tree.leaves(teacher), jax.tree.leaves(direct), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-7)
    other = batch.segments.at[:, 2].add(1.0)
    for a, b in zip(jax.tree.leaves(teacher), jax.tree.leaves(run(Teacher(), other)), strict=True):
        np.testing.assert_array_equal(a, b)
    assert teacher[0][0] == 0 and teacher[0][1] > 0 and teacher[0][2] == 0


@pytest.mark.slow
def test_frozen_parameters_get_no_gradient_and_the_head_alone_gets_its_own(tiny):
    denoiser, batch, params = tiny
    objective = objective_for(denoiser, Direct())
    total = batch.weight.sum()
    everything, nothing = partition(params, "all")
    head, frozen = partition(params, "output_head")
    full = jax.jit(lambda p: chain_gradients(objective, p, nothing, (), batch, KEY, total)[1])(everything)
    alone = jax.jit(lambda p: chain_gradients(objective, p, frozen, (), batch, KEY, total)[1])(head)
    assert {parameter_path(p).split("/")[0] for p, _ in jax.tree.leaves_with_path(alone)} == {"head"}
    assert_same_gradient(jax.tree.leaves(alone["head"]), jax.tree.leaves(full["head"]))


@pytest.mark.parametrize("network", ["recurrence", pytest.param("tiny", marks=pytest.mark.slow)])
def test_validation_loss_is_the_teacher_forced_loss(request, network):
    if network == "tiny":
        denoiser, batch, params = request.getfixturevalue("tiny")
    else:
        denoiser, params = linear_denoiser.RecurrentDenoiser(), linear_denoiser.recurrent_parameters()
        batch = linear_denoiser.batch([[0, 1, 0, 2], [1, 1, 0, 0.5]])
    objective = objective_for(denoiser)
    got = jax.jit(lambda p: chain_loss(objective, p, batch, KEY))(params)
    trainable, frozen = partition(params, "all")
    want = jax.jit(lambda p: chain_gradients(objective, p, frozen, (), batch, KEY, batch.weight.sum())[0])(trainable)
    np.testing.assert_allclose(got, want, rtol=1e-6)


def test_embeddings_made_before_stand_in_for_the_encoders(tiny):
    """The same losses, and in all that is behind the encoders the same gradients as from bytes."""
    denoiser, batch, params = tiny
    objective = objective_for(denoiser)
    trainable, frozen = partition(params, "all")

    def embed(prompts):
        return denoiser.condition(params, prompts, batch.reference)

    embeddings = jax.vmap(embed, in_axes=1, out_axes=1)(batch.prompts)
    assert embeddings.text.shape[:2] == batch.prompts.shape[:2]

    @jax.jit
    def run(batch):
        return chain_gradients(objective, trainable, frozen, (), batch, KEY, batch.weight.sum())[:2]

    (losses, grads), (other_losses, other_grads) = run(batch), run(batch.replace(prompts=embeddings))
    np.testing.assert_allclose(other_losses, losses, rtol=1e-6)
    for encoder in ("prompt_encoder", "frame_encoder"):
        assert any(g.any() for g in jax.tree.leaves(grads.pop(encoder)))
        assert not any(g.any() for g in jax.tree.leaves(other_grads.pop(encoder)))
    assert_same_gradient(other_grads, grads)


@pytest.mark.parametrize("kind", ["bytes", pytest.param("embeddings", marks=pytest.mark.slow)])
def test_one_prompt_a_video_is_that_prompt_for_every_segment(tiny, kind):
    """To the bit: losses and all gradients of two micro-batches, those of encoders and ψ_0 among them."""
    denoiser, batch, params = tiny
    prompts = batch.first_prompts
    if kind == "embeddings":
        prompts = denoiser.condition(params, prompts, batch.reference)
    one = batch.replace(prompts=jax.tree.map(lambda x: x[:, None], prompts))
    segments = batch.segments.shape[1]
    repeated = batch.replace(prompts=jax.tree.map(lambda x: jnp.repeat(x[:, None], segments, 1), prompts))
    optimizer = optax.chain(optax.clip_by_global_norm(1e6), optax.sgd(1.0))
    step = jax.jit(make_train_step(objective_for(denoiser, Direct()), optimizer, micro_batches=2))
    zero = jnp.zeros((), jnp.int32)
    state = TrainState(step=zero, params=params, ema=params, opt_state=optimizer.init(params), carry=(), key=KEY)
    (got, metrics), (want, other) = step(state, one), step(state, repeated)
    jax.tree.map(np.testing.assert_array_equal, (got.params, metrics), (want.params, other))
    still = jax.tree.map(lambda a, b: bool((a == b).all()), got.params, params)
    for room in ("prompt_encoder", "frame_encoder", "context_embedder", "squeeze"):
        assert all(jax.tree.leaves(still[room])) == (kind == "embeddings" and room.endswith("_encoder"))
