import collections
import dataclasses
import json

import numpy as np
import pytest

from mpjax.data.recallworld.clips import clip_seed, sample_clip, sidecar
from mpjax.data.recallworld.stream import uniforms
from mpjax.data.recallworld.trajectories import balls_meet, ring
from mpjax.data.recallworld.world import World
from mpjax.errors import InputError

R1 = World()
R2 = World(scene="R2", prompt_bytes=24)
D1 = World(scene="D1")


def shown(clip, slot):
    """Cells (row, column) of one object by frame, None where it is hidden; the reference frame is left out."""
    patch = clip.world.patch
    return [
        tuple(int(p) // patch for p in clip.positions[slot, t]) if clip.visible[slot, t] else None
        for t in range(1, clip.visible.shape[1])
    ]


def walk_the_wall(start, clockwise, steps, grid):
    """A walker who keeps the wall at one hand, cell by cell: independent of any ring table."""
    headings = [(-1, 0), (0, 1), (1, 0), (0, -1)]
    (row, column), cells = start, [start]
    # In column 0, clockwise goes up and counter-clockwise down.
    heading = 0 if clockwise else 2
    for _ in range(steps):
        for _ in range(4):
            dr, dc = headings[heading]
            if 0 <= row + dr < grid and 0 <= column + dc < grid:
                break
            heading = (heading + (1 if clockwise else -1)) % 4
        row, column = row + dr, column + dc
        cells.append((row, column))
    return cells


def test_ring_visits_every_outer_cell_once_clockwise():
    for grid in (2, 3, 4):
        cells = [tuple(c) for c in ring(grid)]
        outer = {(r, c) for r in range(grid) for c in range(grid) if {r, c} & {0, grid - 1}}
        assert len(cells) == len(outer) and set(cells) == outer
        assert [*cells, cells[0]] == walk_the_wall((0, 0), True, len(cells), grid)


@pytest.mark.parametrize("world", [R1, World(frame_size=16), World(frame_size=12, segment_frames=5)])
def test_r1_story(world):
    f = world.segment_frames
    ways = collections.Counter()
    for seed in range(60):
        segments, gap = 6, seed % 5
        clip = sample_clip(world, seed, segments, gap)
        toy, ball = shown(clip, 0), shown(clip, 1)
        row, column = toy[0]
        assert column == 0
        paths = {way: walk_the_wall((row, 0), way, 5 * f, world.grid) for way in (True, False)}
        way = paths[True][:f] == toy[:f]
        ways[way] += 1
        path = paths[way]
        back = (1 + gap) * f
        assert toy[:f] == path[:f]
        assert toy[f:back] == [None] * gap * f
        assert toy[back:] == path[: segments * f - back]
        assert [b is not None for b in ball] == [f <= t < back for t in range(segments * f)]
        assert clip.return_segment == 1 + gap and clip.target_identity == clip.identities[0]
        expected = ["a toy enters", *["a ball bounces"] * gap, "the toy returns"]
        assert list(clip.prompts) == expected + ["the toy stays"] * (segments - gap - 2)
        assert not clip.visible[:, 0].any()
    assert min(ways[True], ways[False]) > 10


def bounce_walk(start, velocity, steps, size):
    """Step by step, turning round at a wall."""
    place, speed, places = list(start), list(velocity), [tuple(start)]
    for _ in range(steps):
        for axis in range(2):
            for _ in range(abs(speed[axis])):
                if not 0 <= place[axis] + np.sign(speed[axis]) < size:
                    speed[axis] = -speed[axis]
                place[axis] += int(np.sign(speed[axis]))
        places.append(tuple(place))
    return places


def test_the_distractor_bounces():
    for world in (R1, World(frame_size=16)):
        starts = set()
        for seed in range(40):
            ball = [b for b in shown(sample_clip(world, seed, 8, 6), 1) if b is not None]
            starts.add(ball[0])
            walks = [
                bounce_walk(ball[0], (dr, dc), len(ball) - 1, world.grid)
                for dr in (-1, 0, 1)
                for dc in (-1, 0, 1)
                if (dr, dc) != (0, 0)
            ]
            assert ball in walks
        assert len(starts) >= world.grid**2 - 2


def test_r2_story():
    targets = collections.Counter()
    for seed in range(40):
        gap = seed % 4
        clip = sample_clip(R2, seed, 6, gap)
        a, b = clip.identities
        assert a != b
        targets[clip.target] += 1
        toys = [shown(clip, 0), shown(clip, 1)]
        assert None not in toys[0][:4] and toys[0][4:8] == [None] * 4
        assert None not in toys[1][4:8] and toys[1][:4] == [None] * 4
        back = (2 + gap) * 4
        assert toys[clip.target][back : back + 4] == toys[clip.target][clip.target * 4 :][:4]
        assert toys[1 - clip.target][8:] == [None] * 16
        assert [x is not None for x in shown(clip, 2)] == [8 <= t < back for t in range(24)]
        assert clip.prompts[2 + gap] == ("the FIRST toy returns", "the SECOND toy returns")[clip.target]
        assert clip.prompts[:2] == ("a toy enters", "another toy enters")
        assert clip.target_identity == (a, b)[clip.target]
    assert min(targets[0], targets[1]) > 8


@pytest.mark.parametrize(
    "world",
    [
        D1,
        World(scene="D1", balls=2),
        World(scene="D1", balls=3, frame_size=12),
        World(scene="D1", balls=3, frame_size=16),
        World(scene="D1", balls=2, frame_size=12, anchor=True),
    ],
)
def test_d1_bounces_and_never_overlaps(world):
    ways = [(r, c) for r in range(-1, 2) for c in range(-1, 2) if (r, c) != (0, 0)]
    for seed in range(25):
        clip = sample_clip(world, seed, 12)
        assert clip.prompts == ("balls bounce",) * 12
        assert (clip.gap, clip.target, clip.return_segment, clip.target_identity) == (None,) * 4
        assert len(set(clip.identities)) == world.balls
        assert clip.visible[:, 1:].all()
        assert (clip.visible[:, 0] == world.anchor).all()
        places = clip.positions[:, 0 if world.anchor else 1 :] // world.patch
        for path in places.tolist():
            path = [tuple(p) for p in path]
            assert path in [bounce_walk(path[0], way, len(path) - 1, world.grid) for way in ways]
        for t in range(places.shape[1]):
            assert len({tuple(p) for p in places[:, t]}) == world.balls


def test_free_motion_is_the_reflection_of_a_straight_line():
    world = World(scene="D1", motion="free", frame_size=16)
    seen = set()
    for seed in range(30):
        path = sample_clip(world, seed, 12).positions[0, 1:].tolist()
        found = [
            v
            for v in [(r, c) for r in range(-2, 3) for c in range(-2, 3)]
            if path == [[triangle_wave(path[0][k] + v[k] * t, 12) for k in range(2)] for t in range(48)]
        ]
        assert found
        seen.add(found[0])
    assert len(seen) > 10


def triangle_wave(x, top):
    """Mirror at 0 and top until inside."""
    while not 0 <= x <= top:
        x = -x if x < 0 else 2 * top - x
    return x


def test_balls_meet_against_long_simulation():
    world = World(scene="D1", balls=2, frame_size=12)
    rng = np.random.default_rng(0)
    starts = rng.integers(0, 3, (40, 2, 2))
    velocities = rng.integers(-1, 2, (40, 2, 2))
    walked = [
        any(p == q for p, q in zip(*(bounce_walk(s[k], v[k], 60, 3) for k in range(2)), strict=True))
        for s, v in zip(starts.tolist(), velocities.tolist(), strict=True)
    ]
    assert balls_meet(world, starts, velocities).tolist() == walked
    assert 5 < sum(walked) < 38


def test_a_longer_clip_only_appends():
    others = [(World(scene=scene, frame_size=12), 1) for scene in ("R3", "R4", "R5", "R6")]
    moved = [(World(scene="D1", turn=0.3), None), (World(scene="D2"), None)]
    for world, gap in ((R1, 2), (R2, 1), (D1, None), *others, *moved):
        short, long = sample_clip(world, 5, 4, gap), sample_clip(world, 5, 9, gap)
        frames = short.visible.shape[1]
        np.testing.assert_array_equal(short.positions, long.positions[:, :frames])
        np.testing.assert_array_equal(short.visible, long.visible[:, :frames])
        assert short.prompts == long.prompts[:4]
        assert short.identities == long.identities


def test_draws_are_even_and_do_not_tell_the_identity():
    clips = [sample_clip(R1, seed, 8) for seed in range(3000)]
    identity = np.asarray([c.identities[0] for c in clips])
    # 44.3 and 27.9 are the 99.99 % points of chi-square with 15 and with 6 degrees of freedom.
    assert chi_square(np.bincount(identity, minlength=16), np.full(16, 3000 / 16)) < 44.3
    gaps = np.bincount([c.gap for c in clips], minlength=7)
    assert gaps.size == 7 and chi_square(gaps, np.full(7, 3000 / 7)) < 27.9
    row = np.asarray([c.positions[0, 1, 0] for c in clips]) // 4
    for other, levels in ((row, 2), (np.asarray([c.gap for c in clips]), 7)):
        table = np.zeros((16, levels))
        np.add.at(table, (identity, other), 1)
        expected = table.sum(1, keepdims=True) * table.sum(0) / 3000
        freedom = 15 * (levels - 1)
        assert chi_square(table, expected) < freedom + 4 * np.sqrt(2 * freedom)


def chi_square(counts, expected):
    return float(((counts - expected) ** 2 / expected).sum())


def test_uniforms_are_the_raw_stream():
    # The first word of Philox4x64-10 with key 7 and counter 1, as NumPy has given it since version 1.17.
    assert uniforms(7, 1)[0] == (16086915834549238692 >> 11) / 2**53
    assert uniforms(7, 4).tolist() == uniforms(7, 30)[:4].tolist()


def test_clip_seeds_never_collide():
    seeds = [
        clip_seed(seed=s, split=split, step=t, index=i)
        for s in (0, 1, 2**32 - 1)
        for split in ("train", "validation")
        for t in (0, 1, 2**48 - 1)
        for i in (0, 1, 2**32 - 1)
    ]
    assert len(set(seeds)) == len(seeds) and max(seeds) < 2**113
    train = [clip_seed(seed=0, split="train", step=0, index=0)]
    assert min(train) > clip_seed(seed=2**32 - 1, split="validation", step=2**48 - 1, index=2**32 - 1)
    for bad in ({"seed": -1}, {"seed": 2**32}, {"step": -1}, {"index": 2**32}, {"split": "test"}):
        with pytest.raises(InputError, match=next(iter(bad))):
            clip_seed(**{"seed": 0, "split": "train", "step": 0, "index": 0, **bad})


def test_sidecar_is_json_and_says_what_the_clip_holds():
    for world, gap in ((R1, 2), (R2, 1), (World(scene="D1", balls=2, stripe=True), None)):
        clip = sample_clip(world, 11, 5, gap)
        told = json.loads(json.dumps(sidecar(clip)))
        assert World(**{**told["world"], "reach": tuple(told["world"]["reach"])}) == world
        assert told["identities"] == list(clip.identities) and told["gap"] == gap
        assert [frame["segment"] for frame in told["frames"]] == [None] + [n for n in range(5) for _ in range(4)]
        assert [len(frame["objects"]) for frame in told["frames"]] == clip.visible.sum(axis=0).tolist()
        identities = {o["identity"] for frame in told["frames"] for o in frame["objects"] if o["kind"] == "toy"}
        assert identities == set(clip.identities)


@pytest.mark.parametrize(
    ("world", "arguments", "named"),
    [
        (R1, {"segments": 4, "gap": 3}, "gap"),
        (R1, {"segments": 4, "gap": -1}, "gap"),
        (R1, {"segments": 1}, "segments"),
        (R1, {"segments": 0}, "segments"),
        (R2, {"segments": 2}, "segments"),
        (D1, {"segments": 4, "gap": 0}, "gap"),
        (R1, {"segments": 4, "identities": [16]}, "identities"),
        (R2, {"segments": 4, "identities": [3, 3]}, "identities"),
        (R1, {"segments": 4, "clip_seed": -1}, "clip_seed"),
    ],
)
def test_wrong_arguments_are_named(world, arguments, named):
    with pytest.raises(InputError, match=named):
        sample_clip(world, **{"clip_seed": 0, **arguments})


def test_given_identities_change_nothing_else():
    clip, other = sample_clip(R2, 3, 6), sample_clip(R2, 3, 6, identities=[0, 15])
    for field in dataclasses.fields(clip):
        if field.name not in ("identities", "sprites"):
            np.testing.assert_array_equal(getattr(clip, field.name), getattr(other, field.name), err_msg=field.name)
    assert other.identities == (0, 15)


def test_a_fixed_path_leaves_only_the_identity_to_remember():
    clips = [sample_clip(World(path="fixed"), seed, 4, 1) for seed in range(40)]
    for clip in clips:
        np.testing.assert_array_equal(clip.positions[0], clips[0].positions[0])
        np.testing.assert_array_equal(clip.positions[0, 1], [0, 0])
        np.testing.assert_array_equal(clip.positions[0, 2], [0, World().patch])
    varied = [sample_clip(World(), seed, 4, 1) for seed in range(40)]
    assert len({clip.identities for clip in clips}) > 10
    assert [clip.identities for clip in clips] == [clip.identities for clip in varied]
    assert len({clip.positions[0].tobytes() for clip in varied}) == 4
