"""Every memory learns, through time, to bring back what is in no history."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mpjax.data.batch import Batch
from mpjax.diffusion.flow import TimeDistribution
from mpjax.diffusion.forcing import Teacher
from mpjax.training.gradients import Objective, chain_gradients, chain_loss
from mpjax.training.trainable import partition
from tests.memories import KINDS
from tests.training import linear_denoiser
from tests.training.memory_denoiser import MemoryDenoiser

GIVEN, UPDATES = 3, 300


def videos(rng, count):
    """A video's sign is in its first segment, two of noise follow, and the fourth is the sign in every latent."""
    sign = rng.choice([-1.0, 1.0], (count, 1, 1, 1, 1, 1))
    noise = rng.normal(size=(count, 2, *linear_denoiser.SHAPE))
    first, last = (sign * np.ones((count, 1, *linear_denoiser.SHAPE)) for _ in range(2))
    return Batch(
        reference=jnp.zeros((count, 1, *linear_denoiser.SHAPE[1:])),
        segments=jnp.asarray(np.concatenate([first, noise, last], 1), jnp.float32),
        prompts=jnp.ones((count, 4, 4), jnp.int32),
        weight=jnp.asarray(np.tile([0.0] * GIVEN + [1.0], (count, 1)), jnp.float32),
    )


SLOW = [pytest.param(kind, marks=pytest.mark.slow) for kind in ("A", "B", "C", "first_segment", "long_window")]


@pytest.mark.parametrize("kind", ["mean_pool", "retrieval", *SLOW])
def test_a_memory_learns_what_no_history_shows(kind):
    """Velocity is w·x_t + b, and ψ. With x = ±1 and noise ε, E[x_t (x − ε)] = E[2t − 1] = 0: without ψ it costs 2."""
    denoiser = MemoryDenoiser(KINDS[kind])
    objective = Objective(denoiser=denoiser, forcing=Teacher(), time=TimeDistribution(), given=GIVEN)
    trainable, frozen = partition(denoiser.parameters(fresh=True), "all")
    optimizer, rng = optax.adam(3e-3), np.random.default_rng(0)
    state = optimizer.init(trainable)

    @jax.jit
    def step(trainable, state, batch, key):
        _, grads, _ = chain_gradients(objective, trainable, frozen, (), batch, key, batch.weight.sum())
        updates, state = optimizer.update(grads, state)
        return optax.apply_updates(trainable, updates), state

    for i in range(UPDATES):
        trainable, state = step(trainable, state, videos(rng, 32), jax.random.fold_in(jax.random.key(0), i))
    test = videos(rng, 512)
    loss = float(chain_loss(objective, trainable, test, jax.random.key(1)).sum())
    other = test.replace(segments=test.segments.at[:, 0].multiply(-1.0))
    misled = float(chain_loss(objective, trainable, other, jax.random.key(1)).sum())
    print(f"{kind}: loss {loss:.3f}, with the first segment turned {misled:.3f}")
    assert loss < 1.2 and misled > 2.5
