"""Scenes R3 to R6, D2 and turning balls: each story against its own words, told frame by frame."""

import collections
import itertools

import numpy as np
import pytest

from mpjax.data.recallworld.clips import sample_clip
from mpjax.data.recallworld.render import render
from mpjax.data.recallworld.scenes import SCENES
from mpjax.data.recallworld.stream import BOUNCE, PANORAMA, TURNS, WORDS, uniforms
from mpjax.data.recallworld.world import World
from mpjax.errors import InputError


def cell(clip, slot, frame):
    return tuple(int(p) // clip.world.patch for p in clip.positions[slot, frame])


def around(grid):
    """The outer cells, clockwise from the top left, by turning right at each corner."""
    place, heading, cells = [0, 0], [0, 1], []
    for _ in range(4 * (grid - 1)):
        cells.append(tuple(place))
        if not all(0 <= place[k] + heading[k] < grid for k in range(2)):
            heading = [heading[1], -heading[0]]
        place = [place[0] + heading[0], place[1] + heading[1]]
    return cells


def test_blocks_of_the_stream_do_not_overlap():
    words = [uniforms(7, 50, block).tolist() for block in range(6)]
    assert len({word for block in words for word in block}) == 300


@pytest.mark.parametrize("frames", [2, 4, 5])
def test_r3_repaints_the_toy_in_view_and_returns_the_latest_state(frames):
    world = World(scene="R3", segment_frames=frames)
    for seed in range(30):
        gap = seed % 4
        clip = sample_clip(world, seed, 7, gap)
        first, latest = clip.identities
        assert world.shape_of(first) == world.shape_of(latest) and world.colour_of(first) != world.colour_of(latest)
        assert clip.target == 1 and clip.target_identity == latest
        back, half = 1 + (2 + gap) * frames, 1 + frames + frames // 2
        shown = [(1 <= t < half, half <= t < 1 + 2 * frames or t >= back) for t in range(1 + 7 * frames)]
        assert list(zip(*clip.visible[:2].tolist(), strict=True)) == shown
        # It hops on while it is repainted.
        ring = around(world.grid)
        walk = [ring.index(cell(clip, int(t >= half), t)) for t in range(1, 1 + 2 * frames)]
        assert len({(b - a) % len(ring) for a, b in itertools.pairwise(walk)}) == 1
        assert cell(clip, 1, back) == cell(clip, 0, 1)
        assert clip.prompts[:2] == ("a toy enters", "it is repainted") and clip.prompts[2 + gap] == "the toy returns"


def test_r3_states_are_even():
    clips = [sample_clip(World(scene="R3"), seed, 4) for seed in range(3200)]
    for state in range(2):
        counts = np.bincount([clip.identities[state] for clip in clips], minlength=16)
        assert ((counts - 200) ** 2 / 200).sum() < 44.3  # 99.99 % point of chi-square with 15 degrees of freedom
    colour = World().colour_of
    pairs = collections.Counter((colour(a), colour(b)) for a, b in (clip.identities for clip in clips))
    assert len(pairs) == 12


@pytest.mark.parametrize(("size", "frames"), [(8, 4), (12, 3), (16, 5)])
def test_r4_the_toy_goes_on_behind_the_curtain(size, frames):
    world = World(scene="R4", frame_size=size, segment_frames=frames)
    ring = around(world.grid)
    for seed in range(20):
        gap = seed % 4
        clip = sample_clip(world, seed, 6, gap)
        back = 1 + (1 + gap) * frames
        hidden = [1 + frames <= t < back for t in range(1 + 6 * frames)]
        assert clip.curtain.tolist() == hidden
        assert clip.visible[0].tolist() == [t > 0 and not h for t, h in enumerate(hidden)]
        start = ring.index(cell(clip, 0, 1))
        way = (ring.index(cell(clip, 0, 2)) - start + 1) % len(ring) - 1
        assert way in (1, -1)
        for t in range(1, 1 + 6 * frames):
            assert cell(clip, 0, t) == ring[(start + way * (t - 1)) % len(ring)]
        video = render(world, [clip])[0]
        assert len({frame.tobytes() for frame in video[hidden]}) == (gap > 0)


def test_r4_same_curtain_in_all_clips():
    world = World(scene="R4")
    frames = [render(world, [sample_clip(world, seed, 4, 1)])[0, 5] for seed in range(2)]
    np.testing.assert_array_equal(*frames)


@pytest.mark.parametrize(("size", "frames"), [(8, 4), (12, 3), (16, 6)])
def test_r5_comes_back_over_the_same_cells_in_reverse(size, frames):
    world = World(scene="R5", frame_size=size, segment_frames=frames)
    columns = set()
    for seed in range(40):
        gap = seed % 5
        clip = sample_clip(world, seed, 8, gap)
        video = render(world, [clip])[0]
        out, back = slice(1, 1 + frames), slice(1 + (1 + gap) * frames, 1 + (2 + gap) * frames)
        np.testing.assert_array_equal(video[back], video[out][::-1])
        assert np.abs(np.diff(clip.pan[: back.stop])).max() == 1 and clip.pan[0] == -1
        assert (clip.pan[back.stop - 1 :] == 0).all() and clip.pan.max() == ((2 + gap) * frames - 1) // 2
        # The landmark stands still in the world, is seen in segment 0 and later only from the return on.
        seen = clip.visible[0]
        assert seen[out].any() and not seen[: out.start].any() and not seen[out.stop : back.start].any()
        places = {tuple(p // 4 + [0, pan]) for p, pan in zip(clip.positions[0], clip.pan, strict=True)}
        assert len(places) == 1
        columns |= {column for _, column in places}
        assert (clip.positions[0, seen] >= 0).all() and (clip.positions[0, seen] <= size - 4).all()
        # Neighbouring frames share all but one column of cells.
        moving = np.flatnonzero(np.diff(clip.pan) == 1)
        plain = [t for t in moving if not (seen[t] or seen[t + 1])]
        for t in plain[:5]:
            np.testing.assert_array_equal(video[t][:, 4:], video[t + 1][:, :-4])
    assert columns == set(range(world.grid - 1, frames))
    assert uniforms(0, 2, PANORAMA).tolist() == uniforms(0, 9, PANORAMA)[:2].tolist()


@pytest.mark.parametrize(("size", "frames"), [(8, 4), (8, 3), (12, 5)])
def test_r6_follow_the_boxes_by_eye(size, frames):
    world = World(scene="R6", frame_size=size, segment_frames=frames)
    asked = collections.Counter()
    for seed in range(80):
        gap = seed % 5
        clip = sample_clip(world, seed, 7, gap)
        corners = [(0, 0), (world.grid - 1,) * 2]
        assert [cell(clip, toy, 1) for toy in range(2)] == corners
        # Left and right change with every swap, whatever the path of the boxes.
        left = (0, 1)
        for prompt in clip.prompts[1 : 1 + gap]:
            assert prompt in ("the boxes swap", "the boxes rest")
            left = left[::-1] if prompt == "the boxes swap" else left
        side = {"the LEFT opens": 0, "the RIGHT opens": 1}[clip.prompts[1 + gap]]
        assert clip.target == left[side]
        asked[side, clip.target] += 1
        back = 1 + (1 + gap) * frames
        assert cell(clip, clip.target, back) == corners[side]
        for t in range(1, 1 + 7 * frames):
            shown = [slot for slot in range(4) if clip.visible[slot, t]]
            assert len(shown) == 2 and len({cell(clip, slot, t) for slot in shown}) == 2
            kinds = sorted(clip.sprites[slot] > world.ids for slot in shown)
            assert kinds == ([False] * 2 if t <= frames else [True] * 2 if t < back else [False, True])
        # Boxes move one cell a frame or not at all.
        steps = np.abs(np.diff(clip.positions[:, 1:], axis=1)).sum(axis=-1)
        assert set(np.unique(steps)) <= {0, 4}
    assert min(asked.values()) > 8 and len(asked) == 4


def test_d2_obeys_its_prompts():
    changes = 0
    for size, frames in ((8, 4), (12, 4), (12, 3)):
        world = World(scene="D2", frame_size=size, segment_frames=frames)
        ring = around(world.grid)
        for seed in range(20):
            clip = sample_clip(world, seed, 8)
            changes += sum(a != b for a, b in itertools.pairwise(clip.prompts))
            assert clip.visible[0].tolist() == [False] + [True] * 8 * frames
            at, debt = ring.index(cell(clip, 0, 0)), 0.0
            for t in range(1, 1 + 8 * frames):
                pace, way = clip.prompts[(t - 1) // frames].split()
                debt += {"slow": 0.5, "fast": 1.0}[pace] * {"forward": 1, "backward": -1}[way]
                assert cell(clip, 0, t) == ring[(at + int(np.floor(debt))) % len(ring)]
    assert 0.4 < changes / (60 * 7) < 0.6


def test_a_ball_turns_as_often_as_asked_and_stays_on_the_grid():
    world = World(scene="D1", frame_size=16, turn=0.25)
    turned = frames = 0
    ways = collections.Counter()
    for seed in range(60):
        clip = sample_clip(world, seed, 10)
        places = clip.positions[0, 1:] // 4
        assert (clip.positions[0, 1:] % 4 == 0).all() and (places >= 0).all() and (places < 4).all()
        steps = np.diff(places, axis=0)
        assert (np.abs(steps).max(axis=1) == 1).all()
        # Away from walls a step equals the one before unless the ball has turned.
        for t in range(1, len(steps)):
            if all(0 < p < 3 for p in places[t]):
                frames += 1
                turned += (steps[t] != steps[t - 1]).any()
                ways[tuple(steps[t])] += 1
    assert abs(turned / frames - 0.25) < 0.05 and len(ways) == 8


def test_turning_leaves_every_other_draw_as_it_was():
    plain, turning = World(scene="D1", frame_size=12), World(scene="D1", frame_size=12, turn=0.5)
    for seed in range(10):
        a, b = sample_clip(plain, seed, 6), sample_clip(turning, seed, 6)
        assert a.identities == b.identities and (a.middle == b.middle).all()
        np.testing.assert_array_equal(a.positions[:, 1], b.positions[:, 1])
        # Up to the first turn they move alike.
        happens = uniforms(seed, 48, TURNS)[::2] < 0.5
        first = 1 + int(happens[1:].argmax())
        np.testing.assert_array_equal(a.positions[:, 1 : 1 + first], b.positions[:, 1 : 1 + first])
    always = World(scene="D1", frame_size=12, turn=1.0)
    assert len({sample_clip(always, seed, 6).positions.tobytes() for seed in range(10)}) == 10
    draws = uniforms(3, WORDS)
    clip = sample_clip(always, 3, 2)
    assert cell(clip, 0, 1) == tuple((draws[BOUNCE : BOUNCE + 2] * 3).astype(int))


@pytest.mark.parametrize(("size", "frames", "aligned"), [(8, 4, True), (12, 4, True), (12, 3, False), (16, 3, False)])
def test_odd_segments_never_line_up(size, frames, aligned):
    world = World(scene="D1", frame_size=size, segment_frames=frames)
    for seed in range(30):
        places = sample_clip(world, seed, 12).positions[0, 1:]
        same = (places[frames:] == places[:-frames]).all(axis=-1)
        assert same.all() if aligned else not same.any()


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"scene": "R3", "colours": 1}, "world.colours"),
        ({"scene": "R3", "segment_frames": 1}, "world.segment_frames"),
        ({"scene": "R5", "segment_frames": 3, "frame_size": 16}, "world.segment_frames"),
        ({"scene": "R6", "segment_frames": 3, "frame_size": 12}, "world.segment_frames"),
        ({"scene": "D2", "segment_frames": 2}, "world.segment_frames"),
        ({"scene": "D1", "turn": 1.5}, "world.turn"),
        ({"scene": "D1", "turn": 0.1, "balls": 2}, "world.balls"),
        ({"scene": "R1", "turn": 0.1}, "D1"),
        ({"scene": "R5", "anchor": True}, "R1, R2, R3, R4"),
        ({"scene": "D2", "path": "fixed"}, "world.path"),
    ],
)
def test_settings_that_a_scene_cannot_play_are_named(fields, named):
    with pytest.raises(InputError, match=named):
        World(**fields)


def test_wrong_states_are_named():
    with pytest.raises(InputError, match="one shape"):
        sample_clip(World(scene="R3"), 0, 4, identities=[0, 5])


def test_scenes_know_only_fields_that_exist():
    names = {name for scene in SCENES.values() for name in scene.fields}
    assert names == {"path", "anchor", "motion", "balls", "stripe", "turn"}
