"""The train step: pure, (state, batch) → (state, metrics)."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

from mpjax.data.batch import Batch
from mpjax.training.gradients import Objective, chain_gradients, with_given
from mpjax.training.state import TrainState
from mpjax.training.trainable import merge, partition

Metrics = dict[str, jax.Array]


def make_train_step(
    objective: Objective,
    optimizer: optax.GradientTransformation,
    *,
    trainable: str = "all",
    ema_decay: float = 0.999,
    micro_batches: int = 1,
) -> Callable[[TrainState, Batch], tuple[TrainState, Metrics]]:
    """Builds the step of one stage.

    Args:
        objective: network, forcing and time distribution.
        optimizer: acts on the trainable half of the parameters.
        trainable: name of the trainable set.
        ema_decay: of the moving average; early updates use (1 + n) / (10 + n) where that is smaller.
        micro_batches: equal slices of the batch whose gradients are accumulated one after another.

    Returns:
        A function for `jax.jit`; metrics are float32 scalars `loss`, `gradient_norm` and `forwards_per_update`, and
        `loss_by_segment` `[s]`.
    """
    forcing = objective.forcing

    def step(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        batch = with_given(batch, objective.given)
        total = batch.weight.sum()
        key = jax.random.fold_in(state.key, state.step)
        trained, frozen = partition(state.params, trainable)

        def accumulate(state: tuple, inputs: tuple) -> tuple[tuple, jax.Array]:
            grads, carry = state
            part, n = inputs
            key_part = jax.random.fold_in(key, n)
            losses, grad, carry = chain_gradients(objective, trained, frozen, carry, part, key_part, total)
            return (jax.tree.map(jnp.add, grads, grad), carry), losses

        if micro_batches == 1:
            losses, grads, carry = chain_gradients(objective, trained, frozen, state.carry, batch, key, total)
        else:
            # Interleaved, so that every device keeps its share of each part.
            parts = jax.tree.map(lambda x: x.reshape(-1, micro_batches, *x.shape[1:]).swapaxes(0, 1), batch)
            zeros = jax.tree.map(jnp.zeros_like, trained)
            (grads, carry), losses = jax.lax.scan(accumulate, (zeros, state.carry), (parts, jnp.arange(micro_batches)))
            losses = losses.sum(0)

        updates, opt_state = optimizer.update(grads, state.opt_state, trained)
        params = merge(optax.apply_updates(trained, updates), frozen)
        n = state.step.astype(jnp.float32)
        decay = jnp.minimum(ema_decay, (1.0 + n) / (10.0 + n))
        ema = jax.tree.map(lambda average, p: average + (1.0 - decay) * (p - average), state.ema, params)
        used = (batch.weight != 0).any(0)
        read = used & ((jnp.cumsum(used[::-1])[::-1] - used) > 0)
        metrics = {
            "loss": losses.sum(),
            "gradient_norm": optax.tree.norm(grads),
            "forwards_per_update": (used.sum() + (forcing.forwards_per_segment - 1) * read.sum()).astype(jnp.float32),
            "loss_by_segment": losses,
        }
        state = state.replace(step=state.step + 1, params=params, ema=ema, opt_state=opt_state, carry=carry)
        return state, metrics

    return step
