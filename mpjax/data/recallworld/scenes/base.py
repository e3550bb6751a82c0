"""What a scene is: settings it reads, toys it needs, and a story told without knowing who they are."""

import dataclasses
from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Protocol

import numpy as np

from mpjax.data.recallworld.stream import IDENTITY
from mpjax.errors import InputError

if TYPE_CHECKING:
    from mpjax.data.recallworld.world import World

WHITE_BALL, BOX = -1, -2
"""Objects without an identity."""

NO_FIELDS: frozenset[str] = frozenset()


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Story:
    """What happens in a clip of s segments, T = 1 + s·f frames, whoever the toys are.

    Attributes:
        objects: what each object is: the index of a toy, `WHITE_BALL` or `BOX`. A toy that changes its identity in view
            is two objects.
        positions: top-left pixel (row, column) of each object, int `[o, T, 2]`; where it is not visible, undefined.
        visible: bool `[o, T]`. No two visible objects overlap.
        prompts: one prompt per segment.
        target: which toy returns, an index; None in a scene without a return.
        return_segment: segment of the return; None without one.
        curtain: frames that show nothing but the curtain, bool `[T]`; None without one.
        pan: cell of the panorama at the left edge of the frame, int `[T]`, −1 and more; None where the camera rests.
        panorama: colour of each column of cells, float32 `[columns, 3]`, the first is cell −1; None as `pan`.
    """

    objects: tuple[int, ...]
    positions: np.ndarray
    visible: np.ndarray
    prompts: tuple[str, ...]
    target: int | None = None
    return_segment: int | None = None
    curtain: np.ndarray | None = None
    pan: np.ndarray | None = None
    panorama: np.ndarray | None = None


class Scene(Protocol):
    """One scene of RecallWorld.

    Attributes:
        prompts: every prompt it can use, of which none names an identity.
        fields: names of the `World` fields that not every scene reads, but this one does.
        entries: segments before the gap begins; None in a scene without a return.
        white_ball: whether a white ball can be seen.
        choices: prompts that say which toy returns; less than two say nothing.
        hidden_motion: whether the toy moves on while it is hidden, so that its place tells the time.
        commands: pace that each prompt commands, in half cells a frame clockwise; empty where prompts command nothing.
    """

    @property
    def prompts(self) -> tuple[str, ...]:
        """See above."""
        ...

    @property
    def fields(self) -> frozenset[str]:
        """See above."""
        ...

    @property
    def entries(self) -> int | None:
        """See above."""
        ...

    @property
    def white_ball(self) -> bool:
        """See above."""
        ...

    @property
    def choices(self) -> tuple[str, ...]:
        """See above."""
        ...

    @property
    def hidden_motion(self) -> bool:
        """See above."""
        ...

    @property
    def commands(self) -> Mapping[str, int]:
        """See above."""
        ...

    def toys(self, world: "World") -> int:
        """Identities of one clip."""
        ...

    def check(self, world: "World") -> None:
        """Refuses settings that this scene cannot be played with.

        Raises:
            InputError: naming the field.
        """
        ...

    def identities(self, world: "World", draws: np.ndarray) -> list[int]:
        """The toys of a clip, from the words of block 0: every choice equally likely."""
        ...

    def check_identities(self, world: "World", identities: list[int]) -> None:
        """Refuses different identities in range that this scene cannot show together.

        Raises:
            InputError: naming them.
        """
        ...

    def story(self, world: "World", seed: int, draws: np.ndarray, segments: int, gap: int) -> Story:
        """What happens.

        Args:
            world: the world.
            seed: key of the stream, for its further blocks.
            draws: the words of block 0.
            segments: s, room enough for the gap.
            gap: hidden segments before the return; 0 in a scene without one.
        """
        ...


class Plain:
    """A scene whose prompts neither choose nor command, and whose toys do not move unseen."""

    hidden_motion = False
    commands: Mapping[str, int] = MappingProxyType({})

    @property
    def choices(self) -> tuple[str, ...]:
        """None."""
        return ()


class DistinctToys(Plain):
    """Toys that differ from one another, and nothing else to say of them."""

    def toys(self, world: "World") -> int:
        """One."""
        del world
        return 1

    def check(self, world: "World") -> None:
        """All settings suit."""

    def identities(self, world: "World", draws: np.ndarray) -> list[int]:
        """One identity per draw, all different."""
        left = list(range(world.ids))
        return [left.pop(int(draw * len(left))) for draw in draws[IDENTITY : IDENTITY + self.toys(world)]]

    def check_identities(self, world: "World", identities: list[int]) -> None:
        """Any will do."""


def needs_frames(world: "World", least: int, why: str) -> None:
    """Raises unless a segment has `least` frames.

    Raises:
        InputError: it is shorter.
    """
    if world.segment_frames < least:
        raise InputError(
            f"world.segment_frames is {world.segment_frames}, but {why}: use {least} or more in scene {world.scene}"
        )


def times(world: "World", segments: int) -> tuple[np.ndarray, np.ndarray]:
    """Time of each frame, the reference frame at −1, and its segment: int `[T]` each."""
    time = np.arange(-1, segments * world.segment_frames)
    return time, time // world.segment_frames
