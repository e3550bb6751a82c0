"""The two ends: history as the truth, and history as the model draws it."""

import dataclasses
from typing import ClassVar

import jax

from mpjax.diffusion.forcing.base import Carry, ForcingContext, RectifiedFlow, where_read
from mpjax.diffusion.samplers import Euler
from mpjax.errors import InputError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Teacher(RectifiedFlow):
    """Teacher Forcing: history is the truth (the paper's stage 1)."""

    kind: ClassVar[str] = "teacher"

    def history(
        self, carry: Carry, context: ForcingContext, x_1: jax.Array, x_t: jax.Array, v: jax.Array, t: jax.Array
    ) -> tuple[jax.Array, Carry]:
        """The truth."""
        del context, x_t, v, t
        return x_1, carry


@dataclasses.dataclass(frozen=True, kw_only=True)
class Student(RectifiedFlow):
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
        """A sample from fresh noise."""
        del x_t, v, t

        def sample() -> jax.Array:
            noise = jax.random.normal(context.key, x_1.shape, x_1.dtype)
            return Euler(steps=self.steps, shift=self.shift).sample(context.denoise, noise)

        return where_read(context, sample, x_1), carry
