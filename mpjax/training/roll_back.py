"""The way back of `training.nonfinite.RollBack`."""

import itertools
from collections.abc import Sequence

import jax.numpy as jnp

from mpjax.training.checkpoints import Checkpoints
from mpjax.training.curriculum import Stage, stage_at
from mpjax.training.nonfinite import Faults
from mpjax.training.state import StateFactory, TrainState


def last_scheduled(kept: Sequence[int], stages: tuple[Stage, ...], every: int) -> int:
    """The last step that the schedule saved: every `every` updates and at the ends of stages.

    One that a signal left between them would make the result depend on when the signal came; it serves where no other
    is kept. All processes choose the same: the older step that only the first one may list (`Checkpoints.steps`) comes
    into question behind no save but a signal's, and that one ends the run.
    """
    ends = {0, *itertools.accumulate(stage.steps for stage in stages)}
    return max([s for s in kept if s % every == 0 or s in ends] or kept)


def last_good(
    checkpoints: Checkpoints, factory: StateFactory, stages: tuple[Stage, ...], every: int, faults: Faults
) -> tuple[TrainState, int]:
    """The state to go on from behind the bad update `faults.first`, and the step whose weights it has.

    Args:
        checkpoints: of the run; all of them lie before the bad update.
        factory: makes the states of the run.
        stages: of the run.
        every: updates between checkpoints.
        faults: of the state that goes, on the host.
    """
    checkpoints.wait()
    bad = int(faults.first)
    step = last_scheduled(checkpoints.steps(), stages, every)
    state = checkpoints.restore(step, factory.abstract(stages[stage_at(stages, max(step - 1, 0))[0]]))
    index, first = stage_at(stages, bad - 1)
    if index and step == first:
        state = factory.enter(stages[index], state)
    assert state.faults is not None
    again = state.faults.replace(
        skipped=jnp.full_like(state.faults.skipped, int(faults.skipped)),
        rolled_back=jnp.full_like(state.faults.rolled_back, int(faults.rolled_back) + 1),
    )
    return state.replace(step=state.step + (bad - step), faults=again), step
