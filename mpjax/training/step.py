"""The train step: pure, (state, batch) → (state, metrics)."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from mpjax.data.batch import Batch
from mpjax.diffusion.forcing import Carry
from mpjax.parallel.host_memory import brought_back
from mpjax.parameters import merge
from mpjax.training.gradients import Objective, chain_gradients, read_later, with_given
from mpjax.training.nonfinite import kept_unless
from mpjax.training.state import TrainState
from mpjax.training.trainable import partition

Metrics = dict[str, jax.Array]


def make_train_step(
    objective: Objective,
    optimizer: optax.GradientTransformation,
    *,
    trainable: str = "all",
    ema_decay: float = 0.999,
    micro_batches: int = 1,
    first_update: int = 0,
    repeat: int = 1,
    shardings: Any = None,
) -> Callable[[TrainState, Batch], tuple[TrainState, Metrics]]:
    """Builds the step of one stage.

    Args:
        objective: network, forcing and time distribution.
        optimizer: acts on the trainable half of the parameters.
        trainable: name of the trainable set.
        ema_decay: of the moving average; early updates use (1 + n) / (10 + n) where that is smaller.
        micro_batches: equal slices of the batch whose gradients are accumulated one after another.
        first_update: at which the stage begins.
        repeat: updates in a row that see the same batch, from `first_update` on.
        shardings: of the parameters, which their gradients take over as soon as they are summed; None leaves that to
            the compiler.

    Returns:
        A function for `jax.jit`, whose `out_shardings` say what of the new state goes back into the host's memory;
        metrics are float32 scalars `loss`, `gradient_norm` and `forwards_per_update`, and `loss_by_segment` `[s]`. A
        forward is one evaluation of the denoiser on the whole batch. Where the state has `faults`, an update whose loss
        or gradient norm is not finite is counted there and changes nothing else.
    """
    forcing = objective.forcing

    def step(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        batch = with_given(batch, objective.given)
        key = jax.random.fold_in(state.key, state.step)
        trained, frozen = partition(state.params, trainable)

        beside = merge(frozen, state.base)
        gradients = functools.partial(chain_gradients, objective, trained, beside, total=batch.weight.sum())
        carry = state.carry
        if forcing.carry_by_video:
            # Other videos have come: what was kept of the last ones is void.
            others = (state.step - first_update) % repeat == 0
            fresh = forcing.init(batch.segments.shape)
            carry = jax.tree.map(lambda kept, start: jnp.where(others, start, kept), carry, fresh)
        if micro_batches == 1:
            losses, grads, carry = gradients(carry, batch, key)
        else:
            zeros = jax.tree.map(jnp.zeros_like, trained)
            losses, grads, carry = _in_parts(gradients, micro_batches, forcing.carry_by_video, zeros, carry, batch, key)

        if shardings is not None:
            grads = jax.lax.with_sharding_constraint(grads, partition(shardings, trainable)[0])
        state = state.replace(ema=brought_back(state.ema), opt_state=brought_back(state.opt_state))
        updates, opt_state = optimizer.update(grads, state.opt_state, trained)
        params = merge(optax.apply_updates(trained, updates), frozen)
        n = state.step.astype(jnp.float32)
        decay = jnp.minimum(ema_decay, (1.0 + n) / (10.0 + n))
        ema = jax.tree.map(lambda average, p: average + (1.0 - decay) * (p - average), state.ema, params)
        # Each part skips what none of its videos needs.
        used = (batch.weight != 0).reshape(-1, micro_batches, batch.weight.shape[1]).any(0)
        read = used & jax.vmap(read_later)(used)
        forwards = used.sum() + (forcing.forwards_per_segment - 1) * read.sum()
        metrics = {
            "loss": losses.sum(),
            "gradient_norm": optax.tree.norm(grads),
            "forwards_per_update": forwards.astype(jnp.float32) / micro_batches,
            "loss_by_segment": losses,
        }
        after = {"params": params, "ema": ema, "opt_state": opt_state, "carry": carry}
        number = state.step + 1
        if state.faults is not None:
            finite = jnp.isfinite(metrics["loss"]) & jnp.isfinite(metrics["gradient_norm"])
            after = kept_unless(finite, {name: getattr(state, name) for name in after}, after)
            after["faults"] = state.faults.after(number, finite)
        return state.replace(step=number, **after), metrics

    return step


def _in_parts(
    gradients: Callable, parts: int, by_video: bool, zeros: dict, carry: Carry, batch: Batch, key: jax.Array
) -> tuple[jax.Array, dict, Carry]:
    """`chain_gradients` of the whole batch, one micro-batch after another; a carry by video is cut like the batch.

    Interleaved, so that every device keeps its share of each part.
    """

    def split(tree: Any) -> Any:
        return jax.tree.map(lambda x: x.reshape(-1, parts, *x.shape[1:]).swapaxes(0, 1), tree)

    def join(tree: Any) -> Any:
        return jax.tree.map(lambda x: x.swapaxes(0, 1).reshape(-1, *x.shape[2:]), tree)

    def part(state: tuple, inputs: tuple) -> tuple[tuple, tuple]:
        grads, passing = state
        batch, own, n = inputs
        losses, grad, carry = gradients(own if by_video else passing, batch, jax.random.fold_in(key, n))
        grads = jax.tree.map(jnp.add, grads, grad)
        return ((grads, ()), (losses, carry)) if by_video else ((grads, carry), (losses, ()))

    own, passing = (carry, ()) if by_video else ((), carry)
    (grads, passing), (losses, own) = jax.lax.scan(
        part, (zeros, passing), (split(batch), split(own), jnp.arange(parts))
    )
    return losses.sum(0), grads, join(own) if by_video else passing
