"""The whole command: with cells that only leave a file, and, small, for real."""

import dataclasses
import json

import pytest

from benchmarks import memory_scaling
from configs.ablations import forcing_t0, memory_t0, rope_t0
from mpjax.__main__ import main
from mpjax.ablation import command
from mpjax.ablation.cells import make_cell
from mpjax.ablation.command import ablate
from mpjax.errors import InputError
from mpjax.experiment import fingerprint
from mpjax.whole_files import write_json
from tests.ablation.designs import design, leave_result, stage, times


@pytest.fixture
def ran(monkeypatch):
    """Names of the cells and timings that were made; no network is."""
    made = []

    def run_cell(cell, run, words, say):
        made.append(cell.name)
        leave_result(cell, run)

    def paired_step_times(reference, other, *, pairs):
        made.append(f"time of {other.training.stages[0].forcing.kind}")
        return times(2.0)

    monkeypatch.setattr(command, "run_cell", run_cell)
    monkeypatch.setattr(command, "paired_step_times", paired_step_times)
    monkeypatch.setattr(command, "check_shapes", lambda cells: None)
    return made


def quietly(ablation, folder, **keywords):
    return ablate(ablation, folder / "run", folder / "out", say=lambda _: None, **keywords)


def test_bases_come_first_and_nothing_is_made_twice(ran, tmp_path):
    ablation = design()
    ablation = dataclasses.replace(ablation, arms=ablation.arms[::-1])
    assert quietly(ablation, tmp_path)
    arms = ("student", "direct", "teacher")
    assert ran == ["base/seed_0", "base/seed_1", *(f"{arm}/seed_{seed}" for seed in (0, 1) for arm in arms)]
    assert quietly(ablation, tmp_path) and len(ran) == 8
    (tmp_path / "run" / "direct" / "seed_1" / "cell.json").unlink()
    assert quietly(ablation, tmp_path) and ran[8:] == ["direct/seed_1"]
    # Measured otherwise: every cell again.
    longer = dataclasses.replace(ablation.drift[0], segments=9)
    assert quietly(dataclasses.replace(ablation, drift=(longer,)), tmp_path) and len(ran) == 9 + 8


def test_shares_meet_in_the_files(ran, tmp_path):
    ablation = design(seeds=[0], arms=[{"name": "teacher"}, {"name": "other", "overrides": stage(steps=9)}])
    assert not quietly(ablation, tmp_path, share=(0, 2)) and not (tmp_path / "out").exists()
    assert quietly(ablation, tmp_path, share=(1, 2))
    assert ran == ["teacher/seed_0", "other/seed_0"] and (tmp_path / "out" / "summary.md").is_file()
    assert quietly(ablation, tmp_path, share=(0, 2)) and len(ran) == 2


def test_steps_are_timed_also_where_every_cell_is_there(ran, tmp_path):
    ablation = design(seeds=[0], timing_pairs=0)
    assert quietly(ablation, tmp_path)
    cells = list(ran)
    assert quietly(dataclasses.replace(ablation, timing_pairs=6), tmp_path)
    assert ran == [*cells, "time of direct", "time of student"]


def test_equal_time_scales_the_updates_by_the_stored_ratio(ran, tmp_path):
    ablation = design(budget="wall_clock", timing_pairs=6, seeds=[3])
    assert quietly(ablation, tmp_path)
    assert ran[:2] == ["time of direct", "time of student"]
    cells = json.loads((tmp_path / "out" / "cells.json").read_text())
    updates = {cell["arm"]: cell["updates"] for cell in cells["cells"]}
    assert updates == {"base": 20, "teacher": 20, "direct": 10, "student": 10}
    stored = tmp_path / "run" / "direct" / "step_time.json"
    assert cells["step_times"]["direct"]["ratio"] == json.loads(stored.read_text())["ratio"] == 2.0
    assert quietly(ablation, tmp_path) and len(ran) == 6
    # The stored ratio decides: another one makes other cells.
    stored.write_text(stored.read_text().replace('"ratio": 2.0', '"ratio": 4.0'))
    assert quietly(ablation, tmp_path) and ran[6:] == ["direct/seed_3"]
    cells = json.loads((tmp_path / "out" / "cells.json").read_text())["cells"]
    assert next(cell for cell in cells if cell["arm"] == "direct")["updates"] == 5


