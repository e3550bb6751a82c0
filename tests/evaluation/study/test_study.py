import json
import re
import shutil

import pytest

from mpjax.__main__ import main
from mpjax.errors import InputError
from mpjax.evaluation.statistics import wilson_interval
from mpjax.evaluation.study.ballots import as_votes, read_ballots
from mpjax.evaluation.study.page import write_study
from mpjax.evaluation.study.standings import lead_words, standings, write_standings


def folders(root, videos=("a", "b", "c"), systems=("ours", "theirs")):
    for system in systems:
        (root / system).mkdir(parents=True)
        for video in videos:
            (root / system / f"{video}.mp4").write_bytes(f"{system} {video}".encode())
    return [root / system for system in systems]


def page_data(out):
    text = (out / "index.html").read_text()
    return json.loads(re.search(r'id="study">(.*?)</script>', text, re.DOTALL)[1].replace("<\\/", "</"))


def vote_lines(out, choices, rater="r", start=0):
    """A line a choice; `ours` and `theirs` name the winner, whichever side it is on."""
    key = json.loads(out.with_name(out.name + ".key.json").read_text())
    lines = []
    for number, (pair, choice) in enumerate(zip(page_data(out)["pairs"], choices, strict=False), start):
        left, right = pair["clips"] if number % 2 else pair["clips"][::-1]
        if choice in key["systems"]:
            choice = "left" if key["clips"][left]["system"] == choice else "right"
        row = dict(study=key["study"], rater=rater, pair=pair["id"], left=left, right=right, choice=choice)
        lines.append(json.dumps({**row, "at": f"2026-01-01T00:00:{number:02}Z"}))
    return "\n".join(lines) + "\n"


def test_the_folder_for_raters_tells_nothing_of_the_systems(tmp_path):
    ours, theirs = folders(tmp_path)
    (ours / "a.txt").write_text("a </script> dog")
    (theirs / "lonely.mp4").write_bytes(b"x")
    out = tmp_path / "out" / "study"
    lines = write_study([ours, theirs], out)
    assert lines[0] == "3 pairs of 6 videos, ours, theirs" and lines[1] == "in one folder only, and left out: 1 video"
    text = (out / "index.html").read_text()
    assert "ours" not in re.sub(r"yours\w*", "", text) and "theirs" not in text
    assert not re.search(r"https?:|@import|url\((?!#)|import\(|fetch\(", text)
    data, key = page_data(out), json.loads((tmp_path / "out" / "study.key.json").read_text())
    names = {path.name for path in (out / "videos").iterdir()}
    assert names == set(key["clips"]) and not any(re.search("ours|theirs", name) for name in names)
    for token, clip in key["clips"].items():
        assert (out / "videos" / token).read_bytes() == f"{clip['system']} {clip['video']}".encode()
    for pair in data["pairs"]:
        one, other = (key["clips"][token] for token in pair["clips"])
        assert one["video"] == other["video"] and one["system"] != other["system"]
        assert pair["caption"] == ("a </script> dog" if one["video"] == "a" else "")
    # The order of the two in the file must not give away the system either.
    many = folders(tmp_path / "many", videos=[f"v{i}" for i in range(64)])
    write_study(many, tmp_path / "many_out")
    key = json.loads((tmp_path / "many_out.key.json").read_text())
    firsts = [key["clips"][pair["clips"][0]]["system"] for pair in page_data(tmp_path / "many_out")["pairs"]]
    assert 16 < firsts.count("ours") < 48


def test_every_two_of_three_systems_meet(tmp_path):
    write_study(folders(tmp_path, systems=("x", "y", "z")), tmp_path / "study")
    key = json.loads((tmp_path / "study.key.json").read_text())["clips"]
    met = [
        tuple(sorted(key[token]["system"] for token in pair["clips"]))
        for pair in page_data(tmp_path / "study")["pairs"]
    ]
    assert sorted(met) == sorted([("x", "y"), ("x", "z"), ("y", "z")] * 3)


