"""The train step against float64 NumPy on a network that can be differentiated by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mpjax.diffusion.flow import TimeDistribution
from mpjax.diffusion.forcing import Direct, Teacher
from mpjax.training.gradients import Objective
from mpjax.training.optimizer import Optimizer
from mpjax.training.state import TrainState
from mpjax.training.step import make_train_step
from mpjax.training.trainable import partition
from tests.training.linear_denoiser import LinearDenoiser, batch, loss_and_gradient, parameters

WEIGHT = [[0, 1, 0.5], [0, 2, 1], [0, 1, 1], [0, 0.5, 1]]
KEY = jax.random.key(11)


def make(optimizer, trainable="all", forcing=None, denoiser=None, given=0, **fields):
    """(fresh state, compiled step)."""
    objective = Objective(
        denoiser=denoiser or LinearDenoiser(), forcing=forcing or Teacher(), time=TimeDistribution(), given=given
    )
    transformation, params = optimizer.transformation(100), parameters()
    state = TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        ema=parameters(seed=1),
        opt_state=transformation.init(partition(params, trainable)[0]),
        carry=(),  # of an arm that keeps nothing
        key=KEY,
    )
    return state, jax.jit(make_train_step(objective, transformation, trainable=trainable, **fields))


class AdamW:
    """Adam with decoupled weight decay and clipping by the global norm, in float64 (Loshchilov and Hutter, 2019)."""

    def __init__(self, params, rate, b1, b2, epsilon, decay, clip):
        self.params = jax.tree.map(lambda x: np.asarray(x, np.float64), params)
        self.first = jax.tree.map(np.zeros_like, self.params)
        self.second = jax.tree.map(np.zeros_like, self.params)
        self.settings, self.count = (rate, b1, b2, epsilon, decay, clip), 0

    def update(self, grads):
        rate, b1, b2, epsilon, decay, clip = self.settings
        self.count += 1
        norm = np.sqrt(sum((g**2).sum() for g in jax.tree.leaves(grads)))
        grads = jax.tree.map(lambda g: g * min(1, clip / norm), grads)
        self.first = jax.tree.map(lambda m, g: b1 * m + (1 - b1) * g, self.first, grads)
        self.second = jax.tree.map(lambda v, g: b2 * v + (1 - b2) * g**2, self.second, grads)

        def move(p, m, v):
            m, v = m / (1 - b1**self.count), v / (1 - b2**self.count)
            return p - rate * (m / (np.sqrt(v) + epsilon) + decay * p)

        self.params = jax.tree.map(move, self.params, self.first, self.second)
        return norm


@pytest.mark.parametrize(("parts", "clip"), [(1, 0.1), (2, 100.0), (4, 0.1)])
def test_three_updates_are_adamw_on_the_hand_made_gradient(parts, clip):
    """Micro-batch m draws with fold_in(key of the update, m); every gradient is over the whole batch's weight."""
    fields = {"b1": 0.8, "b2": 0.9, "weight_decay": 0.3}
    optimizer = Optimizer(learning_rate=0.05, clip_norm=clip, **fields)
    state, step = make(optimizer, micro_batches=parts)
    adam = AdamW(state.params, 0.05, 0.8, 0.9, 1e-8, 0.3, clip)
    for n in range(3):
        data = batch(WEIGHT, seed=n)
        key = jax.random.fold_in(KEY, n)
        losses, grads = np.zeros(3), jax.tree.map(np.zeros_like, adam.params)
        for m in range(parts):
            part = jax.tree.map(lambda x, m=m: x[m::parts], data)
            part_key = key if parts == 1 else jax.random.fold_in(key, m)
            loss, grad = loss_and_gradient(adam.params, part, part_key, np.sum(WEIGHT))
            losses, grads = losses + loss, jax.tree.map(np.add, grads, grad)
        norm = adam.update(grads)
        state, metrics = step(state, data)
        np.testing.assert_allclose(metrics["loss"], losses.sum(), rtol=1e-5)
        np.testing.assert_allclose(metrics["loss_by_segment"], losses, rtol=1e-5)
        np.testing.assert_allclose(metrics["gradient_norm"], norm, rtol=1e-5)
        for got, want in zip(jax.tree.leaves(state.params), jax.tree.leaves(adam.params), strict=True):
            np.testing.assert_allclose(got, want, atol=1e-5)
        assert int(state.step) == n + 1


def test_ema_follows_its_closed_form():
    """decay = min(0.3, (1 + n) / (10 + n)): 0.1, 2/11, 0.25, then 0.3."""
    state, step = make(Optimizer(learning_rate=0.05), ema_decay=0.3)
    want = jax.tree.map(lambda x: np.asarray(x, np.float64), state.ema)
    for decay in (0.1, 2 / 11, 0.25, 0.3, 0.3):
        state, _ = step(state, batch(WEIGHT))
        want = jax.tree.map(lambda e, p, d=decay: d * e + (1 - d) * np.asarray(p, np.float64), want, state.params)
        for got, value in zip(jax.tree.leaves(state.ema), jax.tree.leaves(want), strict=True):
            np.testing.assert_allclose(got, value, atol=1e-6)


def test_the_output_head_alone_moves():
    """Weight decay and moments of the rest do not exist: its bits stay."""
    state, step = make(Optimizer(learning_rate=0.05, weight_decay=0.5), trainable="output_head", forcing=Direct())
    assert len([x for x in jax.tree.leaves(state.opt_state) if x.ndim]) == 2  # two moments of `head/w`
    after, _ = step(state, batch(WEIGHT))
    np.testing.assert_array_equal(after.params["x_embedder"]["b"], state.params["x_embedder"]["b"])
    assert (np.asarray(after.params["head"]["w"]) != np.asarray(state.params["head"]["w"])).all()


def test_given_segments_carry_no_loss():
    state, step = make(Optimizer(), given=2)
    _, metrics = step(state, batch([[1, 1, 1], [1, 1, 2]]))
    losses = np.asarray(metrics["loss_by_segment"])
    assert (losses[:2] == 0).all() and losses[2] > 0
    data = batch([[0, 0, 1], [0, 0, 2]])
    want, _ = loss_and_gradient(state.params, data, jax.random.fold_in(KEY, 0), 3.0)
    np.testing.assert_allclose(losses, want, rtol=1e-5)


def test_an_update_is_a_pure_function_and_its_noise_depends_on_the_step():
    state, step = make(Optimizer())
    data = batch(WEIGHT)
    first, again = step(state, data), step(state, data)
    for a, b in zip(jax.tree.leaves(first[0].params), jax.tree.leaves(again[0].params), strict=True):
        np.testing.assert_array_equal(a, b)
    _, later = step(state.replace(step=jnp.int32(1)), data)
    assert float(first[1]["loss"]) != float(later["loss"])
