"""The cases that only we run, at tiny sizes, and the rows that they give."""

import json
import sys
from pathlib import Path

import pytest

from benchmarks.side_by_side import own
from benchmarks.side_by_side.request import Request
from benchmarks.side_by_side.table import lines_of_case
from mpjax import experiment
from mpjax.diffusion.forcing import AnyForcing, Direct, Echo, Student, Teacher
from mpjax.errors import InputError
from mpjax.evaluation.step_time import with_forcing
from tests.generation.runs import recallworld_experiment, write_run

SMOKE = "configs/drift_tiny.py:smoke"
SMALL = ("--config.training.batch_size=2", "--config.model.dual_blocks=1", "--config.model.single_blocks=1")


def silent(line):
    pass


def test_every_forcing_is_compared_with_teacher_forcing():
    against_teacher = {type(forcing) for reference, forcing in own.PAIRS if reference == Teacher()}
    assert against_teacher | {Teacher} == set(AnyForcing.__args__)
    assert own.PAIRS[-1] == (Direct(), Student(steps=5))


def test_pairs_of_updates_become_rows(monkeypatch):
    seen = []

    def paired_step_times(reference, other, *, pairs):
        seen.append([loaded.training.stages[-1].forcing for loaded in (reference, other)])
        ratio = {"ratio": 1.02, "ci95": [1.0, 1.05], "pairs": pairs}
        return ratio | {"reference_ms": 2.0, "other_ms": 4.0, "reference_forwards": 3.0, "other_forwards": 6.0}

    monkeypatch.setattr(own, "paired_step_times", paired_step_times)
    found = own.train_step(Request(config=SMOKE, rounds=9), silent)
    assert [tuple(pair) for pair in seen] == list(own.PAIRS) and found["config"] == SMOKE
    assert [row["forcing"] for row in found["pairs"]] == [forcing.kind for _, forcing in own.PAIRS]
    assert all(row["pairs"] == 9 for row in found["pairs"])
    lines = lines_of_case("train_step", found)
    assert lines[2] == "| direct | teacher | 1.020 (1.000 to 1.050) | 4.0 / 2.0 | 6 / 3 |"
    assert lines[-1] == "| student | direct | 1.020 (1.000 to 1.050) | 4.0 / 2.0 | 6 / 3 |"


@pytest.mark.slow
def test_updates_in_pairs(monkeypatch):
    """Student Forcing draws 5 evaluations of every segment that a later one sees, 2 of 3 (one is given)."""
    monkeypatch.setattr(own, "PAIRS", ((Teacher(), Student()),))
    found = own.train_step(Request(config=SMOKE, overrides=SMALL, rounds=6), silent)
    (row,) = found["pairs"]
    assert (row["forcing"], row["reference"], row["pairs"]) == ("student", "teacher", 6)
    assert row["other_forwards"] - row["reference_forwards"] == 5 * 2
    low, high = row["ci95"]
    assert 1 < low <= row["ratio"] <= high


def test_batches_are_shown_as_often_as_a_forcing_needs():
    loaded = experiment.load(SMOKE)
    echo, teacher = with_forcing(loaded, Echo()), with_forcing(loaded, Teacher())
    assert echo.training.stages[-1].repeat == 2 and teacher.training.stages[-1].repeat == 1
    assert echo.training.stages[-1].forcing == Echo()


def test_a_video_segment_by_segment(tmp_path):
    weights = write_run(tmp_path / "run", recallworld_experiment())
    with pytest.raises(InputError, match="--segments is 3: give 4 or more"):
        own.check_length(Request(weights=weights, segments=3))
    found = own.length(Request(weights=weights, segments=6), silent)
    assert len(found["seconds"]) == 6 - found["first_segment"] + 1 and min(found["seconds"]) > 0
    first, last = found["seconds"][0], found["seconds"][-1]
    assert found["summary"]["ratio"] == pytest.approx(last / first)
    assert lines_of_case("length", found)[-1].endswith(f"| {last / first:.3f} |")


def test_data_is_what_the_benchmark_of_data_says(monkeypatch):
    """A process that stands for it, since it writes gigabytes."""
    said = {"latent_frames_per_second": {"ours": 30.0}, "headroom": {"ours": 3.0}}
    script = f"import sys; open(sys.argv[2].removeprefix('--out='), 'w').write({json.dumps(said)!r})"
    monkeypatch.setattr(own, "own_python", lambda _: (sys.executable, "-c", script))
    assert own.data(Request(), silent) == said
    assert lines_of_case("data", said)[-1] == "| ours | 30 | 3× |"


def test_data_forwards_fields_and_writes_into_scratch(monkeypatch, tmp_path):
    script = (
        "import json, sys, tempfile; found = {'given': sys.argv[3:], 'folder': tempfile.gettempdir()}; "
        "open(sys.argv[2].removeprefix('--out='), 'w').write(json.dumps(found))"
    )
    monkeypatch.setattr(own, "own_python", lambda _: (sys.executable, "-c", script))
    found = own.data(Request(config=SMOKE, overrides=SMALL, scratch=tmp_path), silent)
    assert found["given"] == list(SMALL) and Path(found["folder"]).parent == tmp_path


def test_data_refuses_in_the_words_of_its_benchmark():
    with pytest.raises(InputError, match=r"^configs/clips_tiny.py:smoke reads no clips with embeddings"):
        own.data(Request(config="configs/clips_tiny.py:smoke"), silent)
