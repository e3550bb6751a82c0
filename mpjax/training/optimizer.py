"""The Optax transformation of a stage, from config fields."""

import dataclasses

import optax

from mpjax.errors import InputError

DECAYS = ("constant", "cosine", "linear")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Optimizer:
    """AdamW with warm-up, decay and global-norm clipping.

    Attributes:
        learning_rate: peak.
        warmup_steps: linear from 0 to the peak.
        decay: `constant`, or `cosine` or `linear` from the end of the warm-up to `final_fraction` of the peak.
        final_fraction: learning rate at the end of the stage over the peak.
        b1, b2, epsilon, weight_decay: AdamW's.
        clip_norm: largest global gradient norm.
    """

    learning_rate: float = 1e-5
    warmup_steps: int = 0
    decay: str = "constant"
    final_fraction: float = 0.0
    b1: float = 0.9
    b2: float = 0.999
    epsilon: float = 1e-8
    weight_decay: float = 0.0
    clip_norm: float = 1.0

    def __post_init__(self):
        if self.decay not in DECAYS:
            raise InputError(f"decay is {self.decay!r}: it must be one of {', '.join(DECAYS)}")
        if self.learning_rate <= 0 or self.clip_norm <= 0 or self.warmup_steps < 0:
            raise InputError("learning_rate and clip_norm must be above 0 and warmup_steps at least 0")

    def schedule(self, steps: int) -> optax.Schedule:
        """Learning rate by update of a stage of `steps` updates."""
        rest = max(steps - self.warmup_steps, 1)
        if self.decay == "cosine":
            tail = optax.cosine_decay_schedule(self.learning_rate, rest, self.final_fraction)
        else:
            end = self.learning_rate * (self.final_fraction if self.decay == "linear" else 1.0)
            tail = optax.linear_schedule(self.learning_rate, end, rest)
        if not self.warmup_steps:
            return tail
        # The first update of the warm-up already moves: 0 would waste it.
        rise = optax.linear_schedule(self.learning_rate / self.warmup_steps, self.learning_rate, self.warmup_steps)
        return optax.join_schedules([rise, tail], [self.warmup_steps])

    def transformation(self, steps: int) -> optax.GradientTransformation:
        """The Optax chain for a stage of `steps` updates."""
        return optax.chain(
            optax.clip_by_global_norm(self.clip_norm),
            optax.adamw(self.schedule(steps), b1=self.b1, b2=self.b2, eps=self.epsilon, weight_decay=self.weight_decay),
        )
