"""R3: a toy is repainted in view, leaves, and returns. Only its latest state is right."""

import dataclasses
from typing import TYPE_CHECKING

import numpy as np

from mpjax.data.recallworld.scenes.base import WHITE_BALL, Plain, Story, needs_frames, times
from mpjax.data.recallworld.stream import IDENTITY
from mpjax.data.recallworld.trajectories import distractor, entrance, ring_walk
from mpjax.errors import InputError

if TYPE_CHECKING:
    from mpjax.data.recallworld.world import World


@dataclasses.dataclass(frozen=True, kw_only=True)
class Overwrite(Plain):
    """A toy enters in segment 0; in the middle of segment 1 it takes another colour, in view; a white ball bounces in
    the gap; the toy returns in the new colour.

    The two states are two identities of one shape: 0 is the first, 1 the latest, which is the target.
    """

    prompts = ("a toy enters", "it is repainted", "a ball bounces", "the toy returns", "the toy stays")
    fields = frozenset({"path", "anchor"})
    entries = 2
    white_ball = True

    def toys(self, world: "World") -> int:
        """See `Scene`."""
        del world
        return 2

    def check(self, world: "World") -> None:
        """See `Scene`."""
        needs_frames(world, 2, "the toy changes its colour inside a segment")
        if world.colours < 2:
            raise InputError("world.colours is 1, but scene R3 repaints a toy: use 2 or more")

    def identities(self, world: "World", draws: np.ndarray) -> list[int]:
        """A toy, and the same shape in another colour; each of them is even over all identities."""
        first = int(draws[IDENTITY] * world.ids)
        colours = [colour for colour in range(world.colours) if colour != world.colour_of(first)]
        return [first, colours[int(draws[IDENTITY + 1] * len(colours))] * world.shapes + world.shape_of(first)]

    def check_identities(self, world: "World", identities: list[int]) -> None:
        """See `Scene`."""
        first, latest = identities
        if world.shape_of(first) != world.shape_of(latest):
            raise InputError(f"identities is {identities}: give two colours of one shape in R3")

    def story(self, world: "World", seed: int, draws: np.ndarray, segments: int, gap: int) -> Story:
        """See `Scene`."""
        del seed
        returning, f = self.entries + gap, world.segment_frames
        time, segment = times(world, segments)
        returned = segment >= returning
        rows, clockwise = entrance(world, draws, 1)
        toy = ring_walk(world, (time - f * returning * returned)[None], rows, clockwise)[0]
        first = (time >= 0) & (time < f + f // 2)
        latest = returned | ((segment == 1) & ~first)
        visible = np.stack([first, latest, (segment >= self.entries) & ~returned])
        visible[0, 0] = world.anchor
        enters, repainted, bounces, returns, stays = self.prompts
        after = segments - returning - 1
        return Story(
            objects=(0, 1, WHITE_BALL),
            positions=np.stack([toy, toy, distractor(world, draws, time)]),
            visible=visible,
            prompts=(enters, repainted, *(bounces,) * gap, returns, *(stays,) * after),
            target=1,
            return_segment=returning,
        )
