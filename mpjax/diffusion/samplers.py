"""ODE samplers from noise (t = 0) to data (t = 1). A network is a function velocity(x `[b, …]`, t `[b]`) → `[b, …]`."""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from mpjax.diffusion.flow import shift_sigma
from mpjax.errors import InputError

Velocity = Callable[[jax.Array, jax.Array], jax.Array]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Euler:
    """Euler steps on the shifted time grid (diffusers `FlowMatchEulerDiscreteScheduler`, sigmas = linspace(1, 0)).

    Attributes:
        steps: network evaluations.
        shift: Eq. (a) of `flow`; above 1 spends more steps at high noise.
    """

    steps: int = 25
    shift: float = 1.0

    def __post_init__(self):
        if self.steps < 1 or self.shift <= 0:
            raise InputError(f"steps {self.steps} must be at least 1 and shift {self.shift} above 0")

    def times(self) -> np.ndarray:
        """The grid t_0 = 0 < … < t_steps = 1, float32 `[steps + 1]`."""
        sigma = np.linspace(1.0, 0.0, self.steps + 1)
        return np.asarray(1.0 - shift_sigma(sigma, self.shift), np.float32)

    def sample(self, velocity: Velocity, noise: jax.Array) -> jax.Array:
        """Integrates from noise `[b, …]` at t = 0 to the data at t = 1."""

        def step(x: jax.Array, interval: jax.Array) -> tuple[jax.Array, None]:
            t, t_next = interval
            return x + (t_next - t) * velocity(x, jnp.full(x.shape[:1], t)), None

        times = jnp.asarray(self.times())
        x, _ = jax.lax.scan(step, noise, jnp.stack([times[:-1], times[1:]], -1))
        return x
