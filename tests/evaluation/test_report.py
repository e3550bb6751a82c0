import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest

from mpjax import drawing
from mpjax.data.filmstrip import png
from mpjax.data.recallworld.world import World
from mpjax.errors import InputError
from mpjax.evaluation import report_figures
from mpjax.evaluation.drift_metrics import drift_report
from mpjax.evaluation.recall_metrics import recall_report
from mpjax.evaluation.report import write_report
from mpjax.evaluation.statistics import wilson_interval

WORLD = World()
GAPS = (0, 1, 2, 4, 8)
VOID = {"meta", "img", "br", "link", "hr", "input", "source"}


def recall_of(hits, videos=100):
    """The recall report of `hits[i]` right answers out of `videos` at GAPS[i]."""
    gaps = np.repeat(GAPS, videos)
    truth = np.arange(gaps.size) % WORLD.ids
    wrong = np.concatenate([np.arange(videos) >= count for count in hits])
    return recall_report(
        (truth + wrong) % WORLD.ids,
        truth,
        gaps,
        colours=WORLD.colours,
        shapes=WORLD.shapes,
        beyond_reach=WORLD.beyond_reach,
        residual=np.where(wrong, 0.2, 0.01),
        hallucination_threshold=0.1,
    )


def drift_of(rise, clips=8, frames=48):
    """The drift report of curves that rise by `rise` from 0.01, each clip a little apart."""
    curve = 0.01 + rise * np.linspace(0, 1, frames) + 0.002 * np.arange(clips)[:, None]
    return drift_report(
        off_manifold=curve,
        own_toy=curve,
        gain=np.ones((clips, frames, 3)),
        psnr=30 - curve,
        decoded=np.zeros((clips, frames), int),
        identities=np.zeros(clips, int),
        fps=4,
        segment_frames=4,
        threshold=0.1,
        true_history=np.full((clips, frames), 0.01),
    )


def full_report():
    return {
        "command": "python -m mpjax demo --run '<runs>/demo'",
        "commit": "0123abc",
        "seeds": {"training": 0},
        "versions": {"jax": "0.10.2"},
        "machine": {"cores": 2},
        "seconds": {"install": 75.0, "train": 400.0, "evaluate": 20.5},
        "recall": {
            "memorypack": recall_of([100, 100, 90, 80, 70]),
            "framepack": {**recall_of([100, 95, 6, 7, 5]), "long_term_memory": False},
        },
        "drift": {
            "teacher": drift_of(0.3),
            "direct": {**drift_of(0.05), "motion": {"speed_ratio": {"mean": 0.873, "ci95": [0.81, 0.92]}}},
        },
        "drift_is_illustration": True,
        "step_time_ratio_direct_over_teacher": {
            "ratio": 1.0123,
            "ci95": [0.991, 1.034],
            "pairs": 20,
            "teacher_ms": 52.1,
            "direct_ms": 52.7,
        },
        "seconds_per_segment": [4.4, 0.06, 0.05, 0.055],
        "peak_rss_mb": {"quarter": 1210.4, "end": 1213.0},
        "training": {
            "memorypack": {
                "parameters": 312345,
                "updates": 2000,
                "ms_per_update": 201.0,
                "loss": [[50, 1.0], [100, 0.5], [150, 0.25]],
                "held_out": [[150, 0.3]],
            }
        },
        "captions": {"strip": "Generated above & true below"},
        "video": "recall 60s.mp4",
        "video_schedule": ["a toy enters", "a ball bounces", "a ball bounces", "the toy returns"],
    }


PICTURES = {"strip": png(np.full((8, 16, 3), 200, np.uint8))}


class Page(HTMLParser):
    """Checks that elements close in order, and keeps what the tests ask for."""

    def __init__(self, text):
        super().__init__()
        self.open, self.attributes, self.ids, self.headings, self.island, self.words = [], [], [], [], "", []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.note(tag, attrs)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.note(tag, attrs)

    def note(self, tag, attrs):
        self.attributes += [(tag, *pair) for pair in attrs]
        self.ids += [value for name, value in attrs if name == "id"]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] == "script":
            self.island += data
        elif "style" not in self.open:
            self.words.append(data)
        if self.open and self.open[-1] == "h2":
            self.headings.append(data.strip())

    @property
    def text(self):
        return " ".join(" ".join(self.words).split())


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    path = write_report(full_report(), PICTURES, folder)
    return folder, path.read_text(), Page(path.read_text())


def marker_heights(svg, gid):
    """y of the markers of one series, in drawing units."""
    group = svg[svg.index(f'id="{gid}"') :]
    group = group[: group.index("</g>\n   </g>")]
    return np.asarray([float(y) for y in re.findall(r'<use [^>]*\by="([\d.]+)"', group)])


def path_heights(svg, gid):
    """y of all points of the paths of one group; a filled one is a definition, used at an offset."""
    group = svg[svg.index(f'id="{gid}"') :]
    group = group[: group.index("</g>")]
    offset = re.search(r'<use [^>]*\by="([\d.]+)"', group)
    points = re.findall(r"[ML] ?[\d.-]+ ([\d.-]+)", group)
    return np.asarray([float(y) for y in points]) + float(offset[1] if offset else 0)


