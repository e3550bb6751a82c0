"""R1 and R2: toys show themselves one after the other and leave; later one of them returns."""

import dataclasses
from typing import TYPE_CHECKING

import numpy as np

from mpjax.data.recallworld.scenes.base import WHITE_BALL, DistinctToys, Story, times
from mpjax.data.recallworld.stream import TARGET
from mpjax.data.recallworld.trajectories import distractor, entrance, ring_walk

if TYPE_CHECKING:
    from mpjax.data.recallworld.world import World


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExitReturn(DistinctToys):
    """Toy n enters in segment n and hops round the outer cells; a white ball bounces in the gap; one toy returns
    through the same row.

    Attributes:
        enter: prompt of each toy's entrance.
        back: prompt of each toy's return.
    """

    enter: tuple[str, ...]
    back: tuple[str, ...]
    fields = frozenset({"path", "anchor"})
    white_ball = True

    @property
    def prompts(self) -> tuple[str, ...]:
        """See `Scene`."""
        return (*self.enter, "a ball bounces", *self.back, "the toy stays")

    @property
    def choices(self) -> tuple[str, ...]:
        """See `Scene`."""
        return self.back

    @property
    def entries(self) -> int:
        """A segment for each toy."""
        return len(self.enter)

    def toys(self, world: "World") -> int:
        """See `Scene`."""
        del world
        return len(self.enter)

    def story(self, world: "World", seed: int, draws: np.ndarray, segments: int, gap: int) -> Story:
        """See `Scene`."""
        del seed
        target, returning = int(draws[TARGET] * self.entries), self.entries + gap
        time, segment = times(world, segments)
        toy = np.arange(self.entries)[:, None]
        returned = (segment >= returning) & (toy == target)
        since = time - world.segment_frames * np.where(returned, returning, toy)
        rows, clockwise = entrance(world, draws, self.entries)
        positions = np.concatenate([ring_walk(world, since, rows, clockwise), distractor(world, draws, time)[None]])
        hidden = (segment >= self.entries) & (segment < returning)
        visible = np.concatenate([(segment == toy) | returned, hidden[None]])
        visible[0, 0] = world.anchor
        after = segments - returning - 1
        return Story(
            objects=(*range(self.entries), WHITE_BALL),
            positions=positions,
            visible=visible,
            prompts=(*self.enter, *("a ball bounces",) * gap, self.back[target], *("the toy stays",) * after),
            target=target,
            return_segment=returning,
        )
