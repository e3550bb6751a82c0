"""State → frames, for many clips at once."""

from collections.abc import Sequence

import numpy as np

from mpjax.data.recallworld.clips import Clip
from mpjax.data.recallworld.sprites import sprite_table
from mpjax.data.recallworld.world import World
from mpjax.errors import InputError

STRIPE_GAIN = np.float32(0.15)
"""How much brighter the stripe of D1 is than the background."""


def render_background(world: World, clips: Sequence[Clip]) -> np.ndarray:
    """The clips without their toys and the white ball: what the decoders take as known. Boxes and curtain are in it.

    Args:
        world: the world of all clips.
        clips: n clips of equal length.

    Returns:
        float32 `[n, 1 + s·f, H, W, 3]` in [-1, 1]; read-only, since frames that agree share their memory.

    Raises:
        InputError: no clip, clips of another world, or of different lengths.
    """
    video = _plain(world, clips)
    boxes = np.stack([clip.sprites for clip in clips]) > world.ids
    if boxes.any():
        video = _draw(video.copy(), world, clips, boxes)
    curtains = [clip.curtain for clip in clips if clip.curtain is not None]
    if curtains:
        hidden = np.stack(curtains)[..., None, None, None]
        video = np.where(hidden, _curtain(world), video)
    return video


def _plain(world: World, clips: Sequence[Clip]) -> np.ndarray:
    """The bare scenery: colour gradient or panorama, and the stripe."""
    frames = _frames(world, clips)
    axis = np.linspace(-1, 1, world.frame_size, dtype=np.float32)
    slope = np.stack([clip.slope for clip in clips])
    along = slope[:, :1, None] * axis[:, None] + slope[:, 1:, None] * axis
    middle = np.stack([clip.middle for clip in clips])[:, None, None]
    contrast = np.stack([clip.contrast for clip in clips])[:, None, None]
    views = [(clip.panorama, clip.pan) for clip in clips if clip.panorama is not None and clip.pan is not None]
    if views:
        # A gradient from left to right would wander with the camera, so a panorama has only that from top to bottom.
        seen = np.stack([panorama[pan[:, None] + 1 + np.arange(world.grid)] for panorama, pan in views])
        return np.repeat(seen, world.patch, axis=2)[:, :, None] + contrast[:, None] * axis[:, None, None]
    plain = middle + contrast * along[..., None]
    shape = (len(clips), frames, *plain.shape[1:])
    if not world.stripe:
        return np.broadcast_to(plain[:, None], shape)
    first = np.asarray([clip.stripe for clip in clips])
    columns = (first[:, None] + np.arange(frames)) % world.frame_size
    striped = columns[..., None] == np.arange(world.frame_size)
    return plain[:, None] + STRIPE_GAIN * striped[:, :, None, :, None]


def render(world: World, clips: Sequence[Clip]) -> np.ndarray:
    """Draw clips: the reference frame, background only, then the frames of all segments.

    Args:
        world: the world of all clips.
        clips: n clips of equal length.

    Returns:
        float32 `[n, 1 + s·f, H, W, 3]` in [-1, 1].

    Raises:
        InputError: no clip, clips of another world, or of different lengths.
    """
    video = render_background(world, clips).copy()
    return _draw(video, world, clips, np.stack([clip.sprites for clip in clips]) <= world.ids)


def _draw(video: np.ndarray, world: World, clips: Sequence[Clip], chosen: np.ndarray) -> np.ndarray:
    """Draws the chosen objects, bool `[n, o]`, where they are visible, into the video."""
    masks, colours = sprite_table(world)
    visible = np.stack([clip.visible for clip in clips]) & chosen[..., None]
    clip, slot, frame = np.nonzero(visible)
    position = np.stack([clip.positions for clip in clips])[clip, slot, frame]
    sprite = np.stack([clip.sprites for clip in clips])[clip, slot]
    # Visible objects never overlap, so one scatter draws them all.
    which, row, column = np.nonzero(masks[sprite])
    pixel = (clip[which], frame[which], position[which, 0] + row, position[which, 1] + column)
    video[pixel] = colours[sprite[which]]
    return video


def _curtain(world: World) -> np.ndarray:
    """The curtain's folds, float32 `[H, W, 3]`: darker towards the left edge of each cell."""
    fold = np.linspace(-0.4, 0.4, world.patch, dtype=np.float32)
    return np.broadcast_to(np.tile(fold, world.grid)[:, None], (world.frame_size, world.frame_size, 3))


def _frames(world: World, clips: Sequence[Clip]) -> int:
    if not clips:
        raise InputError("there is no clip to render: give one or more")
    if any(clip.world != world for clip in clips):
        raise InputError("a clip belongs to another world than the one given: render it with its own")
    lengths = {clip.visible.shape[1] for clip in clips}
    if len(lengths) > 1:
        raise InputError(f"the clips have {sorted(lengths)} frames: render clips of equal length together")
    return lengths.pop()
