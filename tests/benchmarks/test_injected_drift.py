import numpy as np
import pytest

from benchmarks import injected_drift
from benchmarks.injected_drift import (
    FAULTS,
    READINGS,
    Clip,
    by_camera,
    clips_of,
    moving,
    over_videos,
    ranked_rightly,
    table,
)
from mpjax.data.video_writer import write_part
from mpjax.evaluation.metrics.companions import COMPANIONS
from mpjax.evaluation.metrics.flicker import TemporalFlickering


def clip(seed, count=32):
    """A texture that moves over another one, with grain."""
    rng = np.random.default_rng(seed)
    back = np.kron(rng.integers(50, 150, (12, 16, 3)), np.ones((8, 8, 1))) + rng.integers(0, 30, (96, 128, 3))
    frames = []
    for i in range(count):
        frame = back.copy()
        frame[30:60, 3 * i : 3 * i + 30] = rng.permutation(3)[0] * 20 + 100
        frames.append(np.uint8(np.clip(frame, 0, 255)))
    return np.stack(frames)


CLIPS = [clip(0), clip(1)]
METRICS = [*(offer.make() for offer in COMPANIONS), TemporalFlickering()]


@pytest.fixture(scope="module")
def shares():
    clips = [Clip(video=name, start=0.0, frames=frames) for name, frames in zip("ab", CLIPS, strict=True)]
    return over_videos(ranked_rightly(clips, METRICS, READINGS))


@pytest.mark.parametrize("fault", FAULTS)
def test_what_should_see_a_fault_sees_it(shares, fault):
    for reading in FAULTS[fault][1]:
        assert shares[fault][reading] == 1, reading


def test_every_video_counts_alike_and_its_other_is_of_another(monkeypatch):
    swapped = []

    def swap(frames, other, strength):
        swapped.append(int(other[0, 0, 0, 0]))
        return frames if frames[0, 0, 0, 0] == 3 else np.minimum(frames, 255 - 100 * strength).astype(np.uint8)

    monkeypatch.setattr(injected_drift, "FAULTS", {"dark": (swap, ())})
    # Three clips of `a` and one of `b`, told apart by their first value; of number 3 the fault does nothing.
    bright = [np.full((16, 20, 20, 3), 250 - i, np.uint8) for i in range(4)]
    for i, frames in enumerate(bright):
        frames[0, 0, 0] = i
    clips = [Clip(video=video, start=0.0, frames=frames) for video, frames in zip("aaab", bright, strict=True)]
    metrics = [offer.make() for offer in COMPANIONS if offer.name == "exposure"]
    readings = [injected_drift.Reading(metric="exposure", sign=-1)]
    found = ranked_rightly(clips, metrics, readings)
    assert found == {"dark": {"−exposure": {"a": 1.0, "b": 0.0}}}
    assert over_videos(found) == {"dark": {"−exposure": 0.5}}
    assert swapped == [3, 3, 3, 3, 3, 3, 0, 0]


