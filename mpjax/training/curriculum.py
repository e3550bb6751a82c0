"""Stages of a run, and the number of segments a video may have at each step."""

import dataclasses

from mpjax.diffusion.flow import TimeDistribution
from mpjax.diffusion.forcing import AnyForcing, Teacher
from mpjax.errors import InputError
from mpjax.training.optimizer import Optimizer
from mpjax.training.trainable import TRAINABLE_SETS


@dataclasses.dataclass(frozen=True, kw_only=True)
class Stage:
    """One stage: a forcing, a trainable set and an optimizer for a number of updates.

    Attributes:
        steps: updates.
        forcing: where history comes from (`diffusion.forcing`).
        trainable: name of the trainable set (`training.trainable`).
        optimizer: starts afresh with the stage.
        time: where t is drawn.
        curriculum: (from update of this stage, segments) pairs in rising order; the first starts at 0. The paper goes
            from single-segment videos to full autoregression.
        bptt_depth: updates of ψ a gradient passes through; None is all.
        given: first segments of each video that are given, not trained.
        repeat: updates in a row that see the same batch, with other t and noise; it changes the order of the data for
            every forcing alike, and `echo` needs at least 2.
    """

    steps: int
    forcing: AnyForcing = Teacher()
    trainable: str = "all"
    optimizer: Optimizer = Optimizer()
    time: TimeDistribution = TimeDistribution()
    curriculum: tuple[tuple[int, int], ...]
    bptt_depth: int | None = None
    given: int = 0
    repeat: int = 1

    def __post_init__(self):
        starts = [start for start, _ in self.curriculum]
        if not starts or starts[0] != 0 or sorted(set(starts)) != starts:
            raise InputError(
                f"curriculum is {self.curriculum}: (update, segments) pairs, the first at update 0, rising"
            )
        if min(segments for _, segments in self.curriculum) <= self.given:
            raise InputError(
                f"curriculum is {self.curriculum}: every entry needs more than the {self.given} given segments"
            )
        if self.trainable not in TRAINABLE_SETS:
            raise InputError(f"trainable is {self.trainable!r}: it must be one of {', '.join(TRAINABLE_SETS)}")
        if self.steps < 1 or self.given < 0 or (self.bptt_depth is not None and self.bptt_depth < 0):
            raise InputError("steps must be at least 1, given and bptt_depth at least 0")
        if self.repeat < self.forcing.least_repeat:
            raise InputError(
                f"repeat is {self.repeat}: it must be at least {self.forcing.least_repeat} with "
                f"forcing {self.forcing.kind}"
            )


def stage_at(stages: tuple[Stage, ...], step: int) -> tuple[int, int]:
    """(index of the stage that makes update `step`, its first update); the last stage after the end."""
    first = 0
    for index, stage in enumerate(stages):
        if step < first + stage.steps:
            return index, first
        first += stage.steps
    return len(stages) - 1, first - stages[-1].steps


def segments_at(stages: tuple[Stage, ...], step: int) -> int:
    """Segments a video may have at update `step`."""
    index, first = stage_at(stages, step)
    return max((start, segments) for start, segments in stages[index].curriculum if start <= step - first)[1]


def batch_at(stages: tuple[Stage, ...], step: int) -> int:
    """The batch of update `step`: `repeat` updates in a row see that of the first of them."""
    index, first = stage_at(stages, step)
    return step - (step - first) % stages[index].repeat


def total_steps(stages: tuple[Stage, ...]) -> int:
    """Updates of the whole run."""
    return sum(stage.steps for stage in stages)
