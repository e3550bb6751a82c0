"""What must not depend on the identity, as a check that a user can run on any clip.

With these rules a model that sees only FramePack's reach is at chance beyond it, whatever it learned: a score above
chance is then a fault in the code that builds its context.
"""

import numpy as np

from mpjax.data.recallworld.clips import Clip, sample_clip
from mpjax.data.recallworld.render import render, render_background
from mpjax.data.recallworld.sprites import COLOUR_NAMES, SHAPE_NAMES
from mpjax.data.recallworld.world import World


def hidden_frames(clip: Clip) -> np.ndarray:
    """Frames that show no toy, bool `[T]`: the reference frame and those in which only the distractor is there."""
    toys = clip.sprites < clip.world.ids
    return np.logical_not(clip.visible[toys].any(axis=0))


def find_leaks(world: World, clip_seed: int, segments: int, gap: int | None = None) -> list[str]:
    """Change nothing but the identities of a clip and name everything else that changes with them.

    Args:
        world, clip_seed, segments, gap: a clip, as for `sample_clip`.

    Returns:
        One sentence per broken rule; an empty list means that the clip is sound.

    Raises:
        InputError: as `sample_clip`.
    """
    clip = sample_clip(world, clip_seed, segments, gap)
    variants = [
        sample_clip(world, clip_seed, segments, gap, identities=[(i + shift) % world.ids for i in clip.identities])
        for shift in range(1, world.ids)
    ]
    return compare_variants([clip, *variants])


def compare_variants(clips: list[Clip]) -> list[str]:
    """Name what differs between clips that should differ in the identities of their toys alone.

    Returns:
        One sentence per broken rule.
    """
    clip, world = clips[0], clips[0].world
    video, background = render(world, clips), render_background(world, clips)
    hidden = hidden_frames(clip)
    names = {*COLOUR_NAMES[: world.colours], *SHAPE_NAMES[: world.shapes]}
    rules = {
        "the reference frame depends on the identity": (video[:, 0] != video[:1, 0]).any(),
        "the reference frame shows more than the background": (video[:, 0] != background[:, 0]).any(),
        "a hidden frame depends on the identity": (video[:, hidden] != video[:1, hidden]).any(),
        "the background depends on the identity": (background != background[:1]).any(),
        "when an object is visible depends on the identity": any((c.visible != clip.visible).any() for c in clips),
        "where an object moves depends on the identity": any((c.positions != clip.positions).any() for c in clips),
        "a prompt depends on the identity": any(c.prompts != clip.prompts for c in clips),
        "a prompt names a colour or a shape": any(names & {*p.lower().split()} for c in clips for p in c.prompts),
        "the gap or the target depends on the identity": any(
            (c.gap, c.target, c.return_segment) != (clip.gap, clip.target, clip.return_segment) for c in clips
        ),
    }
    return [rule for rule, broken in rules.items() if broken]
