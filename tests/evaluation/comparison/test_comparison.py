import csv
import json
import re
from pathlib import Path

import numpy as np
import pytest

from mpjax.__main__ import main
from mpjax.data.video_writer import write_part
from mpjax.errors import InputError
from mpjax.evaluation.comparison.command import write_comparison
from mpjax.evaluation.comparison.figures import curve_of, scatter_figure
from mpjax.evaluation.comparison.frames import frames_at, strip
from mpjax.evaluation.comparison.gather import motion_metric, read_systems, rows_of, stands_still
from mpjax.evaluation.metrics.metric import Score
from mpjax.evaluation.metrics.score_files import write_scores
from tests.evaluation import browser


def score(video, metric, value, seconds=10.0, ends=(0.0, 0.0), values=(), **changes):
    at = tuple(range(len(values)))
    return Score(
        video=video,
        seconds=seconds,
        metric=metric,
        value=value,
        values=values,
        at=at,
        start=ends[0],
        end=ends[1],
        **changes,
    )


def evaluated(root, name, scores):
    write_scores(root / name, scores, {})
    return root / name


@pytest.fixture
def folders(tmp_path):
    lively = [
        score("x/lively/a.mp4", "subject_consistency", 0.90, ends=(0.95, 0.85), weight=100),
        score("x/lively/b.mp4", "subject_consistency", 0.80, 30.0, ends=(0.9, 0.7), weight=300),
        score("x/lively/a.mp4", "dynamic_degree", 1.0, values=(2.0, 4.0)),
        score("x/lively/b.mp4", "dynamic_degree", 1.0, 30.0, values=(3.0, 3.0)),
    ]
    still = [
        score("x/still/a.mp4", "subject_consistency", 0.99, ends=(0.99, 0.98), weight=100),
        score("x/still/a.mp4", "dynamic_degree", 0.0, values=(0.1, 0.1)),
        score("x/still/a.mp4", "imaging_quality", None, reason="too small"),
    ]
    return [evaluated(tmp_path, "lively", lively), evaluated(tmp_path, "still", still)]


def test_a_system_that_stands_still_is_named_beside_its_numbers(folders, tmp_path):
    systems = read_systems(folders)
    assert motion_metric(systems) == "dynamic_degree"
    assert stands_still(systems) == {"lively": False, "still": True}
    text = write_comparison(folders, tmp_path / "out", strips=0).read_text()
    rows = [re.findall(r"<td>(.*?)</td>", row) for row in re.findall(r"<tr>(.*?)</tr>", text)]
    by_name = {row[0].partition(" <")[0]: row for row in rows if len(row) == 11}
    # Imag Aesth Dyn Smooth Bg Subj ΔImag ΔAesth ΔBg ΔSubj; VBench weighs by frames: (0.9·100 + 0.8·300) / 400.
    assert by_name["lively"][3] == "100.00" and by_name["still"][3] == "0.00"
    assert by_name["lively"][6] == '82.50 <span class="mark">dynamic 100.00</span>'
    assert by_name["still"][6] == '99.00 <span class="mark">dynamic 0.00</span>'
    assert by_name["lively"][10] == "15.00" and by_name["still"][10] == "1.00"
    assert by_name["lively"][1] == by_name["still"][1] == "–"
    assert "stands still" in by_name["still"][0] and "stands still" not in by_name["lively"][0]
    assert "still: less than half the motion" in text
    assert not re.search(r"https?:|@import|url\((?!#)", text)
    assert 'href="../x/lively/a.mp4"' not in text  # the videos are where `evaluate` saw them, from where it was run
    assert re.search(r'href="[./]*[^"]*x/lively/a\.mp4"', text)