def test_clips_lie_in_one_shot(tmp_path):
    # Shots of 11 and 6 s of two textures that move, which hold two clips and one.
    shots = [np.kron(np.random.default_rng(i).integers(0, 256, (9, 16, 3)), np.ones((8, 8, 1))) for i in range(2)]
    frames = [np.roll(shots[i >= 264], i // 6, axis=1).astype(np.uint8) for i in range(408)]
    write_part(tmp_path / "a.mp4", np.stack(frames), fps=24, first_frame=0)
    clips = [*clips_of(tmp_path / "a.mp4")]
    assert [clip.start for clip in clips] == pytest.approx([0, 5, 11], abs=0.1)
    assert all(clip.frames.shape == (40, 180, 320, 3) and clip.video == "a.mp4" for clip in clips)
    steps = np.concatenate([np.abs(np.diff(clip.frames.astype(int), axis=0)).mean((1, 2, 3)) for clip in clips])
    assert steps.max() < 30 < np.abs(clips[1].frames[-1].astype(int) - clips[2].frames[0]).mean()


def test_every_expectation_is_a_reading():
    assert {name for _, expected in FAULTS.values() for name in expected} <= {each.name for each in READINGS}


def test_the_camera_of_a_clip_and_of_a_video(tmp_path):
    # Of 200 rows; one that stands while a thing moves in it, and one that pans by two fifths of its height a second.
    ground = np.kron(np.random.default_rng(0).integers(0, 256, (25, 100, 3)), np.ones((8, 8, 1))).astype(np.uint8)
    stands = np.repeat(ground[None, :, :320], 140, axis=0)
    for i in range(140):
        stands[i, 80:120, i : i + 40] = 255 - ground[80:120, 320:360]
    pans = np.stack([ground[:, 10 * (i // 3) :][:, :320] for i in range(140)])
    for name, frames in (("a.mp4", stands), ("b.mp4", pans)):
        write_part(tmp_path / name, frames, fps=24, first_frame=0)
    clips = [clip for name in ("a.mp4", "b.mp4") for clip in clips_of(tmp_path / name)]
    assert [clip.video for clip in clips] == ["a.mp4", "b.mp4"]
    assert clips[0].camera < 0.005 and clips[1].camera > 0.1
    assert moving(clips) == {"b.mp4"}
    # One clip of three does not make a video move.
    speeds = [("c", 0.0), ("c", 0.0), ("c", 0.5), ("d", 0.02)]
    few = [Clip(video=video, start=0.0, frames=stands[:1], camera=speed) for video, speed in speeds]
    assert moving(few) == {"d"}


def test_a_fault_is_told_apart_by_camera():
    shares = {"blur": {"x": {"a": 0.2, "b": 0.4, "c": 0.9}, "y": {"a": 0.0, "b": 1.0, "c": 1.0}}}
    assert over_videos(by_camera(shares, "blur", {"c"})) == {
        "blur, camera stands": {"x": pytest.approx(0.3), "y": 0.5},
        "blur, camera moves": {"x": 0.9, "y": 1.0},
    }


def test_what_cannot_see_a_fault_does_not(shares):
    assert shares["freeze"]["Δwarmth"] < 1 and shares["colour cast"]["dead motion rate"] == 0
    assert shares["gain"]["dead motion rate"] == 0 and shares["freeze"]["−temporal flickering"] == 0
    assert shares["identity swap"]["Δsharpness"] < 1


@pytest.mark.parametrize("fault", FAULTS)
def test_faults_are_what_they_say(fault):
    change = FAULTS[fault][0]
    frames, other = CLIPS
    np.testing.assert_array_equal(change(frames, other, 0.0), frames)
    changed = change(frames, other, 1.0)
    assert changed.shape == frames.shape and changed.dtype == np.uint8
    np.testing.assert_array_equal(changed[0], frames[0])  # a drift: nothing is wrong at the start
    assert (changed[-1] != frames[-1]).any()
    if fault == "gain":
        np.testing.assert_allclose(changed[-1], 0.4 * frames[-1], atol=0.51)
    if fault == "identity swap":
        inner = (slice(14, 82), slice(19, 109))
        np.testing.assert_array_equal(changed[-1][inner], other[-1][inner])
        np.testing.assert_array_equal(changed[-1][:14], frames[-1][:14])


def test_the_table_names_every_reading_and_marks_what_should_see():
    shares = {fault: {reading.name: 0.6 for reading in READINGS} for fault in FAULTS}
    shares["blur"]["Δsharpness"] = 0.8
    shares["gain"]["Δtint"] = 0.1
    shares["blur, camera moves"] = dict.fromkeys(shares["blur"], 0.3)
    lines = table(shares, READINGS).splitlines()
    assert next(line for line in lines if line.startswith("| Δsharpness |")).endswith(" | **misses 30 %** |")
    assert len(lines) == 2 + len(READINGS)
    assert "**sees 80 %**" in next(line for line in lines if line.startswith("| Δsharpness |"))
    assert next(line for line in lines if line.startswith("| Δtint |")).split(" | ")[1] == "misses 10 %"
    assert (
        sum(line.count("**partly 60 %**") for line in lines)
        == sum(len(expected) for _, expected in FAULTS.values()) - 1
    )
