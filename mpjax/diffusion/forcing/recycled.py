"""Error recycling: residuals of earlier updates, kept in a bank and put into the history of other videos."""

import dataclasses
from typing import ClassVar

import flax.struct
import jax
import jax.numpy as jnp

from mpjax.diffusion.flow import expand, one_step_estimate
from mpjax.diffusion.forcing.base import Carry, ForcingContext, RectifiedFlow, back_to_data, check_probability
from mpjax.errors import InputError


class Bank(flax.struct.PyTreeNode):
    """Ring buffers of residuals, one for each interval of t.

    Attributes:
        residuals: `[intervals, size, f, h, w, c]`.
        written: how many each has received in all, int32 `[intervals]`.
    """

    residuals: jax.Array
    written: jax.Array

    def put(self, residuals: jax.Array, interval: jax.Array, keep: jax.Array) -> "Bank":
        """Writes residuals `[b, f, h, w, c]` into the rings `interval` `[b]` where `keep` `[b]`, in order."""
        intervals, size = self.residuals.shape[:2]
        mine = (interval[:, None] == jnp.arange(intervals)) & keep[:, None]
        number = (mine.cumsum(0) - mine)[jnp.arange(len(interval)), interval]  # among those of its ring
        count = mine.sum(0)
        # Of more than a ring holds only the last are written: the order of double writes is undefined.
        last = keep & (number >= count[interval] - size)
        slot = (self.written[interval] + number) % size
        kept = self.residuals.at[jnp.where(last, interval, intervals), slot].set(residuals, mode="drop")
        return Bank(residuals=kept, written=self.written + count)

    def draw(self, key: jax.Array, interval: jax.Array) -> jax.Array:
        """A residual for each video from its ring `interval` `[b]`, `[b, f, h, w, c]`; zeros from an empty one."""
        filled = jnp.minimum(self.written, self.residuals.shape[1])[interval]
        return self.residuals[interval, jax.random.randint(key, interval.shape, 0, filled.clip(1))]


@dataclasses.dataclass(frozen=True, kw_only=True)
class ErrorRecycling(RectifiedFlow):
    """Error-Recycling Fine-Tuning (Stable Video Infinity, Li et al. 2025, arXiv 2510.09212).

    Every loss gives the residual x̃_1 − x_1 of its one-step estimate, which the bank keeps by the interval of its t.
    History receives the truth and, with some probability, a residual drawn from the bank; the noisy input may receive
    one of its own t, with a target that leads back to x_1 (`residual`, Eqs. 1 and 3). The paper also recycles errors of
    the noise and of the reference picture, and replaces the most similar entry of a full bank; here the oldest goes.

    Attributes:
        size: residuals that the bank holds in each interval.
        intervals: equal intervals of t; history draws from all alike.
        probability: that a video's segment enters history with a residual.
        input_probability: that its noisy input has one; 0 keeps teacher forcing's input.
        floor: of the target's denominator, in (0, 1].
    """

    kind: ClassVar[str] = "error_recycling"
    size: int = 64
    intervals: int = 4
    probability: float = 0.5
    input_probability: float = 0.0
    floor: float = 0.1

    def __post_init__(self):
        check_probability("probability", self.probability)
        check_probability("input_probability", self.input_probability)
        if self.size < 1 or self.intervals < 1:
            raise InputError(f"size {self.size} and intervals {self.intervals} must be at least 1")
        if not 0 < self.floor <= 1:
            raise InputError(f"floor is {self.floor}: it must lie in (0, 1]")

    def init(self, shape: tuple[int, ...]) -> Carry:
        """An empty bank."""
        bank = jnp.zeros((self.intervals, self.size, *shape[2:]))
        return Bank(residuals=bank, written=jnp.zeros(self.intervals, jnp.int32))

    def _interval(self, t: jax.Array) -> jax.Array:
        return jnp.minimum((t * self.intervals).astype(jnp.int32), self.intervals - 1)

    def inputs(
        self, carry: Carry, context: ForcingContext, x_1: jax.Array, t: jax.Array, noise: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        """Those of teacher forcing, or with an error of the same interval of t."""
        if not self.input_probability:
            return super().inputs(carry, context, x_1, t, noise)
        key_error, key_use = jax.random.split(jax.random.fold_in(context.key, 0))
        use = jax.random.bernoulli(key_use, self.input_probability, t.shape)
        error = jnp.where(expand(use, x_1), carry.draw(key_error, self._interval(t)), 0.0)
        return back_to_data(x_1, error, noise, t, self.floor)

    def history(
        self, carry: Carry, context: ForcingContext, x_1: jax.Array, x_t: jax.Array, v: jax.Array, t: jax.Array
    ) -> tuple[jax.Array, Carry]:
        """The truth, or with a residual of the bank as it was; then the bank with this segment's."""
        key_error, key_use, key_interval = jax.random.split(jax.random.fold_in(context.key, 1), 3)
        interval = jax.random.randint(key_interval, t.shape, 0, self.intervals)
        use = jax.random.bernoulli(key_use, self.probability, t.shape)
        error = jnp.where(expand(use, x_1), carry.draw(key_error, interval), 0.0)
        residual = jax.lax.stop_gradient(one_step_estimate(x_t, v, t)) - x_1
        return x_1 + error, carry.put(residual, self._interval(t), context.trained)
