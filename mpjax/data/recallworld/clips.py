"""The true state of a clip, drawn from one integer.

Every quantity reads its own fixed place in a Philox stream, as raw 64-bit words: NumPy guarantees the raw stream of a
bit generator for ever, the methods of `Generator` it does not. Fixed places also make it impossible for the identity to
shift any other draw, which is what the leak rules ask.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from mpjax.data.recallworld.sprites import COLOUR_NAMES, SHAPE_NAMES
from mpjax.data.recallworld.trajectories import balls_meet, bounce, bounce_range, exit_and_return
from mpjax.data.recallworld.world import PROMPTS, World
from mpjax.errors import InputError

SPLITS = ("validation", "train")
_SEED_BITS, _STEP_BITS, _INDEX_BITS = 32, 48, 32

# Places in the stream; a new quantity takes a new place behind the last.
_IDENTITY, _TARGET, _GAP, _DIRECTION = 0, 3, 4, 5
_ENTRY_ROW, _BALL_CELL, _BALL_VELOCITY = 6, 8, 10
_MIDDLE, _CONTRAST, _CONTRAST_SIGN, _SLOPE, _STRIPE = 11, 14, 17, 20, 22
_BOUNCE, _SPEED = 24, 27
_WORDS = 29
_TRIES = 16

VELOCITIES = np.asarray([[0, 1], [0, -1], [1, 0], [-1, 0], [1, 1], [1, -1], [-1, 1], [-1, -1]])
"""The eight directions of a ball, (rows, columns) per frame."""


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Clip:
    """The true state of one clip of s segments: everything `render` draws, and nothing else.

    Frames count from the reference frame, index 0; segment n has frames 1 + n·f to n·f + f. T = 1 + s·f.

    Attributes:
        world: the world it lives in.
        seed: the integer it was drawn from.
        identities: the toys in order of appearance, each 0..ids-1.
        target: which of them returns, an index into `identities`; None in D1.
        gap: hidden segments before the return; None in D1.
        return_segment: index of the segment of the return; None in D1.
        sprites: what each object is drawn as, int `[o]`: an identity, or `world.ids` for the white ball.
        positions: top-left pixel (row, column) of each object, int `[o, T, 2]`; where it is not visible, undefined.
        visible: bool `[o, T]`. No two visible objects overlap.
        middle, contrast: background colour halfway and its half-difference over the gradient, float32 `[3]`.
        slope: gradient direction (rows, columns), float32 `[2]`, absolute values add up to 1.
        stripe: column of the stripe in the reference frame; None without one.
        prompts: one prompt per segment.
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

    @property
    def target_identity(self) -> int | None:
        """Identity of the toy that returns; None in D1."""
        return None if self.target is None else self.identities[self.target]


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


def uniforms(key: int, count: int) -> np.ndarray:
    """`count` numbers in [0, 1), float64, the same on every machine and NumPy version. `key` is 0..2^128-1."""
    return (np.random.Philox(key=key).random_raw(count) >> np.uint64(11)) * 2.0**-53


