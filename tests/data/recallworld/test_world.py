import dataclasses

import pytest

from mpjax.data.recallworld.scenes import SCENES
from mpjax.data.recallworld.world import World
from mpjax.errors import InputError


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"scene": "R9"}, "world.scene"),
        ({"motion": "fluid"}, "world.motion"),
        ({"patch": 3}, "world.patch"),
        ({"frame_size": 10}, "world.frame_size"),
        ({"frame_size": 68}, "world.frame_size"),
        ({"frame_size": 4}, "world.frame_size"),
        ({"patch": 8}, "world.patch"),
        ({"colours": 9}, "world.colours"),
        ({"shapes": 0}, "world.shapes"),
        ({"colours": 1, "shapes": 1}, "toys"),
        ({"segment_frames": 0}, "world.segment_frames"),
        ({"fps": 0}, "world.fps"),
        ({"reach": ()}, "world.reach"),
        ({"reach": (1, -2)}, "world.reach"),
        ({"scene": "R2"}, "world.prompt_bytes"),
        ({"scene": "D1", "balls": 3}, "world.balls"),
        ({"balls": 2}, "D1"),
        ({"stripe": True}, "D1"),
        ({"motion": "free"}, "D1"),
        ({"scene": "D1", "motion": "free", "balls": 2}, "world.balls"),
    ],
)
def test_a_wrong_field_is_named(fields, named):
    with pytest.raises(InputError, match=named):
        World(**fields)


def test_derived_sizes_and_frozen():
    world = World(colours=8, shapes=3, frame_size=16)
    assert (world.ids, world.grid, world.toys) == (24, 4, 1)
    assert World(scene="R2", prompt_bytes=24).toys == 2
    assert sorted((world.colour_of(i), world.shape_of(i)) for i in range(24)) == [
        (c, s) for c in range(8) for s in range(3)
    ]
    with pytest.raises(dataclasses.FrozenInstanceError):
        world.balls = 2


def test_prompts_fit_as_documented():
    for name, scene in SCENES.items():
        assert max(len(p.encode()) for p in scene.prompts) <= (22 if name == "R2" else World().prompt_bytes)
        assert all(p.isascii() for p in scene.prompts) and len(set(scene.prompts)) == len(scene.prompts)


def test_beyond_reach_agrees_with_counting_frames():
    for reach in ((1, 2, 4), (1, 2, 8), (1, 2, 16), (4,)):
        world = World(reach=reach)
        for gap in range(8):
            # Frames of a clip up to the return, marked by whether the toy is in them.
            shown = [True] * world.segment_frames + [False] * gap * world.segment_frames
            seen = any(shown[-sum(reach) :])
            assert world.beyond_reach(gap) == (not seen), (reach, gap)


def test_largest_gap():
    assert World().largest_gap(8) == 6
    assert World(scene="R2", prompt_bytes=22).largest_gap(8) == 5
    with pytest.raises(InputError, match="segments"):
        World().largest_gap(1)
    with pytest.raises(InputError, match="D1"):
        World(scene="D1").largest_gap(8)
