import dataclasses

import numpy as np
import pytest

from mpjax.data.recallworld.clips import sample_clip
from mpjax.data.recallworld.leaks import compare_variants, find_leaks, hidden_frames
from mpjax.data.recallworld.render import render
from mpjax.data.recallworld.world import World

WORLDS = [
    World(),
    World(frame_size=16, colours=8, shapes=3),
    World(scene="R2", prompt_bytes=24),
    World(scene="D1"),
    World(scene="D1", balls=2, stripe=True),
    World(scene="D1", frame_size=12, segment_frames=3, turn=0.2),
    World(scene="R3"),
    World(scene="R4", frame_size=12, segment_frames=3),
    World(scene="R5", frame_size=12),
    World(scene="R6"),
    World(scene="D2"),
]


@pytest.mark.parametrize("world", WORLDS, ids=lambda w: f"{w.scene}-{w.frame_size}-{w.balls}")
def test_no_clip_leaks(world):
    for seed in range(8):
        assert find_leaks(world, seed, 6) == []


@pytest.mark.parametrize("scene", ["R1", "R2", "R3", "R4", "D1"])
def test_an_anchor_is_the_one_leak_of_its_world(scene):
    world = World(scene=scene, prompt_bytes=24, anchor=True)
    gap = None if scene == "D1" else 1
    assert find_leaks(world, 3, 6, gap) == [
        "the reference frame depends on the identity",
        "the reference frame shows more than the background",
    ]


def test_change_only_the_identity_and_everything_hidden_is_bit_equal():
    world = World()
    clips = [sample_clip(world, 17, 6, 3, identities=[i]) for i in range(world.ids)]
    video = render(world, clips)
    hidden = hidden_frames(clips[0])
    assert hidden.tolist() == [True] + [False] * 4 + [True] * 12 + [False] * 8
    assert len({v[hidden].tobytes() for v in video}) == 1
    assert len({v[~hidden].tobytes() for v in video}) == world.ids
    assert len({clip.prompts for clip in clips}) == 1


@pytest.mark.parametrize(
    ("broken", "rule"),
    [
        (lambda c: {"visible": np.where(np.arange(25) == 0, [[True], [False]], c.visible)}, "the reference frame"),
        (lambda c: {"middle": c.middle + np.float32(0.01)}, "the background"),
        (lambda c: {"positions": c.positions[:, :, ::-1]}, "where an object moves"),
        (lambda c: {"visible": c.visible[:, ::-1]}, "when an object is visible"),
        (lambda c: {"prompts": ("a toy leaves", *c.prompts[1:])}, "a prompt depends"),
        (lambda c: {"prompts": ("a RED toy", *c.prompts[1:])}, "a prompt names"),
        (lambda c: {"sprites": c.sprites[::-1]}, "a hidden frame"),
        (lambda c: {"gap": c.gap + 1}, "the gap"),
    ],
)
def test_every_broken_rule_is_named(broken, rule):
    world = World()
    clips = [sample_clip(world, 1, 6, 3, identities=[i]) for i in (2, 9)]
    tampered = dataclasses.replace(clips[1], **broken(clips[1]))
    assert any(sentence.startswith(rule) for sentence in compare_variants([clips[0], tampered]))
