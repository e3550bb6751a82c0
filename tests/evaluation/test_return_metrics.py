import numpy as np
import pytest

from mpjax.data.recallworld.clips import sample_clip
from mpjax.data.recallworld.world import World
from mpjax.errors import InputError
from mpjax.evaluation.obedience_metrics import obedience
from mpjax.evaluation.return_metrics import by_gap, reentry_error, ring_index, ring_steps, timing_error


def test_reentry_error_counts_the_frames_that_show_the_toy():
    truth = np.zeros((2, 3, 2))
    found = np.asarray([[[3, 4], [0, 0], [9, 9]], [[0, 0], [0, 1], [0, 3]]])
    shown = np.asarray([[True, True, False], [False, True, True]])
    np.testing.assert_allclose(reentry_error(found, truth, shown), [2.5, 2.0])
    with pytest.raises(InputError, match="shown"):
        reentry_error(found, truth, np.zeros((2, 3), bool))


def test_by_gap_averages_each_gap_alone():
    rows = by_gap(np.asarray([1.0, 3.0, 7.0]), np.asarray([4, 4, 0]))
    assert [(row["gap"], row["n"], row["mean"]) for row in rows] == [(0, 1, 7.0), (4, 2, 2.0)]
    assert rows[1]["ci95"] == [1.0, 3.0]


def test_ring_index_and_steps():
    world = World(frame_size=12)
    cells = [(0, 0), (0, 1), (0, 2), (1, 2), (2, 2), (2, 1), (2, 0), (1, 0)]
    pixels = np.asarray(cells) * 4
    assert ring_index(world, pixels + 1).tolist() == list(range(8))
    assert ring_steps(world, np.asarray([0, 1, 7, 6, 1, 5, 5])).tolist() == [1, -2, -1, 3, 0, 0]


def test_timing_error_is_the_shorter_way_round():
    world = World(frame_size=12)
    ring = np.asarray([(0, 0), (0, 1), (0, 2), (1, 2), (2, 2), (2, 1), (2, 0), (1, 0)]) * 4
    for late, expected in ((0, 0), (1, 1), (3, 3), (4, 4), (5, 3), (7, 1)):
        places = ring[(np.arange(3) + late) % 8][None]
        assert timing_error(world, places, ring[:3][None], np.ones((1, 3), bool)).tolist() == [expected]


def hand(world, segments, delay=0, speed=1.0, seeds=range(40)):
    """Places, commands and the command before of D2 clips, each late by `delay` frames or moving `speed` times."""
    f, ring = world.segment_frames, 4 * (world.grid - 1)
    places, commands, before = [], [], []
    for seed in seeds:
        clip = sample_clip(world, seed, segments + 1)
        path = clip.positions[0, f:].astype(float)
        index = ring_index(world, path)
        unrolled = np.concatenate([[index[0]], index[0] + np.cumsum(ring_steps(world, index))])
        if delay:
            unrolled = np.concatenate([np.repeat(unrolled[0], delay), unrolled[:-delay]])
        if speed != 1:
            unrolled = unrolled[0] + np.round(speed * (unrolled - unrolled[0]))
        cells = np.asarray([(0, 0), (0, 1), (0, 2), (1, 2), (2, 2), (2, 1), (2, 0), (1, 0)])
        places.append(cells[unrolled.astype(int) % ring] * 4)
        told = [{"slow": 1, "fast": 2}[p.split()[0]] * (1 if "forward" in p else -1) for p in clip.prompts]
        commands.append(told[1:])
        before.append(told[0])
    return np.asarray(places), np.asarray(commands), np.asarray(before)


@pytest.mark.parametrize("frames", [3, 4, 6])
def test_a_hand_that_obeys(frames):
    world = World(scene="D2", frame_size=12, segment_frames=frames)
    report = obedience(world, *hand(world, 6))
    assert {name: row["mean"] for name, row in report.items()} == {
        "heading_error": 0.0,
        "pace_error": 0.0,
        "latency_frames": 0.0,
    }


def test_a_hand_that_is_late_stands_still_or_goes_back():
    world = World(scene="D2", frame_size=12, segment_frames=6)
    places, commands, before = hand(world, 6, delay=2)
    late = obedience(world, places, commands, before)
    fast = np.abs(commands) == 2
    assert 1.0 <= late["latency_frames"]["mean"] <= 2.0 and late["heading_error"]["mean"] < 0.2 and fast.any()
    still = obedience(world, np.repeat(places[:, :1], places.shape[1], axis=1), commands, before)
    assert still["heading_error"] is None and still["pace_error"]["mean"] == pytest.approx(1.0)
    assert 5 <= still["latency_frames"]["mean"] <= 6
    back = obedience(world, *hand(world, 6, speed=-1.0))
    assert back["heading_error"]["mean"] == 1.0 and back["pace_error"]["mean"] == pytest.approx(2.0)
    with pytest.raises(InputError, match="commands"):
        obedience(world, places[:, 1:], commands, before)


def test_latency_counted_by_hand():
    world = World(scene="D2", frame_size=12, segment_frames=4)
    ring = np.asarray([(0, 0), (0, 1), (0, 2), (1, 2), (2, 2), (2, 1), (2, 0), (1, 0)]) * 4
    # Forward before; then fast backward, obeyed from the third frame on.
    places = ring[np.asarray([0, 1, 2, 1, 0])][None]
    report = obedience(world, places, np.asarray([[-2]]), np.asarray([2]))
    assert report["latency_frames"] == {"n": 1, "mean": 2.0, "ci95": [2.0, 2.0]}
    assert report["heading_error"] is None and report["pace_error"]["mean"] == 1.0
