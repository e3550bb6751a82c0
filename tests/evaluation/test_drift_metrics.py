import json

import numpy as np
import pytest
from scipy import stats

from mpjax.data.recallworld.clips import sample_clip
from mpjax.data.recallworld.decode import (
    background_mask,
    decode_exposure,
    decode_toys,
    off_manifold,
    off_manifold_of_toy,
)
from mpjax.data.recallworld.render import render, render_background
from mpjax.data.recallworld.world import World
from mpjax.errors import InputError
from mpjax.evaluation.drift_metrics import (
    accuracy_over_time,
    drift_report,
    drift_slope,
    exposure_gap,
    manifold_error,
    motion,
    psnr,
    seam_jumps,
    seam_report,
    start_end_contrast,
    survival_time,
)


def test_psnr_closed_form():
    truth = np.zeros((2, 3, 4, 4, 3))
    frames = truth + np.asarray([0.2, 2.0, 0.0])[:, None, None, None]
    np.testing.assert_allclose(psnr(frames, truth), [[20, 0, 10 * np.log10(4e10)]] * 2)
    with pytest.raises(InputError, match="frames"):
        psnr(frames, truth[:1])


def test_slope_is_per_minute():
    fps, rng = 4, np.random.default_rng(0)
    minutes = np.arange(240) / (fps * 60)
    curves = 0.3 * minutes + rng.normal(0, 0.01, (32, 240))
    told = drift_slope(curves, fps=fps)
    assert told["per_minute"] == pytest.approx(0.3, abs=0.005)
    assert told["ci95"][0] < told["per_minute"] < told["ci95"][1]
    assert told["per_minute"] == pytest.approx(stats.theilslopes(curves.mean(0), minutes).slope)


def test_contrast_by_hand():
    ramp = np.arange(20.0)
    # int(.15 · 20) = 3 frames at each end: means 1 and 18.
    told = start_end_contrast(np.stack([ramp, -ramp, 0 * ramp]))
    assert told["mean"] == pytest.approx((17 + 17 + 0) / 3)
    # Channels that move against one another do not cancel.
    assert start_end_contrast(np.stack([ramp, -ramp], axis=-1)[None])["mean"] == pytest.approx(17)
    assert start_end_contrast(np.asarray([[1.0, 5.0, 4.0]]))["mean"] == 3
    with pytest.raises(InputError, match="fraction"):
        start_end_contrast(ramp[None], fraction=0.6)


def test_survival_by_hand():
    values = np.zeros((4, 8))
    values[0, 2:] = 1
    values[1, 4] = 1
    values[2, 0] = 1
    told = survival_time(values, threshold=0.5, fps=2)
    assert told == {
        "threshold": 0.5,
        "survived": 0.25,
        "median_seconds": 2.0,
        "mean_seconds": (1 + 2 + 0 + 4) / 4,
        "horizon_seconds": 4.0,
    }
    assert survival_time(values[[1, 3]], threshold=0.5, fps=2)["median_seconds"] is None
    assert survival_time(values, threshold=1.0, fps=2)["survived"] == 1


def test_exposure_gap_is_paired_by_segment():
    rng = np.random.default_rng(1)
    clip = rng.normal(0, 5, (40, 1))
    true = clip + np.zeros((40, 12))
    own = clip + np.repeat([0.0, 0.1, 0.3], 4)
    told = exposure_gap(own, true, segment_frames=4)
    assert [row["segment"] for row in told] == [0, 1, 2]
    np.testing.assert_allclose([row["mean"] for row in told], [0, 0.1, 0.3], atol=1e-12)
    # Paired, the large spread between clips drops out of the interval.
    assert all(row["ci95"][1] - row["ci95"][0] < 1e-9 for row in told)
    with pytest.raises(InputError, match="segments"):
        exposure_gap(own, true, segment_frames=5)
    with pytest.raises(InputError, match="own"):
        exposure_gap(own, true[:, :4], segment_frames=4)


def test_accuracy_over_time_by_hand():
    decoded = np.asarray([[1, 1, 2, 2], [3, 0, 3, 3]])
    told = accuracy_over_time(decoded, [1, 3], segment_frames=2)
    assert [row["mean"] for row in told] == [0.75, 0.5]
    both = accuracy_over_time(np.asarray([[[1, 2], [2, 2]]]), [[2, 1]], segment_frames=1)
    assert [row["mean"] for row in both] == [1.0, 0.5]
    with pytest.raises(InputError, match="decoded"):
        accuracy_over_time(decoded, [1], segment_frames=2)


def test_motion_by_hand():
    time = np.arange(9.0)
    truth = np.stack([2 * time, 0 * time], axis=-1)[None].repeat(3, axis=0)
    half, still = truth / 2, truth * 0
    stops = truth.copy()
    stops[0, 4:] = truth[0, 4]
    told = motion(np.stack([half[0], still[0], stops[0]]), truth, segment_frames=4)
    assert told["speed_ratio"]["mean"] == pytest.approx((0.5 + 0 + 0.5) / 3)
    assert told["dead_motion"]["mean"] == pytest.approx((0 + 1 + 0.5) / 3)
    assert told["position_error"]["mean"] == pytest.approx((8 / 2 + 8 + 20 / 9) / 3)
    same = motion(truth, truth, segment_frames=4)
    assert (same["speed_ratio"]["mean"], same["dead_motion"]["mean"], same["position_error"]["mean"]) == (1, 0, 0)
    with pytest.raises(InputError, match="truth"):
        motion(truth, still, segment_frames=4)


