"""Residual forcing: the model's own error in the noisy input and in the history, and a target that removes it.

In a rollout the errors of the past are copied into the segment that is being drawn, so x_t itself carries them. Teacher
and Direct Forcing never show that: the truth can be read off their x_t. Here an error e = c·r does enter x_t, and the
target leads to the truth all the same. r is a residual, x̃_1 − x_1 with x̃_1 the one-step estimate of Eq. (7) of `flow`.

    (1) x_t = t·(x_1 + e) + (1 − t)·ε                          Eq. (3) of `flow` towards x_1 + e
    (2) u   = (x_1 − x_t)/(1 − t) = (x_1 − ε) − e·t/(1 − t)      the straight way from x_t to x_1

since x_1 − x_t = (1 − t)·(x_1 − ε) − t·e. Following u for the time 1 − t that is left gives x_t + (1 − t)·u = x_1,
whatever e is. Near the data the second term is without bound, so its denominator has a floor f:

    (3) target = (x_1 − ε) − e·t/max(1 − t, f)
    (4) x_t + (1 − t)·target = x_1 + e·t·(1 − (1 − t)/max(1 − t, f))

which is x_1 wherever 1 − t ≥ f. Beyond, the share (1 − t)/f of the error is still removed, and the rest, at most |e|,
stays; the correction never exceeds |e|/f. For e = 0 these are Eqs. (3) and (4) of `flow`.

The residual that follows, from the v of the loss and so without a further evaluation, and what history receives:

    (5) r' = x_t + (1 − t)·v − x_1 + γ·r,      history = x_1 + r'

Whose residual r is tells the two arms apart, the segment's before (`Residual`) or its own (`Echo`). A segment that
starts a chain has r = 0 in Eqs. (1) to (5): nothing in front of it was generated.

No paper has it; it is nearest to Direct Forcing (Eq. 5) and to the error-recycled velocity of Stable Video Infinity
(arXiv 2510.09212), whose errors come from a bank instead (`recycled`).
"""

import dataclasses
from typing import ClassVar

import flax.struct
import jax
import jax.numpy as jnp

