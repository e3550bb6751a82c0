"""History as an estimate of x_1 that the model makes from the noised truth.

The estimate of the paper's Eq. (7) needs a t. At the loss's own t it costs nothing, but near t = 0 it is poor; where
the t comes from is a choice of its own (`estimate`), and so is the number of Euler steps from there to the data.
"""

import dataclasses
from typing import ClassVar, Protocol

import jax
import jax.numpy as jnp

from mpjax.diffusion.flow import TimeDistribution, expand, interpolate
from mpjax.diffusion.forcing.base import (
    Carry,
    ForcingContext,
    RectifiedFlow,
    check_probability,
    to_data,
    where_read,
)
from mpjax.errors import InputError


class Estimate(Protocol):
    """Where the t of an estimate comes from."""

    kind: ClassVar[str]

    def forwards(self, steps: int) -> int:
        """Evaluations besides the loss's own."""

    def __call__(
        self,
        context: ForcingContext,
        key: jax.Array,
        x_1: jax.Array,
        x_t: jax.Array,
        v: jax.Array,
        t: jax.Array,
        steps: int,
    ) -> jax.Array:
        """The estimate of x_1, with gradient."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class LossTime:
    """At the loss's own t: its v makes the first step."""

    kind: ClassVar[str] = "loss"

    def forwards(self, steps: int) -> int:
        """The steps behind the first."""
        return steps - 1

    def __call__(
        self,
        context: ForcingContext,
        key: jax.Array,
        x_1: jax.Array,
        x_t: jax.Array,
        v: jax.Array,
        t: jax.Array,
        steps: int,
    ) -> jax.Array:
        """Eq. (7)."""
        del key, x_1
        return to_data(context, x_t, t, steps, v)


@dataclasses.dataclass(frozen=True, kw_only=True)
class LowNoise:
    """At the loss's own t where it is above `t_min`; videos at more noise keep the truth.

    Attributes:
        t_min: in [0, 1].
    """

    kind: ClassVar[str] = "low_noise"
    t_min: float = 0.3

    def __post_init__(self):
        check_probability("t_min", self.t_min)

    def forwards(self, steps: int) -> int:
        """The steps behind the first."""
        return steps - 1

    def __call__(
        self,
        context: ForcingContext,
        key: jax.Array,
        x_1: jax.Array,
        x_t: jax.Array,
        v: jax.Array,
        t: jax.Array,
        steps: int,
    ) -> jax.Array:
        """Eq. (7), or the truth."""
        del key
        return jnp.where(expand(t > self.t_min, x_1), to_data(context, x_t, t, steps, v), x_1)


@dataclasses.dataclass(frozen=True, kw_only=True)
class SeparateTime:
    """At a t of its own, with noise of its own: every step is an evaluation.

    Attributes:
        time: where that t is drawn.
    """

    kind: ClassVar[str] = "separate"
    time: TimeDistribution = TimeDistribution()

    def forwards(self, steps: int) -> int:
        """Every step."""
        return steps

    def __call__(
        self,
        context: ForcingContext,
        key: jax.Array,
        x_1: jax.Array,
        x_t: jax.Array,
        v: jax.Array,
        t: jax.Array,
        steps: int,
    ) -> jax.Array:
        """x_1 noised to the drawn t and denoised again."""
        del x_t, v, t
        key_t, key_noise = jax.random.split(key)
        t = self.time.sample(key_t, x_1.shape[0])
        return to_data(context, interpolate(x_1, jax.random.normal(key_noise, x_1.shape, x_1.dtype), t), t, steps)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Direct(RectifiedFlow):
    """Direct Forcing (the paper's stage 2): history is the one-step estimate x̃_1 of Eq. (7).

    By default it is taken from the v that was computed for the loss, at the loss's own t, and costs nothing extra.

    Attributes:
        estimate: where the t of the estimate comes from: `loss`, `low_noise` or `separate`.
        steps: Euler steps of the estimate; the paper's is 1.
        clean_mix: probability that a video keeps the truth instead, drawn for each segment.
    """

    kind: ClassVar[str] = "direct"
    estimate: LossTime | LowNoise | SeparateTime = LossTime()
    steps: int = 1
    clean_mix: float = 0.0

    def __post_init__(self):
        check_probability("clean_mix", self.clean_mix)
        if self.steps < 1:
            raise InputError(f"steps is {self.steps}: it must be at least 1")

    @property
    def forwards_per_segment(self) -> int:
        """The loss's own and those of the estimate."""
        return 1 + self.estimate.forwards(self.steps)

    def history(
        self, carry: Carry, context: ForcingContext, x_1: jax.Array, x_t: jax.Array, v: jax.Array, t: jax.Array
    ) -> tuple[jax.Array, Carry]:
        """x̃_1, detached."""
        key_estimate, key_mix = jax.random.split(context.key)
        x = estimated(self.estimate, context, key_estimate, x_1, x_t, v, t, self.steps)
        if self.clean_mix:
            clean = jax.random.bernoulli(key_mix, self.clean_mix, t.shape)
            x = jnp.where(expand(clean, x_1), x_1, x)
        return x, carry


@dataclasses.dataclass(frozen=True, kw_only=True)
class Resampling(RectifiedFlow):
    """Resampling Forcing (Guo et al. 2025, arXiv 2512.15702): history is the truth, noised to a drawn t and denoised.

    Attributes:
        time: where that t is drawn; a small one leaves more to the model.
        steps: Euler steps back to the data.
    """

    kind: ClassVar[str] = "resampling"
    time: TimeDistribution = TimeDistribution(name="logit_normal")
    steps: int = 2

    def __post_init__(self):
        if self.steps < 1:
            raise InputError(f"steps is {self.steps}: it must be at least 1")

    @property
    def forwards_per_segment(self) -> int:
        """The loss's own and one for each step."""
        return 1 + self.steps

    def history(
        self, carry: Carry, context: ForcingContext, x_1: jax.Array, x_t: jax.Array, v: jax.Array, t: jax.Array
    ) -> tuple[jax.Array, Carry]:
        """The truth as the model draws it again, detached."""
        return estimated(SeparateTime(time=self.time), context, context.key, x_1, x_t, v, t, self.steps), carry


def estimated(
    estimate: Estimate,
    context: ForcingContext,
    key: jax.Array,
    x_1: jax.Array,
    x_t: jax.Array,
    v: jax.Array,
    t: jax.Array,
    steps: int,
) -> jax.Array:
    """The estimate, detached; one that needs evaluations is made only where a later segment reads it."""

    def draw() -> jax.Array:
        return estimate(context, key, x_1, x_t, v, t, steps)

    return where_read(context, draw, x_1) if estimate.forwards(steps) else jax.lax.stop_gradient(draw())
