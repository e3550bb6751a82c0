"""What a forcing is, and what the arms share.

Teacher forcing feeds the truth; inference feeds what the model drew. An arm decides what enters history and memory
after each loss, and may disturb the noisy input in front of it. Each is one frozen dataclass with two methods, called
once a segment:

    inputs(carry, context, x_1, t, noise)      → (x_t, target)                   before the network
    history(carry, context, x_1, x_t, v, t)    → (segment for history, carry)    after it, with the loss's own v

An arm that never calls `context.denoise` costs what teacher forcing costs. `carry` starts as `init(shape)` and outlives
an update: it is part of the training state. Nothing an arm returns carries gradient; ψ is the only link through time.
"""

from collections.abc import Callable
from typing import Any, ClassVar, Protocol

import flax.struct
import jax

from mpjax.diffusion.flow import expand, interpolate, target_velocity
from mpjax.errors import InputError

Carry = Any


class ForcingContext(flax.struct.PyTreeNode):
    """What an arm may use besides the tensors of the loss.

    Attributes:
        key: random key of this update and segment.
        index: segment index, int32 scalar.
        starts_chain: bool `[b]`, the segment before this one was given, not generated.
        trained: bool `[b]`, this segment of the video has a loss; elsewhere it is given, or padding.
        later: bool scalar, a later segment of the batch has a loss and so reads this one as history.
        denoise: velocity(x, t) of the current network for this segment, closed over its history, memory and
            conditioning, without gradient.
    """

    key: jax.Array
    index: jax.Array
    starts_chain: jax.Array
    trained: jax.Array
    later: jax.Array
    denoise: Callable[[jax.Array, jax.Array], jax.Array] = flax.struct.field(pytree_node=False)


class Forcing(Protocol):
    """An arm.

    Attributes:
        kind: its name in a config.
        carry_by_video: the carry belongs to the videos of a batch: its leaves are `[b, …]`, they are split and sharded
            with the batch, and start anew when other videos come. Otherwise it passes on from batch to batch.
        least_repeat: updates in a row that must see the same batch.
    """

    kind: ClassVar[str]
    carry_by_video: ClassVar[bool]
    least_repeat: ClassVar[int]

    @property
    def forwards_per_segment(self) -> int:
        """Denoiser evaluations for one segment with loss that a later one reads, the loss's own included."""

    def init(self, shape: tuple[int, ...]) -> Carry:
        """The carry before the first update, for batches of segments of this shape, `[b, s, f, h, w, c]`."""

    def inputs(
        self, carry: Carry, context: ForcingContext, x_1: jax.Array, t: jax.Array, noise: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        """Noisy input and regression target for a segment x_1 `[b, f, h, w, c]` at t `[b]`."""

    def history(
        self, carry: Carry, context: ForcingContext, x_1: jax.Array, x_t: jax.Array, v: jax.Array, t: jax.Array
    ) -> tuple[jax.Array, Carry]:
        """The segment `[b, f, h, w, c]` that history and memory receive, and the next carry."""


class RectifiedFlow:
    """Inputs of Eqs. (3) and (4) of `flow`, one forward, no carry: what most arms share."""

    carry_by_video: ClassVar[bool] = False
    least_repeat: ClassVar[int] = 1

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


def where_read(context: ForcingContext, draw: Callable[[], jax.Array], x_1: jax.Array) -> jax.Array:
    """`draw()`, detached, in front of a later segment with a loss; where nothing reads it, the truth for nothing."""
    return jax.lax.stop_gradient(jax.lax.cond(context.later, draw, lambda: x_1))


def to_data(
    context: ForcingContext, x_t: jax.Array, t: jax.Array, steps: int, velocity: jax.Array | None = None
) -> jax.Array:
    """Euler steps of equal size from x_t `[b, …]` at t `[b]` to the data.

    Args:
        context: evaluates the network.
        x_t, t: where to begin; each video has its own t.
        steps: how many.
        velocity: of the first step, where it is known; it saves an evaluation.
    """
    step = (1.0 - t) / steps
    for n in range(steps):
        v = velocity if n == 0 and velocity is not None else context.denoise(x_t, t + n * step)
        x_t = x_t + expand(step, x_t) * v
    return x_t


def back_to_data(
    x_1: jax.Array, error: jax.Array, noise: jax.Array, t: jax.Array, floor: float
) -> tuple[jax.Array, jax.Array]:
    """Noisy input with an error and the target that leads back to x_1: Eqs. (1) and (3) of `residual`."""
    correction = expand(t / (1.0 - t).clip(floor), x_1) * error
    return interpolate(x_1 + error, noise, t), target_velocity(x_1, noise) - correction


def check_range(name: str, value: tuple[float, float], least: float, most: float) -> None:
    """Refuses a range that is not rising within [least, most]."""
    if not least <= value[0] <= value[1] <= most:
        raise InputError(f"{name} is {value}: it must be a rising range within [{least:g}, {most:g}]")


def check_probability(name: str, value: float) -> None:
    """Refuses what is no probability."""
    if not 0 <= value <= 1:
        raise InputError(f"{name} is {value}: it must lie in [0, 1]")
