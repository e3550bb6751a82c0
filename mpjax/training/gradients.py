"""Loss and exact gradient of a whole video at the activation memory of one segment.

History and forced segments are detached, so ψ is the only link between segments. One forward scan takes, per segment,
the gradient of its loss with respect to the parameters *and to ψ_n*; only these small cotangents, ψ_n and the segments
are kept. One reverse scan then carries the cotangents back through the memory's update alone,

    λ_n = ∂L_n/∂ψ_n + (∂ψ_{n+1}/∂ψ_n)ᵀ λ_{n+1},      ∂L/∂θ = Σ_n ∂L_n/∂θ + (∂ψ_{n+1}/∂θ)ᵀ λ_{n+1},

and λ_0 through `init_memory`. The sum equals `jax.grad` of the unrolled loss; tests/training/test_gradients.py says so.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from mpjax.data.batch import Batch
from mpjax.diffusion.flow import TimeDistribution, interpolate, target_velocity
from mpjax.diffusion.forcing import Carry, Forcing, ForcingContext
from mpjax.models.framepack import push
from mpjax.models.memory import Memory
from mpjax.models.memorypack import Denoiser
from mpjax.parameters import merge
from mpjax.training.trainable import trains_memory


@dataclasses.dataclass(frozen=True, kw_only=True)
class Objective:
    """What one update minimises.

    Attributes:
        denoiser: the network.
        forcing: where history comes from.
        time: where t is drawn.
        bptt_depth: updates of ψ that the gradient of a segment's loss passes through; None is all of them.
        given: first segments of every video that are given, not trained.
    """

    denoiser: Denoiser
    forcing: Forcing
    time: TimeDistribution
    bptt_depth: int | None = None
    given: int = 0


def read_later(used: jax.Array) -> jax.Array:
    """bool `[s]` → whether any *later* segment is used."""
    after = jnp.cumsum(used[::-1])[::-1] - used
    return after > 0


def _add(a: Any, b: Any) -> Any:
    return jax.tree.map(jnp.add, a, b)


def _segments_first(batch: Batch, given: jax.Array, used: jax.Array, later: jax.Array) -> tuple[Any, ...]:
    """The scan's inputs: batch tensors with the segment axis in front."""
    starts = ~given & jnp.concatenate([jnp.ones_like(given[:, :1]), given[:, :-1]], 1)
    segments, *rest = (jnp.swapaxes(x, 0, 1) for x in (batch.segments, batch.weight, given, starts))
    return (segments, *rest, used, later, jnp.arange(batch.segments.shape[1]))


def with_given(batch: Batch, given: int) -> Batch:
    """Sets the loss weight of the first `given` segments to 0."""
    keep = jnp.arange(batch.weight.shape[1]) >= given
    return batch.replace(weight=batch.weight * keep)


def chain_gradients(
    objective: Objective, trainable: dict, frozen: dict, carry: Carry, batch: Batch, key: jax.Array, total: jax.Array
) -> tuple[jax.Array, dict, Carry]:
    """Per-segment losses, accumulated gradients and the forcing's next carry.

    Args:
        objective: what is minimised.
        trainable, frozen: the two halves of the parameters (`trainable.partition`).
        carry: the forcing's carry, for these videos.
        batch: a batch (or micro-batch); segments of weight 0 run no denoiser where the whole batch agrees.
        key: random key of this update and micro-batch.
        total: sum of the weights of the whole batch; losses and gradients are divided by it.

    Returns:
        losses: float32 `[s]`, they sum to the loss; gradients with the structure of `trainable`; carry.
    """
    denoiser, forcing, pack = objective.denoiser, objective.forcing, objective.denoiser.architecture.framepack
    params = jax.lax.stop_gradient(merge(trainable, frozen))
    through_memory = trains_memory(trainable) and denoiser.architecture.memory is not None
    given = batch.weight == 0
    used = (~given).any(0)
    later = read_later(used)
    history, memory = denoiser.start(params, batch.first_prompts, batch.reference)

    def segment(state: tuple, inputs: tuple) -> tuple[tuple, tuple]:
        history, memory, grads, carry = state
        x_1, weight, given, starts, used, later, n = inputs
        prompts = batch.prompts_of(n)
        key_t, key_noise, key_forcing = jax.random.split(jax.random.fold_in(key, n), 3)

        def denoise(x: jax.Array, t: jax.Array) -> jax.Array:
            condition = denoiser.condition(params, prompts, batch.reference)
            return denoiser.velocity(params, x, t, history, condition, memory)

        def run(grads: dict, carry: Carry) -> tuple:
            t = objective.time.sample(key_t, x_1.shape[0])
            noise = jax.random.normal(key_noise, x_1.shape, x_1.dtype)
            context = ForcingContext(
                key=key_forcing, index=n, starts_chain=starts, trained=~given, later=later, denoise=denoise
            )
            x_t, target = jax.lax.stop_gradient(forcing.inputs(carry, context, x_1, t, noise))

            def loss(trainable: dict, tokens: jax.Array) -> tuple[jax.Array, jax.Array]:
                params = merge(trainable, frozen)
                condition = denoiser.condition(params, prompts, batch.reference)
                v = denoiser.velocity(params, x_t, t, history, condition, memory.replace(tokens=tokens))
                per_example = jnp.square(v - target).mean(tuple(range(1, v.ndim)))
                return (weight * per_example).sum() / total, v

            if through_memory:
                gradient = jax.value_and_grad(loss, argnums=(0, 1), has_aux=True)
                (value, v), (grad, cotangent) = gradient(trainable, memory.tokens)
            else:
                (value, v), grad = jax.value_and_grad(loss, has_aux=True)(trainable, memory.tokens)
                cotangent = jnp.zeros_like(memory.tokens)
            drawn, carry = forcing.history(carry, context, x_1, x_t, v, t)
            return value, cotangent, drawn, _add(grads, grad), carry

        def skip(grads: dict, carry: Carry) -> tuple:
            return jnp.zeros(()), jnp.zeros_like(memory.tokens), x_1, grads, carry

        value, cotangent, drawn, grads, carry = jax.lax.cond(used, run, skip, grads, carry)
        x = jnp.where(given.reshape(-1, *(1,) * (x_1.ndim - 1)), x_1, drawn)
        next_memory = jax.lax.cond(later, lambda: denoiser.update_memory(params, memory, x), lambda: memory)
        return (push(history, x, pack), next_memory, grads, carry), (value, cotangent, memory, x)

    zeros = jax.tree.map(jnp.zeros_like, trainable)
    state, (losses, cotangents, memories, segments) = jax.lax.scan(
        segment, (history, memory, zeros, carry), _segments_first(batch, given, used, later)
    )
    *_, grads, carry = state
    if through_memory:
        kept = (memories, segments, cotangents, later)
        grads = _through_time(objective, trainable, frozen, batch, grads, kept)
    return losses, grads, carry


