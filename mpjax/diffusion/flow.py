"""Rectified flow, data at t = 1 and noise at t = 0 (paper, Eqs. 3 to 7).

    (3) x_t = t·x + (1 − t)·ε
    (4) u_t = dx_t/dt = x − ε
    (5) L   = E ‖v(x_t, t) − u_t‖²
    (7) x̃_1 = x_t + (1 − t)·v(x_t, t)      one Euler step to the data; exact where v = u_t

FramePack and HunyuanVideo count noise instead: σ = 1 − t. A *shift* s moves a schedule towards noise:

    (a) σ' = s·σ / (1 + (s − 1)·σ)

which is the identity at s = 1 and keeps 0 and 1 in place.
"""

import dataclasses
from typing import Any

import jax

from mpjax.errors import InputError

TIME_DISTRIBUTIONS = ("uniform", "logit_normal")


@dataclasses.dataclass(frozen=True, kw_only=True)
class TimeDistribution:
    """Where training draws t.

    Attributes:
        name: `uniform`, or `logit_normal`: σ = sigmoid(mean + std·z), z ~ N(0, 1).
        mean, std: of the logit of σ; read by `logit_normal` only.
        shift: Eq. (a); 1 changes nothing, larger values train more at high noise.
    """

    name: str = "uniform"
    mean: float = 0.0
    std: float = 1.0
    shift: float = 1.0

    def __post_init__(self):
        if self.name not in TIME_DISTRIBUTIONS:
            raise InputError(f"name is {self.name!r}: it must be one of {', '.join(TIME_DISTRIBUTIONS)}")
        if self.shift <= 0 or self.std <= 0:
            raise InputError(f"shift {self.shift} and std {self.std} must both be above 0")

    def sample(self, key: jax.Array, batch: int) -> jax.Array:
        """Draws t, float32 `[batch]` in [0, 1]."""
        if self.name == "uniform":
            sigma = jax.random.uniform(key, (batch,))
        else:
            sigma = jax.nn.sigmoid(self.mean + self.std * jax.random.normal(key, (batch,)))
        return 1.0 - shift_sigma(sigma, self.shift)


def shift_sigma(sigma: Any, shift: float) -> Any:
    """Eq. (a), elementwise, for a number, a numpy or a jax array."""
    return shift * sigma / (1.0 + (shift - 1.0) * sigma)


def expand(t: jax.Array, like: jax.Array) -> jax.Array:
    """`[b]` → `[b, 1, …]` with as many axes as `like`."""
    return t.reshape(t.shape + (1,) * (like.ndim - t.ndim))


def interpolate(x_1: jax.Array, noise: jax.Array, t: jax.Array) -> jax.Array:
    """x_t of Eq. (3); x_1 and noise `[b, …]`, t `[b]`."""
    t = expand(t, x_1)
    return t * x_1 + (1.0 - t) * noise


def target_velocity(x_1: jax.Array, noise: jax.Array) -> jax.Array:
    """u_t of Eq. (4)."""
    return x_1 - noise


def one_step_estimate(x_t: jax.Array, velocity: jax.Array, t: jax.Array) -> jax.Array:
    """x̃_1 of Eq. (7); x_t and velocity `[b, …]`, t `[b]`."""
    return x_t + (1.0 - expand(t, x_t)) * velocity
