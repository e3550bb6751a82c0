import hashlib

import numpy as np
import pytest

from mpjax.data.recallworld.clips import sample_clip, sidecar
from mpjax.data.recallworld.render import render, render_background
from mpjax.data.recallworld.sprites import COLOURS, shape_masks, sprite_table
from mpjax.data.recallworld.world import World
from mpjax.errors import InputError

SHAPES = {
    "square": ["####", "####", "####", "####"],
    "ring": ["####", "#..#", "#..#", "####"],
    "cross": ["#..#", ".##.", ".##.", "#..#"],
    "triangle": ["#...", "##..", "###.", "####"],
    "disc": [".##.", "####", "####", ".##."],
}
PAINT = {
    "red": (1, -1, -1),
    "green": (-1, 1, -1),
    "blue": (-1, -1, 1),
    "yellow": (1, 1, -1),
    "magenta": (1, -1, 1),
    "cyan": (-1, 1, 1),
    "black": (-1, -1, -1),
    "orange": (1, 0, -1),
    "white": (1, 1, 1),
    "grey": (0.7, 0.7, 0.7),
}
WORLDS = {
    "R1": World(),
    "R1-wide": World(frame_size=16, colours=8, shapes=3),
    "R2": World(scene="R2", prompt_bytes=24),
    "D1": World(scene="D1"),
    "D1-balls": World(scene="D1", balls=3, frame_size=16, stripe=True),
    "D1-free": World(scene="D1", motion="free"),
    "D1-turn": World(scene="D1", turn=0.3),
    "R3": World(scene="R3"),
    "R4": World(scene="R4", frame_size=12),
    "R5": World(scene="R5"),
    "R6": World(scene="R6", frame_size=12),
    "D2": World(scene="D2"),
}


def paint(told):
    """The frames of a sidecar, pixel by pixel in Python floats: independent of the renderer."""
    size = told["world"]["frame_size"]
    scene = told["background"]
    video = np.zeros((len(told["frames"]), size, size, 3))
    for t, frame in enumerate(told["frames"]):
        for y in range(size):
            for x in range(size):
                along = scene["slope"][0] * (2 * y / (size - 1) - 1) + scene["slope"][1] * (2 * x / (size - 1) - 1)
                middle = scene["middle"]
                if scene["panorama"] is not None:
                    middle, along = scene["panorama"][frame["pan"] + 1 + x // 4], 2 * y / (size - 1) - 1
                for c in range(3):
                    video[t, y, x, c] = middle[c] + scene["contrast"][c] * along
                if scene["stripe"] is not None and (scene["stripe"] + t) % size == x:
                    video[t, y, x] += 0.15
                if frame["curtain"]:
                    video[t, y, x] = -0.4 + 0.8 * (x % 4) / 3
        for thing in frame["objects"]:
            for i, line in enumerate(SHAPES[thing["shape"]]):
                for j, mark in enumerate(line):
                    if mark == "#":
                        video[t, thing["row"] + i, thing["column"] + j] = PAINT[thing["colour"]]
    return video


@pytest.mark.parametrize("name", WORLDS)
def test_render_against_a_painter_by_hand(name):
    world = WORLDS[name]
    clips = [sample_clip(world, seed, 5) for seed in range(6)]
    video = render(world, clips)
    assert video.dtype == np.float32 and np.abs(video).max() <= 1
    for clip, frames in zip(clips, video, strict=True):
        np.testing.assert_allclose(frames, paint(sidecar(clip)), atol=2e-7)
    background = render_background(world, clips)
    assert background.shape == video.shape
    np.testing.assert_array_equal(background[:, 0], video[:, 0])
    # Everything but toys and the ball is background.
    for clip, behind in zip(clips, background, strict=True):
        told = sidecar(clip)
        for frame in told["frames"]:
            frame["objects"] = [thing for thing in frame["objects"] if thing["kind"] == "box"]
        np.testing.assert_allclose(behind, paint(told), atol=2e-7)


@pytest.mark.parametrize(
    ("name", "digest"),
    [
        ("R1", "ea7e1ad348171ddb24cc303d56a83fd7d185996f0fe5ce4f36e5c1561fbe9e7d"),
        ("R2", "ba11456dfd4145914f154d9321f106fc01d94d6c27618545735b316148e75fab"),
        ("D1", "bc98b06cd02556fa40325c1ef1c75cca7367022c7499222d70e83b451145cc62"),
        ("D1-balls", "76a14f0c3b8e38958523f8eb7b4b87b898338525b7f09b51828a91bf331da750"),
        ("D1-free", "4666120dd8945442b61115206796bd8299cb81313acae5f02426e965c0bf97a6"),
        ("D1-turn", "09d37ab426a8bcb868f0ed64d518544d5aae8b9601a0c86871b443c34917680d"),
        ("R3", "b487aa2551ac8f2f80e44b58f0d0a901161ded0e356c054c4445aa460f062a50"),
        ("R4", "d2a9ee9dd0407c87a59e9091bafd2bbe3120315817ceb5d05c9139b016af333a"),
        ("R5", "eea213f6051afcd2d11f518ed174d9ed3697698a9f245b59114628f1456fbddf"),
        ("R6", "4d9934e772c20d827238e8f21772c6dada12c25e1cdb93e754f2a4e484c49923"),
        ("D2", "5d2b9f4b306a47eea1c41b71cd3dc8337d9776cae23d0b978ec18e3b68674085"),
    ],
)
def test_clips_never_change(name, digest):
    world = WORLDS[name]
    video = render(world, [sample_clip(world, 2024, 6)])
    assert hashlib.sha256(video.astype("<f4").tobytes()).hexdigest() == digest


def test_rendering_together_equals_rendering_apart():
    for world in WORLDS.values():
        clips = [sample_clip(world, seed, 4) for seed in range(5)]
        apart = np.concatenate([render(world, [clip]) for clip in clips])
        np.testing.assert_array_equal(render(world, clips), apart)


def test_every_sprite_differs_from_every_other_and_from_every_background():
    for world in (World(), World(colours=8, shapes=4)):
        masks, colours = sprite_table(world)
        drawn = np.where(masks[..., None], colours[:, None, None], 0.0).reshape(world.ids + 2, -1)
        apart = ((drawn[:, None] - drawn[None]) ** 2).sum(-1)
        assert (apart + 1e9 * np.eye(len(apart))).min() >= 4
    clips = [sample_clip(World(), seed, 2) for seed in range(300)]
    background = render_background(World(), clips)
    assert np.abs(background).max() <= 0.45
    assert np.ptp(background, axis=(1, 2, 3)).min() > 0.1
    # Some channel of each colour is .55 or more away from anything the background can be.
    assert (np.abs(COLOURS).max(axis=1) - 0.45 >= 0.55).all()


def test_shapes_at_other_sizes_are_distinct():
    for patch in (5, 6, 8):
        masks = shape_masks(patch)
        assert len({m.tobytes() for m in masks}) == 5
        assert masks.any(axis=(1, 2)).all()


def test_wrong_clips_are_refused():
    world = WORLDS["R1"]
    with pytest.raises(InputError, match="no clip"):
        render(world, [])
    with pytest.raises(InputError, match="another world"):
        render(world, [sample_clip(WORLDS["R2"], 0, 4)])
    with pytest.raises(InputError, match="equal length"):
        render(world, [sample_clip(world, 0, 4), sample_clip(world, 0, 5)])