def _through_time(objective: Objective, trainable: dict, frozen: dict, batch: Batch, grads: dict, kept: tuple) -> dict:
    """The reverse scan, adding to `grads`.

    `waiting` holds cotangents on ψ_{n+1}: entry a has passed a updates; at full depth one entry holds their sum.
    """
    denoiser, depth = objective.denoiser, objective.bptt_depth

    def update(trainable: dict, tokens: jax.Array, memory: Memory, segment: jax.Array) -> jax.Array:
        params = merge(trainable, frozen)
        return denoiser.update_memory(params, memory.replace(tokens=tokens), segment).tokens

    def back(state: tuple, inputs: tuple) -> tuple[tuple, None]:
        waiting, grads = state
        memory, segment, cotangent, later = inputs
        passing = waiting if depth is None else waiting[:depth]

        def run(grads: dict) -> tuple[jax.Array, dict]:
            _, pullback = jax.vjp(lambda p, tokens: update(p, tokens, memory, segment), trainable, memory.tokens)
            # Linear: one pass of the sum gives the parameters' share, whatever the ages of the cotangents.
            grad, together = pullback(passing.sum(0))
            passed = together[None] if depth is None else jax.vmap(lambda c: pullback(c)[1])(passing)
            return passed, _add(grads, grad)

        passed, grads = jax.lax.cond(later, run, lambda grads: (jnp.zeros_like(passing), grads), grads)
        waiting = cotangent[None] + passed if depth is None else jnp.concatenate([cotangent[None], passed])
        return (waiting, grads), None

    cotangents = kept[2]
    waiting = jnp.zeros((1 if depth is None else depth + 1, *cotangents.shape[1:]), cotangents.dtype)
    (waiting, grads), _ = jax.lax.scan(back, (waiting, grads), kept, reverse=True)
    _, pullback = jax.vjp(
        lambda p: denoiser.init_memory(merge(p, frozen), batch.first_prompts, batch.reference).tokens, trainable
    )
    return _add(grads, pullback(waiting.sum(0))[0])


def chain_loss(objective: Objective, params: dict, batch: Batch, key: jax.Array) -> jax.Array:
    """Teacher-forced loss of each segment, float32 `[s]`, forward only; the sum is the weighted mean over the batch.

    With the same key it draws the same t and noise as `chain_gradients`.
    """
    denoiser, pack = objective.denoiser, objective.denoiser.architecture.framepack
    given = batch.weight == 0
    used = (~given).any(0)
    total = batch.weight.sum()
    history, memory = denoiser.start(params, batch.first_prompts, batch.reference)

    def segment(state: tuple, inputs: tuple) -> tuple[tuple, jax.Array]:
        history, memory = state
        x_1, weight, _, _, used, later, n = inputs
        prompts = batch.prompts_of(n)
        key_t, key_noise, _ = jax.random.split(jax.random.fold_in(key, n), 3)

        def run() -> jax.Array:
            t = objective.time.sample(key_t, x_1.shape[0])
            noise = jax.random.normal(key_noise, x_1.shape, x_1.dtype)
            x_t, target = interpolate(x_1, noise, t), target_velocity(x_1, noise)
            condition = denoiser.condition(params, prompts, batch.reference)
            v = denoiser.velocity(params, x_t, t, history, condition, memory)
            return (weight * jnp.square(v - target).mean(tuple(range(1, v.ndim)))).sum() / total

        loss = jax.lax.cond(used, run, lambda: jnp.zeros(()))
        next_memory = jax.lax.cond(later, lambda: denoiser.update_memory(params, memory, x_1), lambda: memory)
        return (push(history, x_1, pack), next_memory), loss

    _, losses = jax.lax.scan(segment, (history, memory), _segments_first(batch, given, used, read_later(used)))
    return losses