def test_a_system_that_stands_still_is_named_without_a_lively_one_beside_it(folders, tmp_path):
    assert stands_still(read_systems(folders[:1])) == {"lively": False}
    assert stands_still(read_systems(folders[1:])) == {"still": True}
    frozen = [
        evaluated(tmp_path, "a", [score("a.mp4", "motion_energy", 0.0, values=(0.0, 0.0))]),
        evaluated(tmp_path, "b", [score("a.mp4", "motion_energy", 0.0, values=(0.0, 0.0))]),
    ]
    assert stands_still(read_systems(frozen)) == {"a": True, "b": True}
    # Flicker has motion energy, but nothing moves.
    noise = [score("a.mp4", "motion_energy", 2.0), score("a.mp4", "dead_motion_rate", 0.95)]
    assert stands_still(read_systems([evaluated(tmp_path, "noise", noise)])) == {"noise": True}


def test_numbers_are_written_for_machines(folders, tmp_path):
    write_comparison(folders, tmp_path / "out", strips=0)
    rows = json.loads((tmp_path / "out" / "report.json").read_text())["rows"]
    whole = [
        row for row in rows if (row["system"], row["metric"], row["seconds"]) == ("lively", "subject_consistency", None)
    ]
    assert whole[0]["videos"] == 2 and whole[0]["value"] == pytest.approx(0.825)
    assert whole[0]["drift"] == pytest.approx(0.15) and whole[0]["ci95"] == pytest.approx([0.8, 0.9])
    assert {row["seconds"] for row in rows if row["system"] == "lively"} == {None, 10, 30}
    with (tmp_path / "out" / "report.csv").open() as file:
        table = [*csv.DictReader(file)]
    assert len(table) == len(rows) and float(table[0]["value"]) == pytest.approx(rows[0]["value"])
    assert not any(row["metric"] == "imaging_quality" for row in rows)


def test_ratings_are_a_column(folders, tmp_path):
    elo = tmp_path / "elo.json"
    still = {"system": "still", "elo": 1401.0, "bradley_terry": 1434.4}
    still |= {"elo_ci95": [1390.0, 1410.0], "bradley_terry_ci95": [1400.0, None]}
    elo.write_text(json.dumps({"systems": [still]}))
    text = write_comparison(folders, tmp_path / "out", ratings=elo, strips=0).read_text()
    assert "<th>Bradley-Terry</th>" in text and "<td>1434 [1400,\N{NO-BREAK SPACE}–]</td>" in text
    assert "maximum-likelihood fit" in text and "<td>1401" not in text
    found = json.loads((tmp_path / "out" / "report.json").read_text())["ratings"]
    assert found == {"lively": None, "still": {"kind": "Bradley-Terry", "value": 1434.4, "ci95": [1400.0, None]}}
    # One that won everything has no Bradley-Terry rating: then the column is of another kind, in every row.
    lively = {"system": "lively", "elo": 1599.0, "elo_ci95": [1590.0, 1610.0]}
    elo.write_text(json.dumps({"systems": [{**lively, "bradley_terry": None}, still]}))
    text = write_comparison(folders, tmp_path / "out", ratings=elo, strips=0).read_text()
    assert "<th>Elo</th>" in text and "<td>1599 [1590,\N{NO-BREAK SPACE}1610]</td>" in text
    assert "<td>1401 [1390,\N{NO-BREAK SPACE}1410]</td>" in text and "<td>1434" not in text
    elo.write_text("{}")
    with pytest.raises(InputError, match=r"give the elo\.json"):
        read_systems(folders, elo)


def test_what_cannot_be_compared(folders, tmp_path):
    with pytest.raises(InputError, match="two folders are called lively"):
        read_systems([folders[0], folders[0]])
    empty = evaluated(tmp_path, "empty", [score("a.mp4", "subject_consistency", None, reason="x")])
    with pytest.raises(InputError, match="no metric was computed"):
        read_systems([empty])
    twice = evaluated(tmp_path, "twice", [score("p/a.mp4", "m", 1.0), score("q/a.mp4", "m", 1.0)])
    with pytest.raises(InputError, match="two videos are called a"):
        read_systems([twice])
    with pytest.raises(InputError, match=r"scores\.json is a file: give the folder that it lies in"):
        read_systems([folders[0] / "scores.json"])
    assert main(["report", str(tmp_path / "none"), f"--out={tmp_path / 'out'}"]) == 2
    with pytest.raises(InputError, match="--strips -1"):
        write_comparison(folders, tmp_path / "out", strips=-1)
    assert not (tmp_path / "out").exists()