def height_of_line(svg, gid):
    group = svg[svg.index(f'id="{gid}"') :]
    return float(re.search(r'd="M [\d.]+ ([\d.]+)', group)[1])


def test_every_section_is_there_and_nothing_is_fetched(written):
    folder, text, page = written
    assert page.headings == ["What was run", "Recall", "Pictures", "Drift over time", "Cost", "Training"]
    assert sorted(path.name for path in folder.iterdir()) == ["report.html", "report.json"]
    assert not re.search(r"https?:|@import|url\((?!#)", text)
    sources = [(tag, value) for tag, name, value in page.attributes if name in ("src", "href") and value[0] != "#"]
    assert [tag for tag, value in sources if value.startswith("data:image/png;base64,")] == ["img"]
    assert sorted(s for s in sources if not s[1].startswith("data:")) == [
        ("a", "recall%2060s.mp4"),
        ("video", "recall%2060s.mp4"),
    ]
    # What one element refers to by id is in the page, and no id is there twice.
    assert len(page.ids) == len(set(page.ids))
    assert {*re.findall(r'(?:href="|url\()#([\w-]+)', text)} <= {*page.ids}


def test_the_numbers_of_the_page_are_those_given(written):
    folder, _, page = written
    assert json.loads((folder / "report.json").read_text()) == json.loads(page.island) == full_report()
    for words in (
        "python -m mpjax demo --run '<runs>/demo'",
        "7 min 0 s: train 6 min 40 s, evaluate 20.5 s",  # 400 + 20.5 s, without the installation
        "1 min 15 s, not in the time above",
        "80.0 % [75.1, 84.1]",  # Wilson's interval of 240 out of 300
        "memorypack : above chance, pooled and at gap 2, 4, 8",
        "framepack : leak test passed: at chance, pooled and at every gap; pooled recall 6.0 %",
        "over 300 videos, chance 6.25 %",
        "In the median, a Direct Forcing update takes 1.01 times as long as a Teacher Forcing update",
        "95 % interval [0.991, 1.03], from 20 alternating pairs",
        "segment of the video but the first, which compiles and took 4.4 s:",
        "1,210 MB after a quarter of the video, 1,213 MB at its end",
        "memorypack 312,345 2,000 201",
        "Generated above & true below",
        "recall 60s.mp4 . Prompts by segment: a toy enters, a ball bounces × 2, the toy returns",
        "illustration",
        "a clip survives while R is at most 0.1.",
        "teacher 1.53 [1.53, 1.53] 0.0 % of 12 s",  # rises by 0.3 from first to last of 48 frames, 4 a second
        "0.873 [0.81, 0.92]",
    ):
        assert words in page.text, words


def test_a_leak_is_named(tmp_path):
    recall = {"framepack": {**recall_of([100, 100, 30, 6, 6]), "long_term_memory": False}}
    page = Page(write_report({"recall": recall}, {}, tmp_path).read_text())
    assert "framepack : leak test FAILED: above chance, pooled and at gap 2;" in page.text
    memory = {**recall["framepack"], "long_term_memory": True, "leak_test": None}
    page = Page(write_report({"recall": {"memorypack": memory}}, {}, tmp_path).read_text())
    assert "memorypack : has long-term memory, to which the test does not apply." in page.text
    near = recall_report(
        [0, 1],
        [0, 1],
        [0, 1],
        colours=4,
        shapes=4,
        beyond_reach=WORLD.beyond_reach,
        residual=[0, 0],
        hallucination_threshold=1,
    )
    page = Page(write_report({"recall": {"near": near}}, {}, tmp_path).read_text())
    assert "no video goes beyond reach" in page.text


def test_recall_figure_draws_the_rates_to_scale():
    hits = [100, 100, 90, 80, 70]
    figure = report_figures.recall_figure({"a": recall_of(hits), "b": recall_of([50, 40, 30, 20, 10])})
    svg = drawing.svg(figure, "recall")
    first, second = marker_heights(svg, "recall-series-0"), marker_heights(svg, "recall-series-1")
    assert first.size == second.size == len(GAPS)
    # One straight scale takes percent to height for both series and the line of chance; up is less y.
    slope, offset = np.polyfit([*hits, 50, 40, 30, 20, 10], [*first, *second], 1)
    assert slope < 0
    np.testing.assert_allclose(first, offset + slope * np.asarray(hits), atol=0.01)
    np.testing.assert_allclose(height_of_line(svg, "recall-chance"), offset + slope * 6.25, atol=0.01)
    ends = np.asarray([wilson_interval(count, 100) for count in hits]) * 100
    intervals = path_heights(svg, "recall-interval-0").reshape(-1, 2)
    np.testing.assert_allclose(intervals, offset + slope * ends, atol=0.01)
    # Reach 1 + 2 + 4 frames ends before gap 2, the third place: halfway between the second and the third marker.
    places = [float(x) for x in re.findall(r'<use [^>]*\bx="([\d.]+)"', svg[svg.index("recall-series-0") :])][:5]
    edge = float(re.search(r'd="M ([\d.]+)', svg[svg.index('id="recall-reach"') :])[1])
    # The first of two series stands 0.06 of a place to the left.
    np.testing.assert_allclose(edge, places[1] + 0.56 * (places[2] - places[1]), atol=0.01)


