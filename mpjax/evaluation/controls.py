"""Controls of a recall evaluation: each changes one thing whose effect is known beforehand.

A recall above chance can have other reasons than memory, and one at chance other reasons than its absence. A control
takes one reason away, or puts one in, and says what must follow.
"""

import dataclasses
from collections.abc import Sequence
from typing import ClassVar, Protocol

import jax
import jax.numpy as jnp

from mpjax.data.recallworld.world import World
from mpjax.errors import InputError
from mpjax.models.autoregressive import VideoState
from mpjax.models.memorypack import Prompts


class Control(Protocol):
    """What an evaluation changes; all of it pure, and static under jit.

    Attributes:
        kind: its name.
        expects: what must follow.
    """

    @property
    def kind(self) -> str:
        """See above."""
        ...

    @property
    def expects(self) -> str:
        """See above."""
        ...

    def world(self, world: World) -> World:
        """The world that clips are drawn from.

        Raises:
            InputError: the control does not exist in this world.
        """
        ...

    def gaps(self, world: World, gaps: Sequence[int]) -> tuple[int, ...]:
        """The gaps that are looked at.

        Raises:
            InputError: none is left.
        """
        ...

    def start(self, state: VideoState) -> VideoState:
        """The state before the first segment."""
        ...

    def before(self, state: VideoState, start: VideoState, segment: jax.Array, returning: jax.Array) -> VideoState:
        """The state before a segment; `start` is that before the first one, `returning` the segment of the return."""
        ...

    def prompts(self, prompts: Prompts) -> Prompts:
        """The prompts of the return, `[b, …]`."""
        ...

    def met(self, report: dict) -> bool | None:
        """Whether what must follow did, from a `recall_report`; None where nothing is predicted."""
        ...


@dataclasses.dataclass(frozen=True, kw_only=True)
class NoControl:
    """Nothing is changed."""

    kind: ClassVar[str] = "none"
    expects: ClassVar[str] = "a model with memory is above chance beyond reach, one without it is at chance"

    def world(self, world: World) -> World:
        """As it is."""
        return world

    def gaps(self, world: World, gaps: Sequence[int]) -> tuple[int, ...]:
        """As they are."""
        del world
        return tuple(gaps)

    def start(self, state: VideoState) -> VideoState:
        """As it is."""
        return state

    def before(self, state: VideoState, start: VideoState, segment: jax.Array, returning: jax.Array) -> VideoState:
        """As it is."""
        del start, segment, returning
        return state

    def prompts(self, prompts: Prompts) -> Prompts:
        """As they are."""
        return prompts

    def met(self, report: dict) -> bool | None:
        """Nothing is predicted of an unknown model."""
        del report
        return None


@dataclasses.dataclass(frozen=True, kw_only=True)
class WithinReach(NoControl):
    """Only gaps that FramePack sees across."""

    kind: ClassVar[str] = "within_reach"
    expects: ClassVar[str] = "every model that has learned the scene is above chance, with and without memory"

    def gaps(self, world: World, gaps: Sequence[int]) -> tuple[int, ...]:
        """Those not beyond reach."""
        near = tuple(gap for gap in gaps if not world.beyond_reach(gap))
        if not near:
            raise InputError(f"gaps {list(gaps)} are all beyond reach: give 0 or another short one")
        return near

    def met(self, report: dict) -> bool:
        """Each gap's interval lies above chance."""
        return all(row["ci95"][0] > row["chance"] for row in report["gaps"])


@dataclasses.dataclass(frozen=True, kw_only=True)
class Anchor(NoControl):
    """The reference frame shows the toy, a leak put in on purpose."""

    kind: ClassVar[str] = "anchor"
    expects: ClassVar[str] = (
        "a model trained with world.anchor is above chance beyond reach even without memory; in R3, where the anchor "
        "shows the first state, that is not enough"
    )

    def world(self, world: World) -> World:
        """With `anchor`."""
        return dataclasses.replace(world, anchor=True)

    def met(self, report: dict) -> bool | None:
        """Recall beyond reach lies above chance."""
        far = report["beyond_reach"]
        return None if far["ci95"] is None else far["ci95"][0] > far["chance"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class ZeroStart(NoControl):
    """ψ_0, the prompt and the reference image in the memory, is zero; what segments add is not."""

    kind: ClassVar[str] = "zero_start"
    expects: ClassVar[str] = "nothing by construction: the difference to no control is what ψ_0 contributes"

    def start(self, state: VideoState) -> VideoState:
        """With zeros in the place of every number of the memory."""
        zeros = jax.tree.map(lambda x: jnp.zeros_like(x) if jnp.issubdtype(x.dtype, jnp.inexact) else x, state.memory)
        return state.replace(memory=zeros)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ShuffledPrompts(NoControl):
    """The return is drawn under the prompt of another clip."""

    kind: ClassVar[str] = "shuffled_prompts"
    expects: ClassVar[str] = "where the prompt says which toy returns (R2, R6), recall falls to one in two or less"

    def world(self, world: World) -> World:
        """As it is.

        Raises:
            InputError: the prompts do not choose.
        """
        if len(world.play.choices) < 2:
            raise InputError(
                f"world.scene is {world.scene!r}, whose prompts do not choose a toy: shuffle them in R2 or R6"
            )
        return world

    def prompts(self, prompts: Prompts) -> Prompts:
        """Each clip has its neighbour's; clips are drawn independently, so that this is a shuffle."""
        return jax.tree.map(lambda x: jnp.roll(x, 1, axis=0), prompts)

    def met(self, report: dict) -> bool | None:
        """The interval beyond reach is not above one half."""
        far = report["beyond_reach"]
        return None if far["ci95"] is None else far["ci95"][0] <= 0.5


@dataclasses.dataclass(frozen=True, kw_only=True)
class MemoryReset(NoControl):
    """The memory is ψ_0 again before one segment.

    Attributes:
        segment: which one, counted from 0; None is that of the return.
    """

    kind: ClassVar[str] = "memory_reset"
    expects: ClassVar[str] = "at a reset behind the last segment that shows the toy, recall beyond reach is at chance"
    segment: int | None = None

    def before(self, state: VideoState, start: VideoState, segment: jax.Array, returning: jax.Array) -> VideoState:
        """With the memory of the start where it is time."""
        now = segment == (returning if self.segment is None else self.segment)
        return state.replace(memory=jax.tree.map(lambda new, old: jnp.where(now, old, new), state.memory, start.memory))

    def met(self, report: dict) -> bool | None:
        """The leak test passes."""
        return report["leak_test"]["passed"]


CONTROLS: dict[str, Control] = {
    control.kind: control
    for control in (NoControl(), WithinReach(), Anchor(), ZeroStart(), ShuffledPrompts(), MemoryReset())
}
"""Every control by its kind, with its default fields."""