def test_curves_are_means_over_twentieths():
    line = score("a", "m", 0.0, values=tuple(float(i) for i in range(100)))
    np.testing.assert_allclose(curve_of([line]), [np.arange(100).reshape(20, 5).mean(1)])
    sparse = score("a", "m", 0.0, values=(0.0, 1.0, 2.0, 3.0, 4.0))
    np.testing.assert_allclose(curve_of([sparse])[0, ::4], [0, 1, 2, 3, 4])
    np.testing.assert_allclose(curve_of([sparse])[0, 2], 0.5)
    assert len(curve_of([score("a", "m", 0.0, values=(1.0,))])) == 0


def test_scatter_shows_each_video_at_its_motion(folders):
    figure = scatter_figure("subject_consistency", "dynamic_degree", read_systems(folders))
    lines = figure.axes[0].get_lines()
    assert [*zip(*lines[0].get_data(), strict=True)] == [(3.0, 0.9), (3.0, 0.8)]
    assert [*zip(*lines[1].get_data(), strict=True)] == [(0.1, 0.99)]


def test_rows_have_an_interval_over_videos(folders):
    for row in rows_of(read_systems(folders)):
        assert row["ci95"][0] <= row["value"] <= row["ci95"][1]


def write_video(path, levels):
    frames = np.stack([np.full((64, 96, 3), level, np.uint8) for level in levels])
    path.parent.mkdir(parents=True, exist_ok=True)
    write_part(path, frames, fps=8, first_frame=0)
    return path


def test_frames_are_those_at_quarters(tmp_path):
    path = write_video(tmp_path / "a.mp4", range(20, 220, 10))
    found = frames_at(path)
    np.testing.assert_allclose(found.mean((1, 2, 3)), [20, 70, 120, 160, 210], atol=3)  # frames 0, 5, 10, 14, 19 of 20
    assert found.shape == (5, 64, 96, 3)
    other = strip({"a": found, "b": np.zeros((5, 30, 30, 3), np.uint8)})
    assert other.dtype == np.uint8 and other.shape[0] >= 240 and other.shape[1] > 5 * 180


def test_a_report_of_real_files_has_their_frames(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for system, step in (("rising", 8), ("resting", 0)):
        write_video(Path(system) / "a.mp4", [30 + step * i for i in range(16)])
        assert main(["evaluate", system, "--metrics=exposure,motion_energy", f"--out=eval/{system}"]) == 0
    assert main(["report", "eval/rising", "eval/resting", "--out=report"]) == 0
    text = Path("report/report.html").read_text()
    assert 'href="../rising/a.mp4"' in text and 'href="../resting/a.mp4"' in text
    assert text.count("data:image/png") == 1 and "Motion energy stands in" in text
    Path("rising/a.mp4").unlink()
    said = []
    write_comparison([Path("eval/rising"), Path("eval/resting")], Path("report"), say=said.append)
    assert said == ["rising/a.mp4: not there any more; its frames are left out"]


def test_the_report_opens_offline_in_a_browser(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for system, step in (("rising", 8), ("resting", 0)):
        write_video(Path(system) / "a.mp4", [30 + step * i for i in range(16)])
        main(["evaluate", system, "--metrics=exposure,motion_energy,temporal_flickering", f"--out=eval/{system}"])
    out = write_comparison([Path("eval/rising"), Path("eval/resting")], tmp_path / "report")
    with browser.offline_page() as page:
        page.goto(out.as_uri())
        assert page.inner_text("h1") == "Videos compared"
        assert page.evaluate("document.querySelector('figure img').naturalWidth") > 500
        assert page.evaluate(
            "[...document.querySelectorAll('figure svg')].every(s => s.getBoundingClientRect().height > 50)"
        )
        for width in (1280, 400):
            page.set_viewport_size({"width": width, "height": 800})
            assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth"), width
        link = page.get_attribute("section a >> nth=0", "href")
        page.goto((tmp_path / "report" / link).resolve().as_uri())
        page.wait_for_function("document.querySelector('video').videoWidth === 96")