def test_drift_and_training_figures_draw_the_numbers_to_scale():
    drift = {"teacher": drift_of(0.3), "direct": drift_of(0.05)}
    svg = drawing.svg(report_figures.drift_figure(drift), "drift")
    for index, name in enumerate(drift):
        means = [row["mean"] for row in drift[name]["off_manifold_by_segment"]]
        heights = marker_heights(svg, f"drift-series-{index}")
        slope, offset = np.polyfit(means, heights, 1)
        np.testing.assert_allclose(heights, offset + slope * np.asarray(means), atol=0.01)
        band = (path_heights(svg, f"drift-band-{index}") - offset) / slope
        ends = np.asarray([row["ci95"] for row in drift[name]["off_manifold_by_segment"]])
        np.testing.assert_allclose([band.min(), band.max()], [ends.min(), ends.max()], rtol=1e-2)
    teacher, direct = (np.ptp(marker_heights(svg, f"drift-series-{index}")) for index in (0, 1))
    np.testing.assert_allclose(teacher / direct, 6, rtol=1e-3)

    training = {"arm": {"loss": [[1, 1.0], [2, 0.5]], "held_out": [[1, 1.0], [2, 0.5], [3, 0.25], [4, None]]}}
    svg = drawing.svg(report_figures.training_figure(training), "training")
    steps = np.diff(marker_heights(svg, "training-held_out-0"))
    assert steps.size == 2 and steps[0] > 0
    np.testing.assert_allclose(steps[0], steps[1], atol=0.01)  # halving is one distance on a logarithmic scale


def test_time_of_segments_starts_at_zero_and_after_the_one_that_compiles():
    svg = drawing.svg(report_figures.segment_seconds_figure([4.4, 0.1, None, 0.2, 0.3]), "time")
    heights = marker_heights(svg, "time-series-0")
    assert heights.size == 3
    ground = float(re.findall(r'd="M [\d.]+ ([\d.]+)', svg[: svg.index("time-series-0")])[1])
    np.testing.assert_allclose((ground - heights) / (ground - heights[0]), [1, 2, 3], rtol=1e-3)


def test_figures_follow_the_colours_of_the_page(written):
    _, text, _ = written
    drawings = "".join(re.findall(r"<svg.*?</svg>", text, re.DOTALL))
    assert {*re.findall(r"#[0-9a-f]{6}\b", drawings)} <= {"#ffffff"}
    used = {*re.findall(r"var\(--series-(\d)\)", drawings)}
    assert {"0", "1"} <= used
    for index in used:
        assert text.count(f"--series-{index}: ") == 2  # light and dark


@pytest.mark.parametrize("key", [*full_report()])
def test_any_section_can_be_missing_or_alone(key, tmp_path):
    whole = full_report()
    Page(write_report({key: whole[key]}, {}, tmp_path).read_text())
    if key in ("recall", "drift", "training"):
        del whole[key]
        page = Page(write_report(whole, PICTURES, tmp_path).read_text())
        assert {"recall": "Recall", "drift": "Drift over time", "training": "Training"}[key] not in page.headings


def test_an_empty_report_is_a_page(tmp_path):
    assert Page(write_report({}, {}, tmp_path / "new" / "folder").read_text()).headings == []


def test_numbers_that_json_lacks(tmp_path):
    report = {"seconds_per_segment": np.asarray([0.5, np.nan], np.float32), "seconds": {"train": np.float64(3)}}
    write_report(report, {}, tmp_path)
    assert json.loads((tmp_path / "report.json").read_text()) == {
        "seconds_per_segment": [0.5, None],
        "seconds": {"train": 3.0},
    }


def test_text_cannot_break_the_page(tmp_path):
    attack = "</script><b>&\"'"
    page = Page(
        write_report({"command": attack, "captions": {"p": attack}}, {"p": PICTURES["strip"]}, tmp_path).read_text()
    )
    assert json.loads(page.island)["command"] == attack
    assert ("img", "alt", attack) in page.attributes
    assert "b" not in {tag for tag, *_ in page.attributes} and attack in "".join(page.words)


def test_bad_input_leaves_the_old_report(tmp_path):
    before = write_report({"commit": "a"}, {}, tmp_path).read_text()
    with pytest.raises(InputError, match="picture 'p' is no PNG"):
        write_report({}, {"p": b"GIF89a"}, tmp_path)
    with pytest.raises(InputError, match=r"report\.seeds\.x is a set"):
        write_report({"seeds": {"x": {1}}}, {}, tmp_path)
    with pytest.raises(KeyError):  # no recall report at all
        write_report({"recall": {"arm": {"gaps": []}}}, {}, tmp_path)
    assert (tmp_path / "report.html").read_text() == before
    assert json.loads((tmp_path / "report.json").read_text()) == {"commit": "a"}
