"""Forcing: where a segment's history comes from in training.

Teacher forcing feeds the truth; inference feeds what the model drew. The arms differ only in the segment that enters
history and memory after each loss, so each is one frozen dataclass with two methods, called once per segment:

    inputs(carry, context, x_1, t, noise)      → (x_t, target)                   before the network
    history(carry, context, x_1, x_t, v, t)    → (segment for history, carry)    after it, with the loss's own v

An arm that never calls `context.denoise` costs what teacher forcing costs. `carry` starts as `init(shape)` and outlives
an update: it is part of the training state. Nothing an arm returns carries gradient; ψ is the only link through time.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, ClassVar, Protocol

import flax.struct
import jax

from mpjax.diffusion.flow import interpolate, one_step_estimate, target_velocity
from mpjax.diffusion.samplers import Euler
from mpjax.errors import InputError

Carry = Any


class ForcingContext(flax.struct.PyTreeNode):
    """What an arm may use besides the tensors of the loss.

    Attributes:
        key: random key of this update and segment.
        index: segment index, int32 scalar.
        starts_chain: bool `[b]`, the segment before this one was given, not generated.
        later: bool scalar, a later segment of the batch has a loss and so reads this one as history.
        denoise: velocity(x, t) of the current network for this segment, closed over its history, memory and
            conditioning, without gradient.
    """

    key: jax.Array
    index: jax.Array
    starts_chain: jax.Array
    later: jax.Array
    denoise: Callable[[jax.Array, jax.Array], jax.Array] = flax.struct.field(pytree_node=False)


class Forcing(Protocol):
    """An arm."""

    kind: ClassVar[str]

    @property
    def forwards_per_segment(self) -> int:
        """Denoiser evaluations for one segment with loss, the loss's own included."""

    def init(self, shape: tuple[int, ...]) -> Carry:
        """The carry before the first update, for segments of this shape `[b, f, h, w, c]`."""

    def inputs(
        self, carry: Carry, context: ForcingContext, x_1: jax.Array, t: jax.Array, noise: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        """Noisy input and regression target for a segment x_1 `[b, f, h, w, c]` at t `[b]`."""

    def history(
        self, carry: Carry, context: ForcingContext, x_1: jax.Array, x_t: jax.Array, v: jax.Array, t: jax.Array
    ) -> tuple[jax.Array, Carry]:
        """The segment `[b, f, h, w, c]` that history and memory receive, and the next carry."""


class _RectifiedFlow:
    """Inputs of Eqs. (3) and (4), one forward, no carry: what the plain arms share."""

    @property
    def forwards_per_segment(self) -> int:
        """The loss's own."""
        return 1

    def init(self, shape: tuple[int, ...]) -> Carry:
        """Nothing outlives an update."""
        del shape
        return ()

    def inputs(
        self, carry: Carry, context: ForcingContext, x_1: jax.Array, t: jax.Array, noise: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        """x_t and u_t of the paper's Eqs. (3) and (4)."""
        del carry, context
        return interpolate(x_1, noise, t), target_velocity(x_1, noise)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Teacher(_RectifiedFlow):
    """Teacher Forcing: history is the truth (the paper's stage 1)."""

    kind: ClassVar[str] = "teacher"

    def history(
        self, carry: Carry, context: ForcingContext, x_1: jax.Array, x_t: jax.Array, v: jax.Array, t: jax.Array
    ) -> tuple[jax.Array, Carry]:
        """The truth."""
        del context, x_t, v, t
        return x_1, carry


@dataclasses.dataclass(frozen=True, kw_only=True)
class Direct(_RectifiedFlow):
    """Direct Forcing (the paper's stage 2): history is the one-step estimate x̃_1 of Eq. (7).

    It is taken from the v that was computed for the loss, at the loss's own t, so it costs nothing extra.
    """

    kind: ClassVar[str] = "direct"

    def history(
        self, carry: Carry, context: ForcingContext, x_1: jax.Array, x_t: jax.Array, v: jax.Array, t: jax.Array
    ) -> tuple[jax.Array, Carry]:
        """x̃_1, detached."""
        del context, x_1
        return jax.lax.stop_gradient(one_step_estimate(x_t, v, t)), carry


@dataclasses.dataclass(frozen=True, kw_only=True)
class Student(_RectifiedFlow):
    """Student Forcing (the paper's baseline): history is a real sample, drawn with `steps` Euler steps.

    Attributes:
        steps: Euler steps; the paper uses 5.
        shift: time shift of the sampler.
    """

    kind: ClassVar[str] = "student"
    steps: int = 5
    shift: float = 1.0

    def __post_init__(self):
        if self.steps < 1 or self.shift <= 0:
            raise InputError(f"steps {self.steps} must be at least 1 and shift {self.shift} above 0")

    @property
    def forwards_per_segment(self) -> int:
        """The loss's own and one for each sampler step."""
        return 1 + self.steps

    def history(
        self, carry: Carry, context: ForcingContext, x_1: jax.Array, x_t: jax.Array, v: jax.Array, t: jax.Array
    ) -> tuple[jax.Array, Carry]:
        """A sample from fresh noise, detached; the truth where nothing reads it."""
        del x_t, v, t

        def sample() -> jax.Array:
            noise = jax.random.normal(context.key, x_1.shape, x_1.dtype)
            return Euler(steps=self.steps, shift=self.shift).sample(context.denoise, noise)

        return jax.lax.stop_gradient(jax.lax.cond(context.later, sample, lambda: x_1)), carry
