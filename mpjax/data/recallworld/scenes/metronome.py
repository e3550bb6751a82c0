"""D2: a hand goes round the ring as each prompt tells it. Does it follow, at once, and for how long?"""

import dataclasses
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np

from mpjax.data.recallworld.scenes.base import NO_FIELDS, DistinctToys, Story, needs_frames
from mpjax.data.recallworld.stream import COMMANDS, uniforms
from mpjax.data.recallworld.trajectories import ring

if TYPE_CHECKING:
    from mpjax.data.recallworld.world import World

HALF_CELLS = MappingProxyType({"slow forward": 1, "slow backward": -1, "fast forward": 2, "fast backward": -2})
"""Half cells a frame of each command, clockwise: slow is a cell every other frame."""

CHANGE = 0.5
"""Probability that a segment has another command than the one before."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Metronome(DistinctToys):
    """A toy is the hand: always visible, it hops along the ring of outer cells with the pace and the direction that the
    prompt of the segment commands, from the step into the segment's first frame on.
    """

    prompts = tuple(HALF_CELLS)
    fields = NO_FIELDS
    commands = HALF_CELLS
    entries = None
    white_ball = False

    def check(self, world: "World") -> None:
        """See `Scene`."""
        needs_frames(world, 3, "a slow hand moves every other frame, and has to move in every segment")

    def story(self, world: "World", seed: int, draws: np.ndarray, segments: int, gap: int) -> Story:
        """See `Scene`."""
        del draws, gap
        start, first, *rest = uniforms(seed, 2 * segments + 2, COMMANDS)
        count, cells = len(HALF_CELLS), ring(world.grid)
        happens, choice = np.reshape(rest, (segments, 2)).T
        jump = (happens < CHANGE) * (1 + (choice * (count - 1)).astype(int))
        command = (int(first * count) + np.cumsum(jump)) % count
        prompts = tuple(self.prompts[c] for c in command)
        halves = np.repeat([HALF_CELLS[prompt] for prompt in prompts], world.segment_frames)
        moved = np.concatenate([[0], np.cumsum(halves)]) // 2
        positions = cells[(int(start * len(cells)) + moved) % len(cells)] * world.patch
        visible = np.arange(len(moved)) > 0
        return Story(objects=(0,), positions=positions[None], visible=visible[None], prompts=prompts)
