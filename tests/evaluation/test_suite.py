import json
import shlex
from pathlib import Path

import pytest

from mpjax.__main__ import main, parser
from mpjax.errors import InputError
from mpjax.evaluation import suite
from mpjax.evaluation.metrics.videos import find_image
from mpjax.evaluation.study.page import write_study


@pytest.fixture
def files(tmp_path):
    """200 pictures in VBench-I2V's layout, each with a camera prompt besides."""
    rows = []
    folder = tmp_path / "data" / "crop" / "16-9"
    folder.mkdir(parents=True)
    for i in range(200):
        name = f"a cat's toy, number {i}"
        kind = "i2v_subject" if i % 2 else "i2v_background"
        rows.append({"prompt_en": name, "dimension": [kind], "image_type": "animal", "image_name": f"{name}.jpg"})
        rows.append({"prompt_en": f"{name}, camera pans left", "dimension": ["camera_motion"], "image_type": "animal"})
        (folder / f"{name}.jpg").write_bytes(b"x")
    (tmp_path / "info.json").write_text(json.dumps(rows))
    return tmp_path


def protocol(files, *more):
    overrides = [f"--config.info={files / 'info.json'}", f"--config.images={files / 'data'}", *more]
    return suite.load("configs/suites/pfvg.py", overrides)


def test_the_papers_protocol_has_its_160_videos(files):
    cases = suite.cases_of(protocol(files))
    assert {s: sum(case.seconds == s for case in cases) for s in (10, 30, 60)} == {10: 60, 30: 60, 60: 40}
    assert len({case.name for case in cases}) == len({case.seed for case in cases}) == 160
    assert all(case.image.is_file() and case.image.stem == case.name == case.prompt for case in cases)
    # The order of the file does not matter; the seed does.
    rows = json.loads((files / "info.json").read_text())
    (files / "info.json").write_text(json.dumps(rows[::-1]))
    assert suite.cases_of(protocol(files)) == cases
    assert suite.cases_of(protocol(files, "--config.seed=1")) != cases


@pytest.fixture
def run(monkeypatch):
    """Weights that are there."""
    monkeypatch.setattr(suite, "read_run", lambda folder: folder)
    return Path("runs/x")


def test_the_script_is_of_commands_that_exist(files, run, capsys):
    out = files / "videos"
    flags = [f"--config.info={files / 'info.json'}", f"--config.images={files / 'data'}"]
    assert main(["suite", "--config=configs/suites/pfvg.py", *flags, f"--weights={run}", f"--out={out}"]) == 0
    assert "160 videos: 60 of 10 s, 60 of 30 s, 40 of 60 s" in capsys.readouterr().out
    rows = [json.loads(line) for line in (out / "manifest.jsonl").read_text().splitlines()]
    commands = (out / "generate.sh").read_text().splitlines()[2:]
    assert len(rows) == len(commands) == 160
    for row, command in zip(rows, commands, strict=True):
        args = parser().parse_args(shlex.split(command)[3:])
        assert (args.prompt, str(args.image), args.seconds) == ([row["caption"]], row["image"], row["seconds"])
        assert args.out == out / row["file"] and args.seed == row["seed"]


def test_prompts_alone(tmp_path):
    rows = [
        {"prompt_en": "a bird", "dimension": ["object_class"], "auxiliary_info": {"object_class": {"object": "bird"}}},
        {"prompt_en": "a person", "dimension": ["human_action", "subject_consistency"]},
    ]
    (tmp_path / "info.json").write_text(json.dumps(rows))
    cases = suite.cases_of(suite.Suite(info=str(tmp_path / "info.json")))
    assert sorted((case.name, case.prompt, case.image) for case in cases) == [
        ("a bird-0", "a bird", None),
        ("a person-0", "a person", None),
    ]
    (only,) = suite.cases_of(suite.Suite(info=str(tmp_path / "info.json"), dimensions=("subject_consistency",)))
    assert only.prompt == "a person" and only.seconds == 5


def test_five_samples_of_each(files):
    cases = suite.cases_of(protocol(files, "--config.samples=5"))
    assert {s: sum(case.seconds == s for case in cases) for s in (10, 30, 60)} == {10: 60, 30: 60, 60: 40}
    assert len({case.name for case in cases}) == len({case.seed for case in cases}) == 160
    for first in range(0, 160, 5):
        five = cases[first : first + 5]
        assert len({(case.image, case.seconds) for case in five}) == 1
        assert [case.name for case in five] == [f"{five[0].image.stem}-{i}" for i in range(5)]
        assert find_image(Path(f"{five[4].name}.mp4"), files / "data" / "crop" / "16-9") == five[0].image
    (files / "info.json").write_text(json.dumps([{"prompt_en": "a bird"}]))
    cases = suite.cases_of(suite.Suite(info=str(files / "info.json"), samples=2))
    assert [(case.name, case.seed) for case in cases] == [("a bird-0", 0), ("a bird-1", 1)]
    for samples, says in ((0, "config.samples is 0"), (7, "60 videos of 10 s are no multiple of 7 samples")):
        with pytest.raises(InputError, match=says):
            protocol(files, f"--config.samples={samples}")


