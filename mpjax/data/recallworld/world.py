"""The settings of a RecallWorld, and the quantities that follow from them."""

import dataclasses

from mpjax.errors import InputError

SCENES = ("R1", "R2", "D1")
MOTIONS = ("cells", "free")
PATHS = ("varied", "fixed")

PROMPTS = {
    "R1": ("a toy enters", "a ball bounces", "the toy returns", "the toy stays"),
    "R2": (
        "a toy enters",
        "another toy enters",
        "a ball bounces",
        "the FIRST toy returns",
        "the SECOND toy returns",
        "the toy stays",
    ),
    "D1": ("balls bounce",),
}
"""Every prompt a scene can use, of which none names an identity."""

MAX_COLOURS = 8
MAX_SHAPES = 4
MAX_BALLS = 3


@dataclasses.dataclass(frozen=True, kw_only=True)
class World:
    """One RecallWorld. Latents are pixels: float32 frames `[..., t, h, w, 3]` in [-1, 1].

    Scenes:
        R1: a toy enters in segment 0 and hops round the ring of outer cells; it stays away for `gap` whole segments in
            which a white ball bounces; then "the toy returns". Asks: which toy was it?
        R2: toys A and B enter in segments 0 and 1; after the gap "the FIRST toy returns" or "the SECOND toy returns".
            Asks for recall addressed by text; a memory without order gets at best one in two.
        D1: balls bounce between elastic walls, always visible. Asks how the picture decays over a long rollout.

    Attributes:
        scene: "R1", "R2" or "D1".
        frame_size: height and width in pixels, 8..16, a multiple of `patch`.
        patch: side of a cell and of a sprite in pixels, at least 4.
        colours: colours a toy can have, 1..8.
        shapes: shapes a toy can have, 1..4.
        segment_frames: frames of a segment.
        fps: frames per second, for reporting drift per minute.
        reach: FramePack frames at rate 1x, 2x and 4x; their sum is the number of past frames a model sees.
        prompt_bytes: width of the prompt field in bytes; R2 needs 22 or more.
        motion: "cells" moves sprites by whole cells, aligned with the model's patches. "free" moves the ball of D1 by
            whole pixels.
        path: R1 and R2: "varied" draws the row of the entrance and the direction of the hops for each clip, and a model
            has to remember them too; "fixed" makes every toy enter in the top row and hop clockwise, so that only the
            identity is asked for.
        balls: balls in D1, 1..3, at most one per row of cells; they never share a cell.
        stripe: D1 only: a bright column wanders over the background, one pixel a frame.

    Raises:
        InputError: a field is out of its range or contradicts another.
    """

    scene: str = "R1"
    frame_size: int = 8
    patch: int = 4
    colours: int = 4
    shapes: int = 4
    segment_frames: int = 4
    fps: int = 4
    reach: tuple[int, ...] = (1, 2, 4)
    prompt_bytes: int = 16
    motion: str = "cells"
    path: str = "varied"
    balls: int = 1
    stripe: bool = False

    def __post_init__(self):
        if self.scene not in SCENES:
            raise InputError(f"world.scene is {self.scene!r}: choose one of {', '.join(SCENES)}")
        if self.motion not in MOTIONS:
            raise InputError(f"world.motion is {self.motion!r}: choose one of {', '.join(MOTIONS)}")
        if self.path not in PATHS:
            raise InputError(f"world.path is {self.path!r}: choose one of {', '.join(PATHS)}")
        if self.patch < 4:
            raise InputError(f"world.patch is {self.patch}, too small to draw a shape: use 4 or more")
        if not 8 <= self.frame_size <= 16 or self.frame_size % self.patch:
            raise InputError(
                f"world.frame_size is {self.frame_size}: use a multiple of world.patch ({self.patch}) from 8 to 16"
            )
        if self.grid < 2:
            raise InputError(
                f"world.patch {self.patch} leaves one cell in a frame of {self.frame_size}, so nothing can move: "
                "use a patch of half the frame or less"
            )
        if not 1 <= self.colours <= MAX_COLOURS or not 1 <= self.shapes <= MAX_SHAPES:
            raise InputError(
                f"world.colours is {self.colours} and world.shapes is {self.shapes}: use 1 to {MAX_COLOURS} colours "
                f"and 1 to {MAX_SHAPES} shapes"
            )
        if self.ids < max(2, self.toys):
            raise InputError(
                f"world.colours x world.shapes gives {self.ids} toys, but scene {self.scene} needs "
                f"{max(2, self.toys)} or more: raise one of them"
            )
        if self.segment_frames < 1 or self.fps < 1:
            raise InputError(
                f"world.segment_frames is {self.segment_frames} and world.fps is {self.fps}: use 1 or more"
            )
        if not self.reach or any(frames < 0 for frames in self.reach) or sum(self.reach) < 1:
            raise InputError(
                f"world.reach is {self.reach}: give the frames at 1x, 2x and 4x, none negative, not all zero"
            )
        longest = max(len(prompt) for prompt in PROMPTS[self.scene])
        if self.prompt_bytes < longest:
            raise InputError(
                f"world.prompt_bytes is {self.prompt_bytes}, but scene {self.scene} has a prompt of {longest} bytes: "
                f"set prompt_bytes to {longest} or more"
            )
        if not 1 <= self.balls <= min(MAX_BALLS, self.grid):
            raise InputError(
                f"world.balls is {self.balls}: use 1 to {min(MAX_BALLS, self.grid)} in a grid of "
                f"{self.grid} x {self.grid} cells"
            )
        if self.scene != "D1" and (self.motion, self.balls, self.stripe) != ("cells", 1, False):
            raise InputError(
                f"world.motion, world.balls and world.stripe belong to scene D1: leave them out in {self.scene}"
            )
        if self.motion == "free" and self.balls != 1:
            raise InputError("world.motion 'free' draws a single ball: set world.balls to 1")

    @property
    def ids(self) -> int:
        """Number of identities K; chance is 1 / K."""
        return self.colours * self.shapes

    @property
    def grid(self) -> int:
        """Cells along each side of a frame."""
        return self.frame_size // self.patch

    @property
    def toys(self) -> int:
        """Objects with an identity in one clip."""
        return {"R1": 1, "R2": 2, "D1": self.balls}[self.scene]

    def colour_of(self, identity):
        """Colour index of an identity, an int or an int array."""
        return identity // self.shapes

    def shape_of(self, identity):
        """Shape index of an identity, an int or an int array."""
        return identity % self.shapes

    def beyond_reach(self, gap: int) -> bool:
        """True if no frame of the toy is left in FramePack's reach when it returns after `gap` hidden segments."""
        return gap * self.segment_frames >= sum(self.reach)

    def largest_gap(self, segments: int) -> int:
        """The longest gap that leaves room for the entries and the return in a clip of `segments`.

        Raises:
            InputError: the clip is too short for any return, or the scene has none.
        """
        if self.scene == "D1":
            raise InputError("scene D1 has no return: leave gap out")
        gap = segments - self.toys - 1
        if gap < 0:
            raise InputError(
                f"scene {self.scene} needs {self.toys + 1} segments or more for an entry and a return, "
                f"but the clip has {segments}: raise segments"
            )
        return gap