from mpjax.diffusion.flow import expand, interpolate, one_step_estimate, target_velocity
from mpjax.diffusion.forcing.base import Carry, ForcingContext, back_to_data, check_probability
from mpjax.diffusion.forcing.estimated import LossTime, SeparateTime, estimated
from mpjax.errors import InputError


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Residual:
    """Fields and inputs of both arms.

    Attributes:
        scale: c.
        in_input: whether the error enters x_t and the target; without, they are those of teacher forcing.
        in_history: whether the residual enters history; without, it is the truth.
        entry: whether the residual of a segment that starts a chain is used; without, it counts as 0. Leave it out
            where that segment brings something new into the picture: a one-step estimate near t = 0 cannot show it.
        floor: f, in (0, 1].
        carry_over: γ, the share of the residual that stays in the next one, in [0, 1].
    """

    carry_by_video: ClassVar[bool] = True
    least_repeat: ClassVar[int] = 1
    scale: float = 2.0
    in_input: bool = True
    in_history: bool = True
    entry: bool = True
    floor: float = 0.1
    carry_over: float = 0.0

    def __post_init__(self):
        check_probability("carry_over", self.carry_over)
        if self.scale < 0:
            raise InputError(f"scale is {self.scale}: it must be at least 0")
        if not 0 < self.floor <= 1:
            raise InputError(f"floor is {self.floor}: it must lie in (0, 1]")

    @property
    def forwards_per_segment(self) -> int:
        """The loss's own."""
        return 1

    def _before(self, residual: jax.Array, context: ForcingContext) -> jax.Array:
        """r, 0 where a chain starts."""
        return jnp.where(expand(context.starts_chain, residual), 0.0, residual)

    def _inputs(self, before: jax.Array, x_1: jax.Array, t: jax.Array, noise: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Eqs. (1) and (3)."""
        if not self.in_input:
            return interpolate(x_1, noise, t), target_velocity(x_1, noise)
        return back_to_data(x_1, self.scale * before, noise, t, self.floor)

    def _history(self, residual: jax.Array, x_1: jax.Array) -> jax.Array:
        return x_1 + residual if self.in_history else x_1

    def _next(self, residual: jax.Array, before: jax.Array, context: ForcingContext) -> jax.Array:
        """r', 0 at a chain's start unless the entry takes part."""
        residual = residual + self.carry_over * before
        return residual if self.entry else jnp.where(expand(context.starts_chain, residual), 0.0, residual)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Residual(_Residual):
    """Residual forcing along the chain: e is made from the residual of the segment before, in the same update.

    The carry is that residual, `[b, f, h, w, c]`.

    Attributes:
        estimate: where the t of x̃_1 comes from: `loss`, or `separate`, which costs an evaluation (`estimated`).
    """

    kind: ClassVar[str] = "residual"
    estimate: LossTime | SeparateTime = LossTime()

    @property
    def forwards_per_segment(self) -> int:
        """The loss's own and that of a separate estimate."""
        return 1 + self.estimate.forwards(1)

    def init(self, shape: tuple[int, ...]) -> Carry:
        """No residual yet."""
        return jnp.zeros((shape[0], *shape[2:]))

    def inputs(
        self, carry: Carry, context: ForcingContext, x_1: jax.Array, t: jax.Array, noise: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        """Eqs. (1) and (3)."""
        return self._inputs(self._before(carry, context), x_1, t, noise)

    def history(
        self, carry: Carry, context: ForcingContext, x_1: jax.Array, x_t: jax.Array, v: jax.Array, t: jax.Array
    ) -> tuple[jax.Array, Carry]:
        """Eq. (5), detached."""
        before = self._before(carry, context)
        disturbed = x_1 + self.scale * before if self.in_input else x_1
        x = estimated(self.estimate, context, context.key, disturbed, x_t, v, t, 1)
        residual = self._next(x - x_1, before, context)
        return self._history(residual, x_1), residual


class Sights(flax.struct.PyTreeNode):
    """What a batch left at the update before.

    Attributes:
        residuals: r of every segment, `[b, s, f, h, w, c]`.
        seen: bool `[b, s]`, there was such an update.
    """

    residuals: jax.Array
    seen: jax.Array


@dataclasses.dataclass(frozen=True, kw_only=True)
class Echo(_Residual):
    """Residual forcing with a segment's own residual, from the update before on the same batch.

    Each batch must be shown several updates in a row (`Stage.repeat`). The first is Direct Forcing: history receives
    x̃_1, so that r_n is what the model makes of a history with the errors r_1, …, r_{n−1}. The next plays that chain
    again: history receives x_1 + r of the update before, and the error in x_t is the one that this very history led to.
    It lines up with x_1 however the picture moves. Eq. (5) gives the residuals of the update that follows.
    """

    kind: ClassVar[str] = "echo"
    least_repeat: ClassVar[int] = 2

    def init(self, shape: tuple[int, ...]) -> Sights:
        """Nothing seen yet."""
        return Sights(residuals=jnp.zeros(shape), seen=jnp.zeros(shape[:2], bool))

    def inputs(
        self, carry: Sights, context: ForcingContext, x_1: jax.Array, t: jax.Array, noise: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        """Eqs. (1) and (3)."""
        return self._inputs(self._before(carry.residuals[:, context.index], context), x_1, t, noise)

    def history(
        self, carry: Sights, context: ForcingContext, x_1: jax.Array, x_t: jax.Array, v: jax.Array, t: jax.Array
    ) -> tuple[jax.Array, Sights]:
        """x̃_1 at first sight, then x_1 + r of the update before; and Eq. (5), detached."""
        n = context.index
        own = carry.residuals[:, n]
        x = jax.lax.stop_gradient(one_step_estimate(x_t, v, t))
        following = self._next(x - x_1, self._before(own, context), context)
        drawn = self._history(jnp.where(expand(carry.seen[:, n], own), own, following), x_1)
        return drawn, Sights(residuals=carry.residuals.at[:, n].set(following), seen=carry.seen.at[:, n].set(True))
