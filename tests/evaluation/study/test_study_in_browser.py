import json

import numpy as np

from mpjax.data.video_writer import write_part
from mpjax.evaluation.study.page import write_study
from mpjax.evaluation.study.standings import write_standings
from tests.evaluation import browser


def test_a_click_is_a_vote_that_the_ratings_read(tmp_path):
    for system, level in (("bright", 200), ("dark", 40)):
        (tmp_path / system).mkdir()
        for name in "abc":
            frames = np.full((24, 64, 96, 3), level, np.uint8)
            write_part(tmp_path / system / f"{name}.mp4", frames, fps=24, first_frame=0)
    out = tmp_path / "study"
    write_study([tmp_path / "bright", tmp_path / "dark"], out)
    key = json.loads((tmp_path / "study.key.json").read_text())["clips"]
    with browser.offline_page(accept_downloads=True) as page:
        page.goto((out / "index.html").as_uri())
        page.fill("#rater", "Ann & Bob")
        page.click("#begin")
        assert page.inner_text("#progress") == "0 of 3 pairs"
        wins = []
        for number in range(3):
            page.wait_for_selector("button[data-choice=left]:enabled")
            left = page.get_attribute("#left", "src").removeprefix("videos/")
            assert page.evaluate("document.getElementById('left').videoWidth") == 96
            side = "left" if key[left]["system"] == "bright" else "right"
            if number == 1:
                page.keyboard.press("0")
            else:
                page.click(f"button[data-choice={side}]")
            wins.append(side)
            if number == 0:  # a reload keeps the vote and goes on
                page.reload()
                page.fill("#rater", "Ann & Bob")
                page.click("#begin")
                assert page.inner_text("#progress") == "1 of 3 pairs"
        assert page.is_visible("#end")
        page.click("#undo")
        assert page.is_hidden("#end")
        page.wait_for_selector("button[data-choice=left]:enabled")
        page.click(f"button[data-choice={wins[-1]}]")
        with page.expect_download() as download:
            page.click("#download")
        votes = tmp_path / "votes.jsonl"
        download.value.save_as(votes)
        assert download.value.suggested_filename.endswith("-Ann_Bob.jsonl")
        rows = [json.loads(line) for line in votes.read_text().splitlines()]
        assert [row["choice"] for row in rows] == [wins[0], "tie", wins[2]]
        assert all(row["rater"] == "Ann & Bob" and row["seconds"] > 0 for row in rows)
        write_standings([votes], tmp_path / "study.key.json", tmp_path / "elo")
        page.goto((tmp_path / "elo" / "elo.html").as_uri())
        assert "3 votes of 1 rater; ties: 1" in page.inner_text("body")
        assert page.inner_text("table tr:nth-child(2) td:nth-child(2)") == "bright"
