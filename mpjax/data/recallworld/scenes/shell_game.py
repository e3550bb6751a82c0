"""R6: two toys hide in boxes, the boxes swap places, one is opened. Which toy is in it?"""

import dataclasses
from typing import TYPE_CHECKING

import numpy as np

from mpjax.data.recallworld.scenes.base import BOX, NO_FIELDS, DistinctToys, Story, needs_frames, times
from mpjax.data.recallworld.stream import SWAPS, TARGET, uniforms
from mpjax.data.recallworld.trajectories import ring

if TYPE_CHECKING:
    from mpjax.data.recallworld.world import World


@dataclasses.dataclass(frozen=True, kw_only=True)
class ShellGame(DistinctToys):
    """Toys stand in the top left and the bottom right corner in segment 0. In the gap equal boxes hide them; in each
    segment of it the boxes either swap, half round the ring of outer cells, or rest, as the prompt says. Then the LEFT
    or the RIGHT box opens.

    Who keeps the toys without following the boxes is right in one clip of two.
    """

    prompts = (
        "two toys hide",
        "the boxes swap",
        "the boxes rest",
        "the LEFT opens",
        "the RIGHT opens",
        "the toy stays",
    )
    fields = NO_FIELDS
    entries = 1
    white_ball = False

    @property
    def choices(self) -> tuple[str, ...]:
        """See `Scene`."""
        return self.prompts[3:5]

    def toys(self, world: "World") -> int:
        """See `Scene`."""
        del world
        return 2

    def check(self, world: "World") -> None:
        """See `Scene`."""
        needs_frames(world, 2 * (world.grid - 1), "a swap takes half the ring, one cell a frame")

    def story(self, world: "World", seed: int, draws: np.ndarray, segments: int, gap: int) -> Story:
        """See `Scene`."""
        f, half, returning = world.segment_frames, 2 * (world.grid - 1), self.entries + gap
        time, segment = times(world, segments)
        swaps = (uniforms(seed, gap, SWAPS) < 0.5).astype(int)
        swapping = np.zeros(segments, int)
        swapping[self.entries : returning] = swaps
        before = np.concatenate([[0], np.cumsum(swapping)])[segment]
        moved = half * before + np.minimum(time % f + 1, half) * swapping[segment]
        cells = ring(world.grid)
        boxes = cells[(np.asarray([[0], [half]]) + moved) % len(cells)] * world.patch
        side = int(draws[TARGET] * 2)
        target = (side + int(swaps.sum())) % 2
        closed = (segment >= self.entries) & (segment < returning)
        toy = np.arange(2)[:, None]
        open_now = (segment >= returning) & (toy == target)
        visible = np.concatenate([(segment == 0) | open_now, closed | ((segment >= returning) & (toy != target))])
        hide, swap, rest, left, right, stays = self.prompts
        after = segments - returning - 1
        return Story(
            objects=(0, 1, BOX, BOX),
            positions=np.concatenate([boxes, boxes]),
            visible=visible,
            prompts=(hide, *(swap if s else rest for s in swaps), (left, right)[side], *(stays,) * after),
            target=target,
            return_segment=returning,
        )
