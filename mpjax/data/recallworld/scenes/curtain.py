"""R4: a curtain hides the whole picture while the toy goes on behind it. Who is it, and where by now?"""

import dataclasses
from typing import TYPE_CHECKING

import numpy as np

from mpjax.data.recallworld.scenes.base import DistinctToys, Story, times
from mpjax.data.recallworld.trajectories import entrance, ring_walk

if TYPE_CHECKING:
    from mpjax.data.recallworld.world import World


@dataclasses.dataclass(frozen=True, kw_only=True)
class Curtain(DistinctToys):
    """A toy enters in segment 0 and hops one cell a frame round the ring of outer cells, for ever; through the gap a
    curtain covers the whole frame. When it rises the toy is where its constant speed has carried it.

    The ring has 4·(grid − 1) cells. Where that divides `segment_frames` every segment ends as it began and no counting
    is asked for: choose a segment that it does not divide.
    """

    prompts = ("a toy enters", "a curtain falls", "a curtain hangs", "a curtain rises", "the toy stays")
    fields = frozenset({"path", "anchor"})
    entries = 1
    white_ball = False
    hidden_motion = True

    def story(self, world: "World", seed: int, draws: np.ndarray, segments: int, gap: int) -> Story:
        """See `Scene`."""
        del seed
        returning = self.entries + gap
        time, segment = times(world, segments)
        rows, clockwise = entrance(world, draws, 1)
        curtain = (segment >= self.entries) & (segment < returning)
        visible = ((time >= 0) & ~curtain)[None]
        visible[0, 0] = world.anchor
        enters, falls, hangs, rises, stays = self.prompts
        behind = (falls, *(hangs,) * (gap - 1), rises) if gap else (stays,)
        return Story(
            objects=(0,),
            positions=ring_walk(world, time[None], rows, clockwise),
            visible=visible,
            prompts=(enters, *behind, *(stays,) * (segments - returning - 1)),
            target=0,
            return_segment=returning,
            curtain=curtain,
        )
