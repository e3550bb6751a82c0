"""The settings of a RecallWorld, and the quantities that follow from them."""

import dataclasses

from mpjax.data.recallworld.scenes import SCENES
from mpjax.data.recallworld.scenes.base import Scene
from mpjax.errors import InputError

MOTIONS = ("cells", "free")
PATHS = ("varied", "fixed")

MAX_COLOURS = 8
MAX_SHAPES = 4
SMALLEST_FRAME, LARGEST_FRAME = 8, 64

OF_SOME_SCENES = ("path", "anchor", "motion", "balls", "stripe", "turn")
"""Fields that not every scene reads; `Scene.fields` says which ones."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class World:
    """One RecallWorld. Latents are pixels: float32 frames `[..., t, h, w, 3]` in [-1, 1].

    Scenes (each described in its own module of `scenes`):
        R1: a toy shows itself, leaves, and returns after `gap` whole segments. Which toy was it?
        R2: two toys; "the FIRST toy returns" or "the SECOND toy returns". Recall addressed by text; a memory without
            order gets at best one in two.
        R3: the toy is repainted in view before it leaves. Only its latest state is right.
        R4: a curtain hides the picture while the toy goes on behind it. Which toy is it, and where by now?
        R5: the camera pans along a panorama and back. Is everything where it was?
        R6: two boxes hide two toys and swap places. Which toy is in the one that opens?
        D1: balls bounce between elastic walls, always visible. How does the picture decay over a long rollout?
        D2: a hand goes round as each prompt commands. Does it follow, at once, and for how long?

    Attributes:
        scene: one of the names above.
        frame_size: height and width in pixels, 8..64, a multiple of `patch`.
        patch: side of a cell and of a sprite in pixels, at least 4.
        colours: colours a toy can have, 1..8.
        shapes: shapes a toy can have, 1..4.
        segment_frames: frames of a segment. In D1 with motion "cells" a ball that moves by one cell changes between odd
            and even cells in each frame: with an odd number no frame of a segment ever lines up with the same frame of
            the segment before. In a grid of 2 or 3 cells and 4 frames all of them always do.
        fps: frames per second, for reporting drift per minute.
        reach: FramePack frames at rate 1x, 2x and 4x; their sum is the number of past frames a model sees.
        prompt_bytes: width of the prompt field in bytes; R2 needs 22 or more.
        path: R1 to R4: "varied" draws the row of the entrance and the direction of the hops for each clip, and a model
            has to remember them too; "fixed" makes every toy enter in the top row and hop clockwise, so that only the
            identity is asked for.
        anchor: the reference frame shows the first toy as well. In R1 to R4 a control, a leak put in on purpose; in D1
            the subject of an image-to-video model, which a rollout can always look back at.
        motion: D1: "cells" moves balls by whole cells, aligned with the model's patches; "free" moves the ball by whole
            pixels.
        balls: D1: 1..3, at most one per row of cells; they never share a cell.
        stripe: D1: a bright column wanders over the background, one pixel a frame.
        turn: D1 with one ball: probability, each frame, that it goes on in another of the eight directions, 0..1. The
            past then allows several futures, all of them valid frames.

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
    path: str = "varied"
    anchor: bool = False
    motion: str = "cells"
    balls: int = 1
    stripe: bool = False
    turn: float = 0.0

    def __post_init__(self):
        if self.scene not in SCENES:
            raise InputError(f"world.scene is {self.scene!r}: choose one of {', '.join(SCENES)}")
        if self.motion not in MOTIONS:
            raise InputError(f"world.motion is {self.motion!r}: choose one of {', '.join(MOTIONS)}")
        if self.path not in PATHS:
            raise InputError(f"world.path is {self.path!r}: choose one of {', '.join(PATHS)}")
        if self.patch < 4:
            raise InputError(f"world.patch is {self.patch}, too small to draw a shape: use 4 or more")
        if not SMALLEST_FRAME <= self.frame_size <= LARGEST_FRAME or self.frame_size % self.patch:
            raise InputError(
                f"world.frame_size is {self.frame_size}: use a multiple of world.patch ({self.patch}) from "
                f"{SMALLEST_FRAME} to {LARGEST_FRAME}"
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
        longest = max(len(prompt) for prompt in self.play.prompts)
        if self.prompt_bytes < longest:
            raise InputError(
                f"world.prompt_bytes is {self.prompt_bytes}, but scene {self.scene} has a prompt of {longest} bytes: "
                f"set prompt_bytes to {longest} or more"
            )
        defaults = {field.name: field.default for field in dataclasses.fields(self)}
        for name in OF_SOME_SCENES:
            if name not in self.play.fields and getattr(self, name) != defaults[name]:
                readers = ", ".join(scene for scene, play in SCENES.items() if name in play.fields)
                raise InputError(f"world.{name} belongs to {readers}: leave it out in scene {self.scene}")
        self.play.check(self)

    @property
    def play(self) -> Scene:
        """What the scene's name stands for."""
        return SCENES[self.scene]

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
        return self.play.toys(self)

    @property
    def entries(self) -> int:
        """Segments before the gap begins; the return is segment `entries + gap`.

        Raises:
            InputError: the scene has no return.
        """
        if self.play.entries is None:
            raise InputError(f"scene {self.scene} has no return: leave gap out")
        return self.play.entries

    @property
    def has_return(self) -> bool:
        """Whether something returns, so that recall can be asked for."""
        return self.play.entries is not None

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
        gap = segments - self.entries - 1
        if gap < 0:
            raise InputError(
                f"scene {self.scene} needs {self.entries + 1} segments or more for an entry and a return, "
                f"but the clip has {segments}: raise segments"
            )
        return gap