def test_what_is_no_suite(files):
    with pytest.raises(InputError, match=r"config\.info is empty"):
        suite.cases_of(suite.Suite())
    info = files / "bad.json"
    for text, says in (("{", "cannot be read as JSON"), ("{}", "entry 0 has no prompt_en"), ("[1]", "entry 0 has no")):
        info.write_text(text)
        with pytest.raises(InputError, match=says):
            suite.cases_of(suite.Suite(info=str(info)))
    info.write_text(json.dumps([{"prompt_en": "a/b"}]))
    with pytest.raises(InputError, match="a / in its prompt"):
        suite.cases_of(suite.Suite(info=str(info)))
    with pytest.raises(InputError, match="no such picture"):
        suite.cases_of(protocol(files, "--config.ratio=1-1"))
    with pytest.raises(InputError, match="no entry fits"):
        suite.cases_of(suite.Suite(info=str(files / "info.json"), dimensions=("colour",)))
    with pytest.raises(InputError, match="asks for videos of 201 entries and there are 200; lower"):
        suite.cases_of(protocol(files, "--config.lengths.0.videos=101"))
    with pytest.raises(InputError, match=r"config\.lengths"):
        suite.Length(seconds=0)
    with pytest.raises(InputError, match=r"config\.lengths is empty"):
        protocol(files, "--config.lengths=[]")
    with pytest.raises(InputError, match="0 videos of 10 s take all that are left"):
        protocol(files, "--config.lengths.0.videos=0")
    with pytest.raises(InputError, match="no entry is left for 60 s"):
        suite.cases_of(
            protocol(files, "--config.lengths=[{'seconds': 10.0, 'videos': 200}, {'seconds': 60.0, 'videos': 0}]")
        )
    pictures = suite.Suite(info=str(info), images=str(files / "data"))
    for row, says in (
        ({"prompt_en": "a", "dimension": None}, "entry 0 has a dimension that is no list"),
        ({"prompt_en": "a", "dimension": [1]}, "entry 0 has a dimension that is no list"),
        ({"prompt_en": "a", "image_name": 5}, "entry 0 has an image_name that is no file name"),
    ):
        info.write_text(json.dumps([row]))
        with pytest.raises(InputError, match=says):
            suite.cases_of(pictures)


def test_the_longest_prompt_still_names_every_file_that_generate_writes(tmp_path):
    info = tmp_path / "info.json"
    for letters, fits in ((236, True), (237, False)):  # 255 - len("-0.mp4.json.partial") = 236
        info.write_text(json.dumps([{"prompt_en": "a" * letters}]))
        if fits:
            (case,) = suite.cases_of(suite.Suite(info=str(info)))
            (tmp_path / f"{case.name}.mp4.json.partial").touch()
        else:
            with pytest.raises(InputError, match="entry 0 has a prompt too long"):
                suite.cases_of(suite.Suite(info=str(info)))
    info.write_text(json.dumps([{"prompt_en": "ä" * 120}]))
    with pytest.raises(InputError, match="too long"):
        suite.cases_of(suite.Suite(info=str(info)))


def test_a_suite_is_written_into_its_own_folder_alone(files, run, tmp_path):
    out = tmp_path / "videos"
    suite.write_suite(protocol(files), run, out)
    before = {path: path.read_bytes() for path in out.iterdir()}
    suite.write_suite(protocol(files), run, out)
    for other, weights in ((protocol(files, "--config.seed=1"), run), (protocol(files), Path("runs/y"))):
        with pytest.raises(InputError, match="of another suite or of other weights: give another --out"):
            suite.write_suite(other, weights, out)
    assert {path: path.read_bytes() for path in out.iterdir()} == before


def test_weights_that_are_no_run_are_said_at_once(files):
    with pytest.raises(InputError, match="is no run folder"):
        suite.write_suite(protocol(files), files / "nowhere", files / "videos")
    assert not (files / "videos").exists()


def test_a_study_shows_the_prompts_of_the_videos_that_are_there(files, run, tmp_path):
    for system in ("ours", "theirs"):
        suite.write_suite(protocol(files), run, tmp_path / system)
        first = json.loads((tmp_path / system / "manifest.jsonl").read_text().splitlines()[0])
        (tmp_path / system / first["file"]).write_bytes(system.encode())
    lines = write_study([tmp_path / "ours", tmp_path / "theirs"], tmp_path / "study")
    assert lines[0].startswith("1 pair of 2 videos") and "not there, and left out: 318 videos" in lines[1]
    # Apostrophes and the like are escaped in the page's JSON.
    assert json.dumps(first["caption"])[1:-1] in (tmp_path / "study" / "index.html").read_text()
