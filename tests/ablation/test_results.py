"""Rows, tables, figures and files from results that are known."""

import csv
import io
import json

import numpy as np
import pytest
from scipy import stats

from mpjax.ablation.figures import figures
from mpjax.ablation.results import write_results
from mpjax.ablation.rows import as_csv, over_seeds, rows_of
from mpjax.ablation.tables import summary
from tests.ablation.designs import cells_of, design, result, times


@pytest.fixture
def measured():
    ablation = design(forcing_claim={"literal": "direct"})
    return ablation, [result(cell) for cell in cells_of(ablation)]


def test_rows_hold_each_number_once_with_its_interval(measured):
    _, results = measured
    rows = rows_of(results[0])
    assert len({(row.group, row.metric) for row in rows}) == len(rows)
    slope = next(row for row in rows if row.metric == "error slope")
    assert (slope.value, slope.low, slope.high, slope.clips) == (0.5, 0.25, 1.0, 4)
    read = list(csv.DictReader(io.StringIO(as_csv(rows))))
    assert len(read) == len(rows)
    late = next(row for row in read if row["metric"] == "late error")
    assert (late["arm"], late["seed"], late["group"], float(late["value"])) == ("base", "0", "drift", 1.0)
    assert next(row for row in read if row["metric"] == "survived")["low"] == ""


def test_over_seeds_is_students_t(measured):
    _, results = measured
    rows = [row for one in results for row in rows_of(one)]
    mean, low, high = over_seeds(rows, "teacher", "drift", "early error")
    values = [0.8, 0.81]
    assert mean == pytest.approx(0.805)
    np.testing.assert_allclose((low, high), stats.t.interval(0.95, 1, mean, stats.sem(values)))
    one = [row for row in rows if row.seed == 0]
    assert over_seeds(one, "teacher", "drift", "early error") == pytest.approx((0.8, 0.79, 0.81))
    assert over_seeds(rows, "nobody", "drift", "early error") is None


def test_the_best_is_bold_in_its_own_direction(measured):
    ablation, results = measured
    rows = [row for one in results for row in rows_of(one)]
    text = summary(ablation, rows, {"direct": times(1.03)})
    table = [line.split(" | ") for line in text.splitlines() if line.startswith("| ")]
    bold = {line[0].strip("| "): line[1].startswith("**") for line in table if len(line) == 11}
    assert bold == {"arm": False, "base": True, "teacher": False, "direct": False, "student": False}
    cost = next(line for line in table if line[0] == "| direct" and len(line) == 7)
    assert cost[3] == "1.03 [1.02, 1.04]" and cost[1] == "20"


def test_figures_share_panels_and_curves(measured):
    ablation, results = measured
    rows = [row for one in results for row in rows_of(one)]
    drawn = figures(ablation, rows, results)
    assert set(drawn) == {"drift_drift_arms", "slopes_drift", "drift_by_steps"}
    names = [text.get_text() for text in drawn["drift_drift_arms"].axes[0].get_legend().get_texts()]
    assert names == ["teacher", "base", "direct", "student"]
    curve = next(line for line in drawn["drift_by_steps"].axes[0].lines if line.get_gid() == "series-0")
    np.testing.assert_allclose(curve.get_xydata(), [[1, 0.705], [2, 0.805]])
    bars = drawn["slopes_drift"].axes[0].patches
    np.testing.assert_allclose([bar.get_width() for bar in bars], [0.505, 0.805, 0.705, 0.805])


def test_equal_cells_give_equal_bytes(measured, tmp_path):
    ablation, results = measured
    said = write_results(ablation, results, {"direct": times(1.0)}, tmp_path / "a")
    write_results(ablation, results[::-1], {"direct": times(1.0)}, tmp_path / "b")
    first, second = ({path.name: path.read_bytes() for path in (tmp_path / name).iterdir()} for name in "ab")
    assert first == second and len(first) == 9
    assert said[-1].endswith("summary.md") and said[0].startswith("b1 drift, direct: ")
    provenance = json.loads(first["provenance.json"])
    assert provenance["commits"] == ["abc"] and provenance["cells"] == 8 and provenance["seeds"] == [0, 1]
    assert {claim["verdict"] for claim in json.loads(first["claims.json"])} <= {"confirmed", "refuted", "undecided"}


def test_recall_of_arms_that_saw_it(tmp_path):
    base = design().base
    base["data"]["world"]["scene"] = "R1"
    arms = [{"name": "teacher"}, {"name": "none"}]
    recall = [{"gaps": [0, 2]}, {"name": "reset", "gaps": [2], "arms": ["teacher"], "expects": "chance"}]
    claim = {"memory": "teacher", "none": "none"}
    ablation = design(base=base, arms=arms, recall=recall, drift=[], memory_claim=claim)
    levels = {"teacher": 0.9, "none": 0.06}
    write_results(ablation, [result(cell, levels[cell.arm.name]) for cell in cells_of(ablation)], {}, tmp_path)
    text = (tmp_path / "summary.md").read_text()
    assert "| teacher | **0.9** | **0.9** | **0.9** |" in text
    control = text.partition("## Recall: reset")[2].partition("##")[0]
    assert "| teacher | 0.9 |" in control and "none" not in control
    assert (tmp_path / "recall_recall_arms.png").is_file()
    claims = json.loads((tmp_path / "claims.json").read_text())
    assert [claim["key"] for claim in claims] == ["a memory"] and claims[0]["verdict"] == "undecided"
    assert any(part["text"].startswith("control reset of teacher") for part in claims[0]["parts"])