def test_votes_on_another_question_or_caption_are_of_another_study(tmp_path):
    two = folders(tmp_path)
    write_study(two, tmp_path / "better")
    write_study(two, tmp_path / "same")
    write_study(two, tmp_path / "truer", question="Which video is truer to the text?")
    (two[0] / "a.txt").write_text("a dog")
    write_study(two, tmp_path / "captioned")
    ids = {name: page_data(tmp_path / name)["id"] for name in ("better", "same", "truer", "captioned")}
    assert ids["better"] == ids["same"] and len(set(ids.values())) == 3
    (tmp_path / "v.jsonl").write_text(vote_lines(tmp_path / "truer", ["ours"]))
    with pytest.raises(InputError, match="give files of one study"):
        read_ballots([tmp_path / "v.jsonl"], tmp_path / "better.key.json")


def test_bad_folders_are_refused_before_anything_is_written(tmp_path):
    ours, theirs = folders(tmp_path)
    out = tmp_path / "study"
    with pytest.raises(InputError, match="two folders of videos or more"):
        write_study([ours], out)
    with pytest.raises(InputError, match="a second folder is called ours"):
        write_study([ours, ours], out)
    other = folders(tmp_path / "other", videos=("q",), systems=("third",))
    with pytest.raises(InputError, match="no video has the same name"):
        write_study([ours, *other], out)
    with pytest.raises(InputError, match="give 1 or more"):
        write_study([ours, theirs], out, votes_per_rater=0)
    shutil.copy(theirs / "a.mp4", theirs / "a.webm")
    with pytest.raises(InputError, match="two videos called a"):
        write_study([ours, theirs], out)
    (theirs / "a.webm").rename(theirs / "d.avi")
    with pytest.raises(InputError, match=r"d\.avi: browsers do not play"):
        write_study([ours, theirs], out)
    assert not out.exists() and not out.with_name("study.key.json").exists()
    (theirs / "d.avi").unlink()
    write_study([ours, theirs], out)
    with pytest.raises(InputError, match="exists already"):
        write_study([ours, theirs], out)


@pytest.fixture
def study(tmp_path):
    out = tmp_path / "study"
    write_study(folders(tmp_path, videos=[f"v{i}" for i in range(10)]), out)
    return out


def test_votes_are_read_whatever_the_side(study, tmp_path):
    file, key = tmp_path / "v.jsonl", tmp_path / "study.key.json"
    choices = ["ours"] * 6 + ["theirs"] * 3 + ["tie"]
    file.write_text(vote_lines(study, choices))
    # The same votes downloaded again, but for one that was changed later on.
    again = tmp_path / "again.jsonl"
    again.write_text(vote_lines(study, ["theirs", *choices[1:]]).replace("00:00:00Z", "00:00:59Z"))
    ballots, systems = read_ballots([again, file], key)
    assert len(ballots) == 10 and systems == ["ours", "theirs"]
    assert [ballot.at for ballot in ballots] == sorted(ballot.at for ballot in ballots)
    votes = as_votes(ballots, systems, "votes")
    assert votes.wins().sum(0).tolist() == [[0, 5.5], [4.5, 0]]
    assert {(b.left, b.right) for b in ballots} == {("ours", "theirs"), ("theirs", "ours")}


def test_resamples_draw_what_is_asked_for(study, tmp_path):
    key = tmp_path / "study.key.json"
    for rater in "pq":
        (tmp_path / rater).write_text(vote_lines(study, ["ours"] * 10, rater=rater))
    ballots, systems = read_ballots([tmp_path / "p", tmp_path / "q"], key)
    clusters = {name: as_votes(ballots, systems, name).cluster for name in ("votes", "raters", "videos")}
    assert {name: len(set(found)) for name, found in clusters.items()} == {"votes": 20, "raters": 2, "videos": 10}
    with pytest.raises(InputError, match="--resample people"):
        as_votes(ballots, systems, "people")