def test_seam_by_hand():
    level = np.asarray([0, 1, 2, 3, 7, 8, 9, 10, 14, 15.0])
    frames = np.broadcast_to(level[None, :, None, None, None], (2, 10, 4, 4, 3))
    told = seam_report(seam_jumps(frames, segment_frames=4))
    assert (told["joins"]["mean"], told["inside"]["mean"], told["ratio"]) == (16, 1, 16)
    assert seam_report(seam_jumps(frames * 0, segment_frames=4))["ratio"] is None
    with pytest.raises(InputError, match="segment_frames"):
        seam_jumps(frames, segment_frames=10)


def test_true_frames_do_not_drift_and_injected_drift_is_measured():
    world = World(scene="D1")
    clips = [sample_clip(world, seed, 15) for seed in range(12)]
    video, background = (f(world, clips)[:, 1:] for f in (render, render_background))
    n, t = video.shape[:2]
    rng = np.random.default_rng(2)
    grow = np.linspace(0, 0.3, t)[:, None, None, None]
    toys = np.repeat([clip.identities[0] for clip in clips], t)
    drifted = video * (1 + grow) + rng.normal(0, 0.02, video.shape)

    def report(frames, **more):
        flat, behind = frames.reshape(-1, 8, 8, 3), background.reshape(-1, 8, 8, 3)
        gain, _ = decode_exposure(flat, behind, background_mask(world, flat, behind))
        return drift_report(
            off_manifold=off_manifold(world, flat, behind).reshape(n, t),
            own_toy=off_manifold_of_toy(world, flat, behind, toys).reshape(n, t),
            gain=gain.reshape(n, t, 3),
            psnr=psnr(frames, video),
            decoded=decode_toys(world, flat, behind).identity.reshape(n, t, 1),
            identities=np.asarray([clip.identities for clip in clips]),
            fps=world.fps,
            segment_frames=world.segment_frames,
            threshold=0.02,
            **more,
        )

    clean = report(video)
    assert clean["slope"]["per_minute"] == pytest.approx(0, abs=1e-9)
    assert clean["survival"]["survived"] == 1 and clean["exposure_gap"] is None
    assert all(row["mean"] == 1 for row in clean["identity"])
    told = report(drifted, true_history=np.zeros((n, t)))
    assert json.loads(json.dumps(told, allow_nan=False)) == told
    # Gain rises by .3 over the clip; between the means of the first and the last 15 % by .3 · (t - 9) / (t - 1).
    assert told["contrast"]["gain"]["mean"] == pytest.approx(0.3 * (t - 9) / (t - 1), abs=0.03)
    assert told["slope"]["ci95"][0] > 0 and told["survival"]["survived"] < 1
    # Against no error on true history, the gap is the error itself.
    assert told["exposure_gap"][-1]["mean"] == pytest.approx(told["error"]["late"]["mean"], rel=0.2)
    assert told["exposure_gap"][0]["mean"] < told["error"]["late"]["mean"] / 4
    # Frames of another clip's toy are valid ones, but not of this clip.
    other = video[np.arange(n) - 1]
    swapped = background + (other - background[np.arange(n) - 1])
    strangers = [a.identities != b.identities for a, b in zip(clips, clips[-1:] + clips[:-1], strict=True)]
    flat, behind = swapped.reshape(-1, 8, 8, 3), background.reshape(-1, 8, 8, 3)
    assert off_manifold_of_toy(world, flat, behind, toys).reshape(n, t)[strangers].min() > 0.01
    positions = decode_toys(world, drifted.reshape(-1, 8, 8, 3), background.reshape(-1, 8, 8, 3)).position
    truth = np.stack([clip.positions[0, 1:] for clip in clips])
    assert motion(positions.reshape(n, t, 2), truth, segment_frames=4)["speed_ratio"]["mean"] == pytest.approx(1)


def test_manifold_error_takes_the_first_and_the_last_four_segments():
    rng = np.random.default_rng(3)
    error = 0.1 + 0.002 * np.arange(30) + 0.01 * rng.random((3, 30))  # 10 segments of 3 frames, 4 frames a second
    report = manifold_error(error**2, fps=4, segment_frames=3)
    assert report["early"]["mean"] == pytest.approx(np.mean([row[:12].mean() for row in error]))
    assert report["late"]["mean"] == pytest.approx(np.mean([row[18:].mean() for row in error]))
    expected = stats.theilslopes(error.mean(axis=0), np.arange(30) / 240)[0]
    assert report["slope"]["per_minute"] == pytest.approx(expected) and report["window_segments"] == 4
    short = manifold_error(error[:, :6] ** 2, fps=4, segment_frames=3)
    assert short["window_segments"] == 2 and short["early"] == short["late"]
    with pytest.raises(InputError, match="no whole number"):
        manifold_error(error, fps=4, segment_frames=4)