def test_a_mistake_in_the_last_arm_is_found_before_the_first_runs(ran, tmp_path):
    arms = [{"name": "teacher"}, {"name": "bad", "overrides": stage(steps=0)}]
    with pytest.raises(InputError, match=r"arm bad: config\.training\.stages"):
        quietly(design(arms=arms), tmp_path)
    foreign = tmp_path / "run" / "student" / "seed_1"
    foreign.mkdir(parents=True)
    (foreign / "run.json").write_text('{"fingerprint": "other"}')
    with pytest.raises(InputError, match="student/seed_1 belongs to another experiment"):
        quietly(design(), tmp_path)
    (foreign / "run.json").unlink()
    # The base was made anew: what went on from the old one must not pass for its.
    ablation = design()
    stale = tmp_path / "run" / "direct" / "seed_1" / "run.json"
    write_json(stale, {"fingerprint": fingerprint(make_cell(ablation, ablation.arm("direct"), 1).experiment)})
    with pytest.raises(InputError, match=r"direct/seed_1 started from .*base/seed_1, which is gone: remove it too"):
        quietly(ablation, tmp_path)
    assert ran == [] and not (tmp_path / "out").exists()
    base = make_cell(ablation, ablation.arm("base"), 1)
    write_json(base.folder(tmp_path / "run") / "run.json", {"fingerprint": fingerprint(base.experiment)})
    assert quietly(ablation, tmp_path)


def test_what_only_a_network_can_tell_is_found_too(tmp_path):
    arms = [{"name": "teacher"}, {"name": "bad", "overrides": stage(trainable="memory")}]
    with pytest.raises(InputError, match="arm bad: trainable='memory' matches no parameter"):
        quietly(design(arms=arms), tmp_path)
    wide = [{"name": "base"}, {"name": "teacher", "init": "base", "overrides": {"model": {"text_width": 16}}}]
    with pytest.raises(InputError, match=r"arm teacher: .* in base, from which it starts"):
        quietly(design(arms=wide), tmp_path)
    assert not (tmp_path / "run").exists()


def test_a_cell_knows_the_step_time_only_once_it_is_there(ran, tmp_path):
    ablation = design(budget="wall_clock", timing_pairs=6, seeds=[0])
    cell = make_cell(ablation, ablation.arm("direct"), 0)
    assert command._budgeted(ablation, cell, tmp_path / "run") is None
    quietly(ablation, tmp_path)
    assert command._budgeted(ablation, cell, tmp_path / "run").experiment.training.stages[0].steps == 10


def run(tmp_path, capsys, config, *more):
    arguments = ["ablate", f"--config={config}", f"--run={tmp_path / 'run'}", f"--out={tmp_path / 'out'}", *more]
    status = main(arguments)
    printed = capsys.readouterr()
    assert status == 0, printed.err
    return printed.out


def test_for_real(tmp_path, capsys):
    config = f"{rope_t0.__file__}:smoke"
    said = run(tmp_path, capsys, config, "--config.timing_pairs=0")
    assert "2/2" in said and "results: " in said
    cells = json.loads((tmp_path / "out" / "cells.json").read_text())["cells"]
    assert [cell["arm"] for cell in cells] == ["framepack_f1", "global"]
    assert all(cell["updates"] == 4 and cell["held_out_loss"] > 0 and cell["memory_bytes"] == 0 for cell in cells)
    assert all(len(cell["drift"]["drift"]["exposure_gap"]) == 4 for cell in cells)
    assert cells[0]["held_out_loss"] != cells[1]["held_out_loss"]
    before = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    assert "==" not in run(tmp_path, capsys, config, "--config.timing_pairs=0")
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == before


def test_memory_scaling_compares_the_ends():
    numbers = {"seconds": [1.0] * 10 + [2.0] * 80 + [3.0] * 9 + [100.0], "memory_bytes": [8] * 100}
    assert memory_scaling.summary(numbers) == {
        "seconds_first_tenth": 1.0,
        "seconds_last_tenth": 3.0,
        "ratio": 3.0,
        "memory_bytes": [8],
    }
    assert memory_scaling.figure({"runs/a": numbers}).startswith(b"\x89PNG")


@pytest.mark.slow
@pytest.mark.parametrize("module", [memory_t0, forcing_t0])
def test_shipped_ablations_for_real(module, tmp_path, capsys):
    said = run(tmp_path, capsys, f"{module.__file__}:smoke")
    assert "step time of" in said and "results: " in said
    results = json.loads((tmp_path / "out" / "cells.json").read_text())
    assert len(results["cells"]) == (4 if module is memory_t0 else 3)
    assert all(time["pairs"] == 6 for time in results["step_times"].values())
    if module is forcing_t0:
        weights = tmp_path / "run" / "direct" / "seed_0"
        scaling = memory_scaling.measure([weights], "balls bounce", memory_scaling.FIRST + 1)[str(weights)]
        assert [len(values) for values in scaling.values()] == [2, 2, 2] and scaling["memory_bytes"] == [0, 0]
    if module is memory_t0:
        bytes_of = {cell["arm"]: cell["memory_bytes"] for cell in results["cells"]}
        assert bytes_of["none"] == 0 < bytes_of["memory"]