def test_standings_of_two_systems(study, tmp_path, capsys):
    file, out = tmp_path / "v.jsonl", tmp_path / "elo"
    file.write_text(vote_lines(study, ["theirs"] * 6 + ["ours"] * 3 + ["tie"]))
    assert main(["elo", str(file), f"--key={tmp_path / 'study.key.json'}", f"--out={out}"]) == 0
    assert capsys.readouterr().out.startswith("1. theirs: Bradley-Terry 1554 [")
    found = json.loads((out / "elo.json").read_text())
    first, second = found["systems"]
    assert (first["system"], first["rank"], first["votes"], first["share"]) == ("theirs", 1, 10, 0.65)
    lead = 107.5  # 400 log10(6.5 / 3.5)
    assert first["bradley_terry"] - second["bradley_terry"] == pytest.approx(lead, abs=0.1)
    (pair,) = found["pairs"]
    assert pair["lead"] == pytest.approx(lead, abs=0.1) and pair["better"] == "theirs"
    assert pair["votes_needed"] == 43  # (1.96 · 0.5 / 0.15)² = 42.7
    assert found["ties"] == 1 and found["raters"] == 1
    left = sum(json.loads(line)["choice"] == "left" for line in file.read_text().splitlines())
    assert found["left"] == {"share": left / 9, "ci95": list(wilson_interval(left, 9))}
    table = (out / "elo.csv").read_text().splitlines()
    assert table[0] == "rank,system,votes,share,bradley_terry,bradley_terry_ci95_low,bradley_terry_ci95_high,elo," + (
        "elo_ci95_low,elo_ci95_high"
    )
    assert len(table) == 3 and table[1].startswith("1,theirs,10,0.65,")
    page = (out / "elo.html").read_text()
    assert "theirs over ours" in page and ">no<" in page and "https:" not in page


def test_a_system_that_wins_everything_has_no_finite_rating(study, tmp_path):
    file, key = tmp_path / "v.jsonl", tmp_path / "study.key.json"
    file.write_text(vote_lines(study, ["ours"] * 10))
    found = standings(*read_ballots([file], key))
    assert [row["system"] for row in found["systems"]] == ["ours", "theirs"]
    assert found["systems"][0]["bradley_terry"] is None and found["systems"][0]["elo"] > 1550
    assert found["pairs"][0]["lead"] is None and found["pairs"][0]["lead_ci95"] == [None, None]
    write_standings([file], key, tmp_path / "elo")
    assert "ours over theirs" in (tmp_path / "elo" / "elo.html").read_text()


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("{", "line 1: not JSON, so not a vote"),
        ('{"study": "other"}', "is of study other"),
        ("[]", "no vote of this study"),
        ('{"study": "STUDY", "left": "x", "right": "y"}', "no vote of this study"),
        ("", "no votes"),
    ],
)
def test_files_that_are_no_votes(study, tmp_path, line, says):
    key = tmp_path / "study.key.json"
    file = tmp_path / "v.jsonl"
    file.write_text(line.replace("STUDY", json.loads(key.read_text())["study"]))
    with pytest.raises(InputError, match=says):
        read_ballots([file], key)
    file.write_text(vote_lines(study, ["maybe"]))
    with pytest.raises(InputError, match="line 1 is no vote"):
        read_ballots([file], key)
    file.write_text(json.dumps({**json.loads(vote_lines(study, ["left"])), "choice": ["left"]}))
    with pytest.raises(InputError, match="line 1 is no vote"):
        read_ballots([file], key)
    with pytest.raises(InputError, match="not a key"):
        read_ballots([file], study / "index.html" if line else file)


def test_the_command_says_what_a_lead_takes(capsys, tmp_path):
    assert main(["elo", "--lead=31"]) == 0
    assert "expected share of 54.4 %: 486 independent votes" in capsys.readouterr().out
    assert "989 find it" in lead_words(31)
    for lead, says in (("0", "more than 0"), ("-5", "more than 0"), ("nan", "more than 0")):
        assert main(["elo", f"--lead={lead}"]) == 2 and says in capsys.readouterr().err
    for more in ("votes.jsonl", "--key=k.json", "--out=elo"):
        assert main(["elo", "--lead=31", more]) == 2 and "give it alone" in capsys.readouterr().err
    assert main(["elo", "votes.jsonl"]) == 2
    assert main(["study", str(tmp_path), "--out=x"]) == 2
