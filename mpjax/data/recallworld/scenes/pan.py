"""R5: the camera pans along a panorama and back. Is everything where it was?"""

import dataclasses
from typing import TYPE_CHECKING

import numpy as np

from mpjax.data.recallworld.scenes.base import NO_FIELDS, DistinctToys, Story, needs_frames, times
from mpjax.data.recallworld.stream import LANDMARK, PANORAMA, uniforms

if TYPE_CHECKING:
    from mpjax.data.recallworld.world import World


@dataclasses.dataclass(frozen=True, kw_only=True)
class PanBack(DistinctToys):
    """The camera moves one cell a frame over coloured columns of cells, turns in the middle of the gap, and is back
    over the cells of segment 0 in the segment of the return, which shows them in reverse. A toy stands still at a place
    that only segment 0 and the return show. Then the camera waits.
    """

    prompts = ("the camera pans", "the camera turns", "it pans back", "the camera waits")
    fields = NO_FIELDS
    entries = 1
    white_ball = False

    def check(self, world: "World") -> None:
        """See `Scene`."""
        needs_frames(world, world.grid, "the camera has to move past its first view within a segment")

    def story(self, world: "World", seed: int, draws: np.ndarray, segments: int, gap: int) -> Story:
        """See `Scene`."""
        del draws
        f, grid, returning = world.segment_frames, world.grid, self.entries + gap
        time, _ = times(world, segments)
        last = (returning + 1) * f - 1  # the camera is at cell 0 again
        pan = np.where(time < 0, -1, np.maximum(np.minimum(time, last - time), 0))
        # Right of the reference frame, which ends at cell grid − 2, and left of all that the gap shows.
        row, along = uniforms(seed, 2, LANDMARK)
        cell = grid - 1 + int(along * (f - grid + 1))
        column = cell - pan
        columns = last // 2 + grid + 1
        pans, turns, back, waits = self.prompts
        there = (*(pans,) * ((returning + 1) // 2), *(turns,) * (gap % 2), *(back,) * ((returning + 1) // 2))
        return Story(
            objects=(0,),
            positions=np.stack([np.full_like(column, int(row * grid)), column], axis=-1)[None] * world.patch,
            visible=((time >= 0) & (column >= 0) & (column < grid))[None],
            prompts=(*there, *(waits,) * (segments - returning - 1)),
            target=0,
            return_segment=returning,
            pan=pan,
            panorama=(0.4 * uniforms(seed, 3 * columns, PANORAMA).reshape(columns, 3) - 0.2).astype(np.float32),
        )
