"""D1: balls between elastic walls, always visible. How does the picture decay over a long rollout?"""

import dataclasses
from typing import TYPE_CHECKING

import numpy as np

from mpjax.data.recallworld.scenes.base import DistinctToys, Story
from mpjax.data.recallworld.stream import BOUNCE, SPEED, TURNS, WORDS, uniforms
from mpjax.data.recallworld.trajectories import VELOCITIES, balls_meet, bounce, bounce_range
from mpjax.errors import InputError

if TYPE_CHECKING:
    from mpjax.data.recallworld.world import World

_TRIES = 16
MAX_BALLS = 3


@dataclasses.dataclass(frozen=True, kw_only=True)
class Bounce(DistinctToys):
    """Balls that go straight on for ever, or with probability `world.turn` a frame in another direction."""

    prompts = ("balls bounce",)
    fields = frozenset({"anchor", "motion", "balls", "stripe", "turn"})
    entries = None
    white_ball = False

    def toys(self, world: "World") -> int:
        """See `Scene`."""
        return world.balls

    def check(self, world: "World") -> None:
        """See `Scene`."""
        if not 1 <= world.balls <= min(MAX_BALLS, world.grid):
            raise InputError(
                f"world.balls is {world.balls}: use 1 to {min(MAX_BALLS, world.grid)} in a grid of "
                f"{world.grid} x {world.grid} cells"
            )
        if world.motion == "free" and world.balls != 1:
            raise InputError("world.motion 'free' draws a single ball: set world.balls to 1")
        if not 0 <= world.turn <= 1:
            raise InputError(f"world.turn is {world.turn}: use a probability from 0 to 1")
        if world.turn and world.balls != 1:
            raise InputError("world.turn lets balls meet: set world.balls to 1")

    def story(self, world: "World", seed: int, draws: np.ndarray, segments: int, gap: int) -> Story:
        """See `Scene`."""
        del gap
        starts, directions, speed = _draw(world, seed, draws)
        steps = directions[:, None] + _turns(world, seed, segments * world.segment_frames)
        positions, visible = bounce(world, starts, VELOCITIES[steps % len(VELOCITIES)] * speed)
        return Story(
            objects=tuple(range(world.balls)), positions=positions, visible=visible, prompts=self.prompts * segments
        )


def _turns(world: "World", seed: int, frames: int) -> np.ndarray:
    """How far the direction of each step is from the first, as an index, int `[frames]`; a turn takes 1..7."""
    # The step out of the reference frame, which seldom shows the ball, does not turn.
    happens, choice = uniforms(seed, 2 * frames, TURNS).reshape(frames, 2).T
    jump = (happens < world.turn) * (1 + (choice * (len(VELOCITIES) - 1)).astype(int))
    return np.cumsum(np.where(np.arange(frames) > 0, jump, 0))


def _draw(world: "World", seed: int, draws: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Starts `[balls, 2]`, directions `[balls]` of balls that never share a cell, and their speed along each axis."""
    size, speed = bounce_range(world), np.ones(2, int)
    if world.balls == 1:
        tries = draws[BOUNCE : BOUNCE + 3].reshape(1, 1, 3)
    else:
        words = uniforms(seed, WORDS + _TRIES * world.balls * 3)
        tries = words[WORDS:].reshape(_TRIES, world.balls, 3)
    if world.motion == "free":
        speed = 1 + (draws[SPEED : SPEED + 2] * 2).astype(int)
    starts = (tries[..., :2] * size).astype(int)
    directions = (tries[..., 2] * len(VELOCITIES)).astype(int)
    if world.balls == 1:
        return starts[0], directions[0], speed
    apart = np.flatnonzero(~balls_meet(world, starts, VELOCITIES[directions]))
    if apart.size:
        return starts[apart[0]], directions[apart[0]], speed
    # A row each: no encounter is possible.
    rows = np.stack([np.arange(world.balls), starts[0, :, 1]], axis=-1)
    return rows, np.zeros(world.balls, int), speed