def sample_clip(
    world: World, clip_seed: int, segments: int, gap: int | None = None, *, identities: Sequence[int] | None = None
) -> Clip:
    """Draw the true state of one clip.

    A pure function of its arguments. With a given gap, a longer clip only appends to a shorter one.

    Args:
        world: the world.
        clip_seed: 0..2^128-1.
        segments: number of segments, 1 or more.
        gap: hidden segments before the return (R1, R2). None draws one from 0 to the longest that fits.
        identities: show these toys instead of the drawn ones; all else stays as it is.

    Raises:
        InputError: the gap does not fit, or the scene has none; the identities do not suit the world.
    """
    if segments < 1:
        raise InputError(f"segments is {segments}: use 1 or more")
    if not 0 <= clip_seed < 1 << 128:
        raise InputError(f"clip_seed is {clip_seed}: use 0 to 2^128 - 1")
    draws = uniforms(clip_seed, _WORDS)
    if identities is None:
        chosen = _distinct(draws[_IDENTITY : _IDENTITY + world.toys], world.ids)
    else:
        chosen = _check_identities(world, identities)
    if world.scene == "D1":
        if gap is not None:
            raise InputError("scene D1 has no return: leave gap out")
        positions, visible = bounce(world, segments, *_draw_bounce(world, clip_seed, draws))
        sprites, target, return_segment = chosen, None, None
        prompts = PROMPTS["D1"] * segments
    else:
        largest = world.largest_gap(segments)
        if gap is None:
            gap = int(draws[_GAP] * (largest + 1))
        if not 0 <= gap <= largest:
            raise InputError(f"gap is {gap}: use 0 to {largest} in a {world.scene} clip of {segments} segments")
        target = int(draws[_TARGET] * world.toys)
        return_segment = world.toys + gap
        positions, visible = exit_and_return(
            world,
            segments,
            return_segment=return_segment,
            target=target,
            clockwise=bool(draws[_DIRECTION] < 0.5) or world.path == "fixed",
            rows=(draws[_ENTRY_ROW : _ENTRY_ROW + world.toys] * world.grid * (world.path == "varied")).astype(int),
            ball_cell=(draws[_BALL_CELL : _BALL_CELL + 2] * world.grid).astype(int),
            ball_velocity=VELOCITIES[int(draws[_BALL_VELOCITY] * len(VELOCITIES))],
        )
        sprites = [*chosen, world.ids]
        prompts = _recall_prompts(world, segments, gap, target)
    sign = np.where(draws[_CONTRAST_SIGN : _CONTRAST_SIGN + 3] < 0.5, -1.0, 1.0)
    across = 2 * draws[_SLOPE] - 1
    return Clip(
        world=world,
        seed=clip_seed,
        identities=tuple(chosen),
        target=target,
        gap=gap,
        return_segment=return_segment,
        sprites=np.asarray(sprites),
        positions=positions,
        visible=visible,
        # At most .2 + .25 from grey, so that no background comes near a toy's saturated colour; at least .1 of
        # contrast, so that gain and bias can be told apart.
        middle=(0.4 * draws[_MIDDLE : _MIDDLE + 3] - 0.2).astype(np.float32),
        contrast=(sign * (0.1 + 0.15 * draws[_CONTRAST : _CONTRAST + 3])).astype(np.float32),
        slope=np.asarray([1 - abs(across), across], np.float32),
        stripe=int(draws[_STRIPE] * world.frame_size) if world.stripe else None,
        prompts=prompts,
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
        frames.append({"frame": frame, "segment": segment, "prompt": prompt, "objects": objects})
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
        },
        "prompts": list(clip.prompts),
        "frames": frames,
    }


def _describe(world: World, sprite: int) -> dict:
    if sprite == world.ids:
        return {"kind": "distractor", "identity": None, "colour": "white", "shape": "disc"}
    colour, shape = COLOUR_NAMES[world.colour_of(sprite)], SHAPE_NAMES[world.shape_of(sprite)]
    return {"kind": "toy", "identity": sprite, "colour": colour, "shape": shape}


def _distinct(draws: np.ndarray, ids: int) -> list[int]:
    """One identity per draw, all different, every choice equally likely."""
    left = list(range(ids))
    return [left.pop(int(draw * len(left))) for draw in draws]


def _check_identities(world: World, identities: Sequence[int]) -> list[int]:
    chosen = [int(identity) for identity in identities]
    if len(chosen) != world.toys or len(set(chosen)) != len(chosen) or not all(0 <= i < world.ids for i in chosen):
        raise InputError(
            f"identities is {chosen}: give {world.toys} different ones from 0 to {world.ids - 1} in {world.scene}"
        )
    return chosen


def _recall_prompts(world: World, segments: int, gap: int, target: int) -> tuple[str, ...]:
    entries, others = PROMPTS[world.scene][: world.toys], PROMPTS[world.scene][world.toys :]
    ball, *returns, stays = others
    after = segments - world.toys - gap - 1
    return (*entries, *(ball,) * gap, returns[target], *(stays,) * after)


def _draw_bounce(world: World, clip_seed: int, draws: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Starts and velocities `[balls, 2]` of balls that never share a cell."""
    size = bounce_range(world)
    if world.balls == 1:
        tries = draws[_BOUNCE : _BOUNCE + 3].reshape(1, 1, 3)
    else:
        words = uniforms(clip_seed, _WORDS + _TRIES * world.balls * 3)
        tries = words[_WORDS:].reshape(_TRIES, world.balls, 3)
    starts = (tries[..., :2] * size).astype(int)
    velocities = VELOCITIES[(tries[..., 2] * len(VELOCITIES)).astype(int)]
    if world.motion == "free":
        velocities = velocities * (1 + (draws[_SPEED : _SPEED + 2] * 2).astype(int))
    apart = np.flatnonzero(~balls_meet(world, starts, velocities))
    if apart.size:
        return starts[apart[0]], velocities[apart[0]]
    # A row each: no encounter is possible.
    rows = np.stack([np.arange(world.balls), starts[0, :, 1]], axis=-1)
    return rows, np.broadcast_to(VELOCITIES[0], rows.shape)
