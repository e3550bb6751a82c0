"""VBench's rules, each against what the package decided or against numbers worked out by hand."""

import math

import numpy as np
import pytest

from mpjax.errors import InputError
from mpjax.evaluation.metrics.flicker import TemporalFlickering
from mpjax.evaluation.metrics.metric import NotComputed, Part, measure
from mpjax.evaluation.metrics.sampling import interval
from mpjax.evaluation.metrics.videos import Video
from mpjax.evaluation.vbench.consistency import Consistency, Fidelity, consistency, fidelity
from mpjax.evaluation.vbench.dynamic import DynamicDegree, needed, threshold
from mpjax.evaluation.vbench.long import Long, SlowFast, SlowFastTable, clips, read_table
from mpjax.evaluation.vbench.smoothness import MotionSmoothness
from tests.evaluation.vbench.golden import golden


def video(frames, fps=8.0, **rest):
    return Video(name="v", fps=fps, frames=len(frames), read=lambda: iter(frames), **rest)


def blank(count, fps=8.0, **rest):
    return video(np.zeros((count, 4, 4, 3), np.uint8), fps, **rest)


class Mean:
    """A probe: the mean of each channel of single frames."""

    batch = 3

    def __init__(self):
        self.looked = []

    def __call__(self, frames):
        self.looked.append(len(frames))
        return frames[:, 0].mean((1, 2), dtype=np.float64)


class Given:
    """A probe that says what a table has for the last of its frames, whose pixels are its number."""

    batch = 4

    def __init__(self, values):
        self.values = np.asarray(values, np.float64)

    def __call__(self, frames):
        return self.values[frames[:, -1, 0, 0, 0].astype(int)]


def numbered(count, fps=8.0, **rest):
    return video(np.arange(count, dtype=np.uint8)[:, None, None, None] * np.ones((1, 2, 2, 3), np.uint8), fps, **rest)


def test_consistency_by_hand():
    features = np.array([[1, 0], [1, 1], [-1, 0]])
    values = consistency(features)
    assert values == pytest.approx([math.sqrt(0.5), 0.0])  # cos(135°) and cos(180°) count 0
    frozen = np.ones((5, 3))
    assert consistency(frozen) == pytest.approx(np.ones(4))


def test_fidelity_by_hand():
    features = np.array([[1, 0], [1, 1], [0, 1]])
    half = math.sqrt(0.5)
    assert fidelity(np.array([[0, 2]]), features) == pytest.approx(0.4 * 1 + 0.3 * half + 0.3 * half)


def test_every_kth_frame_as_the_package():
    for fps, count in golden()["rules.sampled"]:
        degree = DynamicDegree(Mean())
        (want,) = degree.wants(Part(blank(61, float(fps)), 0, 61))
        assert len(want.at) == count - 1, fps
        step = want.at[0][1] - want.at[0][0]
        assert all(b - a == step for a, b in want.at)
    assert interval(30) == 4 and interval(20) == 2  # 2.5, to even
    assert interval(12) == 2 and interval(11.9) == 1


def test_dynamic_needs_as_many_pairs_as_the_package():
    said = golden()
    for (count, pairs, limit), moves in zip(said["rules.needed"], said["rules.moves"], strict=True):
        assert needed(int(count)) == pairs and threshold(256, 400) == limit
        for moving in range(min(int(count), 4)):
            lengths = [0.0] * (int(count) - moving) + [7 / limit] * moving
            score = measure(numbered(int(count)), [DynamicDegree(Given(lengths))])[0]
            assert score.value == moves[moving], (count, moving)


def test_two_frames_are_always_dynamic_since_half_is_rounded_to_even():
    assert measure(numbered(2), [DynamicDegree(Given([0, 0]))])[0].value == 1
    assert measure(numbered(3), [DynamicDegree(Given([0, 0, 0]))])[0].value == 0


def test_a_pair_at_the_threshold_does_not_move():
    assert measure(numbered(4), [DynamicDegree(Given([0, 1, 1, 1]))])[0].value == 0
    assert measure(numbered(4), [DynamicDegree(Given([0, 1, 1.001, 1]))])[0].value == 1


def test_smoothness_leaves_out_a_last_frame_without_a_neighbour():
    metric = MotionSmoothness(Given(np.arange(9.0)))
    for count, expected in ((3, [2]), (4, [2]), (5, [2, 4]), (6, [2, 4])):
        (want,) = metric.wants(Part(numbered(count), 0, count))
        assert [at[2] for at in want.at] == expected
    score = measure(numbered(6), [metric])[0]
    assert score.value == pytest.approx(1 - 3 / 255) and score.at == (1, 3)
    assert measure(numbered(2), [metric])[0].reason == "needs three frames"
    (want,) = metric.wants(Part(numbered(9), 3, 7))
    assert want.at == [(3, 4, 5)]  # odd and even are counted from the part's beginning


