import dataclasses
from pathlib import Path

import numpy as np
import pytest

from mpjax.evaluation.metrics.flicker import TemporalFlickering
from mpjax.evaluation.metrics.metric import NotComputed, Part, Score, Value, Want, drift_parts, look, measure
from mpjax.evaluation.metrics.pool import pool
from mpjax.evaluation.metrics.score_files import read_scores, write_scores
from mpjax.evaluation.metrics.videos import Video


class Counting:
    """Looks at a few frames at once; says their numbers, and counts."""

    def __init__(self, batch=4):
        self.batch, self.calls = batch, []

    def __call__(self, frames):
        self.calls.append(len(frames))
        return frames[:, :, 0, 0, 0].astype(np.float64).sum(1)


@dataclasses.dataclass(frozen=True, eq=False)
class Every:
    """The mean over looks at i and i + reach."""

    probe: Counting
    reach: int
    name: str = "every"
    higher_is_better: bool = True

    def wants(self, part):
        if len(part) <= self.reach:
            raise NotComputed("too short")
        return [Want(self.probe, [(i, i + self.reach) for i in range(part.start, part.stop - self.reach)])]

    def score(self, part, rows):
        return Value(value=float(rows[0].mean()), weight=len(rows[0]))


def video(count, fps=10.0, opened=None, held=None, **rest):
    def read():
        if opened is not None:
            opened.append(1)
        for i in range(count):
            yield np.full((2, 2, 3), i, np.uint8)

    return Video(name="v", fps=fps, frames=count, read=read, **rest)


def test_one_pass_serves_all_metrics_and_parts():
    opened, probe = [], Counting()
    near, far = Every(probe, 1, "near"), Every(probe, 5, "far")
    scores = measure(video(40, opened=opened), [near, far])
    assert opened == [1]
    assert sum(probe.calls) == 39 + 35 and max(probe.calls) == 4  # each place once
    assert scores[0].value == pytest.approx(np.mean([2 * i + 1 for i in range(39)]))
    assert scores[1].value == pytest.approx(np.mean([2 * i + 5 for i in range(35)]))


def test_drift_is_that_of_the_first_and_last_15_percent():
    score = measure(video(40), [Every(Counting(), 1)])[0]
    assert score.start == pytest.approx(np.mean([2 * i + 1 for i in range(5)]))
    assert score.end == pytest.approx(np.mean([2 * i + 1 for i in range(34, 39)]))
    assert score.drift == pytest.approx(68)
    back = measure(video(40, backward=True), [Every(Counting(), 1)])[0]
    assert (back.start, back.end) == (score.end, score.start)


def test_drift_parts_have_a_frame_at_least_and_are_cut_not_rounded():
    for count, length in ((1, 1), (6, 1), (13, 1), (20, 3), (33, 4)):
        first, last = drift_parts(video(count))
        assert (first.start, first.stop) == (0, length) and (last.start, last.stop) == (count - length, count)


def test_a_part_that_is_too_short_has_no_drift_but_a_value():
    score = measure(video(12), [Every(Counting(), 3)])[0]
    assert score.value is not None and score.drift is None
    assert measure(video(3), [Every(Counting(), 3)])[0].reason == "too short"


def test_only_the_frames_still_needed_are_held():
    alive = [0]
    peak = [0]

    class Tracked(np.ndarray):
        def __del__(self):
            alive[0] -= self.base is None

    def read():
        for i in range(200):
            frame = np.ndarray.__new__(Tracked, (2, 2, 3), np.uint8)
            frame[:] = i % 250
            alive[0] += 1
            peak[0] = max(peak[0], alive[0])
            yield frame

    look(Video(name="v", fps=10, frames=200, read=read), Every(Counting(), 5).wants(Part(video(200), 0, 200)))
    assert 6 <= peak[0] <= 9  # and the frames that wait for a whole batch


def test_a_value_that_is_not_finite_is_not_computed():
    @dataclasses.dataclass(frozen=True, eq=False)
    class Nan(Every):
        def score(self, part, rows):
            return Value(value=float("nan"))

    score = measure(video(40), [Nan(Counting(), 1)])[0]
    assert score.value is None and "nan" in score.reason


def test_pooling_weighs_and_splits_by_duration():
    def score(value, seconds, weight, start=None, end=None):
        return Score(video="v", seconds=seconds, metric="m", value=value, weight=weight, start=start, end=end)

    rows = pool([score(1.0, 10.02, 1, 0.5, 0.7), score(0.0, 9.98, 3), score(0.5, 30, 4, 0.4, 0.1)])
    assert [(row.seconds, row.videos) for row in rows] == [(None, 3), (10, 2), (30, 1)]
    assert [row.value for row in rows] == pytest.approx([(1 + 2) / 8, 0.25, 0.5])
    assert rows[0].drift == pytest.approx(0.25) and rows[2].drift == pytest.approx(0.3)
    assert pool([Score(video="v", seconds=1, metric="m", value=None, reason="no")]) == []


def test_scores_come_back_from_disk(tmp_path):
    scores = measure(video(40), [TemporalFlickering(), Every(Counting(), 60)])
    write_scores(tmp_path, scores, {"other": "needs a file"})
    assert read_scores(tmp_path) == scores
    lines = (tmp_path / "scores.csv").read_text().splitlines()
    assert lines[0].startswith("video,seconds,metric,value") and lines[2].endswith("too short")


def test_a_kill_while_writing_leaves_the_scores_as_they_were(tmp_path, monkeypatch):
    scores = measure(video(40), [TemporalFlickering()])
    write_scores(tmp_path, scores, {})

    def killed(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        write_scores(tmp_path, [], {})
    assert read_scores(tmp_path) == scores
