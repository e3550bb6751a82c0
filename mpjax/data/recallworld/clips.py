"""The true state of a clip, drawn from one integer."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from mpjax.data.recallworld.scenes.base import WHITE_BALL
from mpjax.data.recallworld.sprites import COLOUR_NAMES, SHAPE_NAMES
from mpjax.data.recallworld.stream import CONTRAST, CONTRAST_SIGN, GAP, MIDDLE, SLOPE, STRIPE, WORDS, uniforms
from mpjax.data.recallworld.world import World
from mpjax.errors import InputError

SPLITS = ("validation", "train")
_SEED_BITS, _STEP_BITS, _INDEX_BITS = 32, 48, 32


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Clip:
    """The true state of one clip of s segments: everything `render` draws, and nothing else.

    Frames count from the reference frame, index 0; segment n has frames 1 + n·f to n·f + f. T = 1 + s·f.

    Attributes:
        world: the world it lives in.
        seed: the integer it was drawn from.
        identities: the toys in order of appearance, each 0..ids-1.
        target: which of them returns, an index into `identities`; None in a scene without a return, as the next two.
        gap: hidden segments before the return.
        return_segment: index of the segment of the return.
        sprites: what each object is drawn as, int `[o]`: an identity, `world.ids` for the white ball, or
            `world.ids + 1` for a closed box.
        positions: top-left pixel (row, column) of each object, int `[o, T, 2]`; where it is not visible, undefined.
        visible: bool `[o, T]`. No two visible objects overlap.
        middle, contrast: background colour halfway and its half-difference over the gradient, float32 `[3]`.
        slope: gradient direction (rows, columns), float32 `[2]`, absolute values add up to 1.
        stripe: column of the stripe in the reference frame; None without one.
        prompts: one prompt per segment.
        curtain: R4: frames that show nothing but the curtain, bool `[T]`; else None.
        pan: R5: cell of the panorama at the left edge of the frame, int `[T]`; else None.
        panorama: R5: colour halfway of each column of cells, in the place of `middle`, float32 `[columns, 3]`, the
            first is cell -1; else None.
    """

    world: World
    seed: int
    identities: tuple[int, ...]
    target: int | None
    gap: int | None
    return_segment: int | None
    sprites: np.ndarray
    positions: np.ndarray
    visible: np.ndarray
    middle: np.ndarray
    contrast: np.ndarray
    slope: np.ndarray
    stripe: int | None
    prompts: tuple[str, ...]
    curtain: np.ndarray | None = None
    pan: np.ndarray | None = None
    panorama: np.ndarray | None = None

    @property
    def target_identity(self) -> int | None:
        """Identity of the toy that returns; None in a scene without a return."""
        return None if self.target is None else self.identities[self.target]

    @property
    def target_shown(self) -> tuple[np.ndarray, np.ndarray]:
        """The toy that returns: where it is, int `[T, 2]`, and when it is visible, bool `[T]`."""
        slot = int(np.flatnonzero(self.sprites == self.target_identity)[0])
        return self.positions[slot], self.visible[slot]


def clip_seed(*, seed: int, split: str, step: int, index: int) -> int:
    """The seed of clip `index` of batch `step`: one integer below 2^113, different for every combination.

    The splits share no clip, whatever the seeds; small integers written by hand are validation clips.

    Args:
        seed: 0..2^32-1.
        split: "train" or "validation".
        step: 0..2^48-1.
        index: 0..2^32-1.

    Raises:
        InputError: a value is out of its range.
    """
    if split not in SPLITS:
        raise InputError(f"split is {split!r}: choose train or validation")
    for name, value, bits in (("seed", seed, _SEED_BITS), ("step", step, _STEP_BITS), ("index", index, _INDEX_BITS)):
        if not 0 <= value < 1 << bits:
            raise InputError(f"{name} is {value}: use 0 to 2^{bits} - 1")
    return (((SPLITS.index(split) << _SEED_BITS | seed) << _STEP_BITS) | step) << _INDEX_BITS | index


def sample_clip(
    world: World, clip_seed: int, segments: int, gap: int | None = None, *, identities: Sequence[int] | None = None
) -> Clip:
    """Draw the true state of one clip.

    A pure function of its arguments. With a given gap, a longer clip only appends to a shorter one.

    Args:
        world: the world.
        clip_seed: 0..2^128-1.
        segments: number of segments, 1 or more.
        gap: hidden segments before the return. None draws one from 0 to the longest that fits.
        identities: show these toys instead of the drawn ones; all else stays as it is.

    Raises:
        InputError: the gap does not fit, or the scene has none; the identities do not suit the world.
    """
    if segments < 1:
        raise InputError(f"segments is {segments}: use 1 or more")
    if not 0 <= clip_seed < 1 << 128:
        raise InputError(f"clip_seed is {clip_seed}: use 0 to 2^128 - 1")
    draws = uniforms(clip_seed, WORDS)
    chosen = world.play.identities(world, draws) if identities is None else _check_identities(world, identities)
    if world.has_return or gap is not None:
        largest = world.largest_gap(segments)
        if gap is None:
            gap = int(draws[GAP] * (largest + 1))
        if not 0 <= gap <= largest:
            raise InputError(f"gap is {gap}: use 0 to {largest} in a {world.scene} clip of {segments} segments")
    story = world.play.story(world, clip_seed, draws, segments, gap or 0)
    sign = np.where(draws[CONTRAST_SIGN : CONTRAST_SIGN + 3] < 0.5, -1.0, 1.0)
    across = 2 * draws[SLOPE] - 1
    return Clip(
        world=world,
        seed=clip_seed,
        identities=tuple(chosen),
        target=story.target,
        gap=gap,
        return_segment=story.return_segment,
        sprites=np.asarray([chosen[i] if i >= 0 else world.ids + WHITE_BALL - i for i in story.objects]),
        positions=story.positions,
        visible=story.visible,
        # At most .2 + .25 from grey, so that no background comes near a toy's saturated colour; at least .1 of
        # contrast, so that gain and bias can be told apart.
        middle=(0.4 * draws[MIDDLE : MIDDLE + 3] - 0.2).astype(np.float32),
        contrast=(sign * (0.1 + 0.15 * draws[CONTRAST : CONTRAST + 3])).astype(np.float32),
        slope=np.asarray([1 - abs(across), across], np.float32),
        stripe=int(draws[STRIPE] * world.frame_size) if world.stripe else None,
        prompts=story.prompts,
        curtain=story.curtain,
        pan=story.pan,
        panorama=story.panorama,
    )


def sidecar(clip: Clip) -> dict:
    """The ground truth of a clip as plain JSON: the whole state, then every frame with its objects."""
    world = clip.world
    frames = []
    for frame in range(clip.visible.shape[1]):
        segment = None if frame == 0 else (frame - 1) // world.segment_frames
        objects = [
            {
                **_describe(world, int(clip.sprites[slot])),
                "row": int(clip.positions[slot, frame, 0]),
                "column": int(clip.positions[slot, frame, 1]),
            }
            for slot in np.flatnonzero(clip.visible[:, frame])
        ]
        prompt = None if segment is None else clip.prompts[segment]
        frames.append(
            {
                "frame": frame,
                "segment": segment,
                "prompt": prompt,
                "objects": objects,
                "curtain": clip.curtain is not None and bool(clip.curtain[frame]),
                "pan": None if clip.pan is None else int(clip.pan[frame]),
            }
        )
    return {
        "world": {**dataclasses.asdict(world), "reach": list(world.reach)},
        "seed": clip.seed,
        "identities": list(clip.identities),
        "target": clip.target,
        "target_identity": clip.target_identity,
        "gap": clip.gap,
        "return_segment": clip.return_segment,
        "background": {
            "middle": clip.middle.tolist(),
            "contrast": clip.contrast.tolist(),
            "slope": clip.slope.tolist(),
            "stripe": clip.stripe,
            "panorama": None if clip.panorama is None else clip.panorama.tolist(),
        },
        "prompts": list(clip.prompts),
        "frames": frames,
    }


def _describe(world: World, sprite: int) -> dict:
    if sprite == world.ids:
        return {"kind": "distractor", "identity": None, "colour": "white", "shape": "disc"}
    if sprite > world.ids:
        return {"kind": "box", "identity": None, "colour": "grey", "shape": "square"}
    colour, shape = COLOUR_NAMES[world.colour_of(sprite)], SHAPE_NAMES[world.shape_of(sprite)]
    return {"kind": "toy", "identity": sprite, "colour": colour, "shape": shape}


def _check_identities(world: World, identities: Sequence[int]) -> list[int]:
    chosen = [int(identity) for identity in identities]
    if len(chosen) != world.toys or len(set(chosen)) != len(chosen) or not all(0 <= i < world.ids for i in chosen):
        raise InputError(
            f"identities is {chosen}: give {world.toys} different ones from 0 to {world.ids - 1} in {world.scene}"
        )
    world.play.check_identities(world, chosen)
    return chosen