def test_flicker_by_hand():
    frames = np.zeros((3, 2, 2, 3), np.uint8)
    frames[1] = 255
    frames[2] = 250
    score = measure(video(frames), [TemporalFlickering()])[0]
    assert score.values == pytest.approx([0.0, 1 - 5 / 255])
    assert score.value == pytest.approx((250 / 255) / 2)


def test_clips_as_the_package():
    said = {}
    for length, start, stop in golden()["rules.clips"].astype(int):
        said.setdefault(length, []).append((start, stop))
    for length, expected in said.items():
        mine = clips(Part(blank(length, 24.7), 0, length))
        assert [(clip.start, clip.stop) for clip in mine] == expected, length
        assert mine[0].video.fps == 24


def test_long_is_the_mean_over_clips_and_not_over_frames():
    value = np.random.default_rng(0).random(5 * 8 + 3)
    metric = MotionSmoothness(Given(value))
    whole = measure(numbered(len(value), 2.0), [Long(metric)])[0]
    expected = [measure_part(metric, value, part) for part in clips(Part(numbered(len(value), 2.0), 0, len(value)))]
    assert whole.value == pytest.approx(np.mean(expected)) and len(whole.values) == len(expected) == 11


def measure_part(metric, value, part):
    (want,) = metric.wants(part)
    return metric.score(part, [np.array([value[at[-1]] for at in want.at])]).value


def test_slow_fast_as_the_package():
    knots = np.arange(101) / 100
    table = SlowFastTable(within=0.7, between=0.3, knots=knots, mapped=np.sqrt(knots))
    for within, between, expected in golden()["rules.fused"]:
        assert table.fuse(within, between) == pytest.approx(expected, abs=1e-12)


def test_slow_fast_sees_the_first_frame_of_each_clip():
    features = np.random.default_rng(1).normal(size=(20, 3))
    inner = Consistency(name="subject_consistency", probe=Given(features))
    table = SlowFastTable(within=0.7, between=0.3, knots=np.array([0.0, 1.0]), mapped=np.array([0.0, 0.5]))
    metric = SlowFast(inner=inner, probe=Given(features), table=table)
    score = measure(numbered(20, 3.0), [metric])[0]
    starts = [0, 6, 12, 14]
    within = np.mean([consistency(features[start : start + 6]).mean() for start in starts])
    between = consistency(features[starts]).mean()
    assert score.metric == "long_subject_consistency_slow_fast"
    assert score.value == pytest.approx(0.7 * within + 0.3 * between / 2)
    single = measure(numbered(5, 3.0), [metric])[0]
    assert single.value == pytest.approx(consistency(features[:5]).mean())


def test_tables_are_read_and_damage_is_named(tmp_path):
    (tmp_path / "t.yaml").write_text("0.0: 0.0\n0.5: 0.75\n1.0: 1.0\n")
    (tmp_path / "p.yaml").write_text("w_inclip_bg: 0.8\nw_clip2clip_bg: 0.2\n\ninclip_std_bg: 0.0004\n")
    table = read_table(tmp_path / "t.yaml", tmp_path / "p.yaml", "bg")
    assert (table.within, table.between) == (0.8, 0.2)
    assert table.fuse(0.5, 0.25) == pytest.approx(0.8 * 0.5 + 0.2 * 0.375)
    with pytest.raises(InputError, match="does not say w_inclip_sb"):
        read_table(tmp_path / "t.yaml", tmp_path / "p.yaml", "sb")
    (tmp_path / "t.yaml").write_text("0.0: !!python/object:os.system\n")
    with pytest.raises(InputError, match=r"t\.yaml.*no number"):
        read_table(tmp_path / "t.yaml", tmp_path / "p.yaml", "bg")


def test_i2v_without_a_picture_says_so():
    metric = Fidelity(name="i2v_subject", probe=Mean(), picture_probe=Mean())
    assert "--images" in measure(blank(4), [metric])[0].reason
    with pytest.raises(NotComputed):
        metric.wants(Part(blank(4), 0, 4))


def test_i2v_compares_with_the_picture_of_another_size():
    frames = np.random.default_rng(2).integers(0, 255, (6, 4, 4, 3)).astype(np.uint8)
    picture = np.random.default_rng(3).integers(0, 255, (9, 5, 3)).astype(np.uint8)
    probe = Mean()
    score = measure(video(frames, image=lambda: picture), [Fidelity(name="i2v", probe=probe, picture_probe=probe)])[0]
    assert score.value == pytest.approx(fidelity(picture.mean((0, 1))[None], frames.mean((1, 2))))
