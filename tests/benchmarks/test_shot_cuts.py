import json

import numpy as np
import pytest

from benchmarks import shot_cuts
from benchmarks.shot_cuts import Tally, Video, compare, halves, joined
from tests.data.media import join, scene, write_video


def test_counting():
    assert compare([1.0, 3.0, 9.0], [1.2, 8.0, 9.1], 2.0) == Tally(known=3, found=2, false=1, minutes=2.0)
    assert compare([9.0], [9.1, 8.9]) == Tally(known=2, found=1)
    assert compare([9.1, 8.9, 9.0], [9.0]) == Tally(known=1, found=1, false=2)
    assert compare([1.2, 1.0], [0.8, 1.1]) == Tally(known=2, found=2)
    assert compare([1.0], [1.2], tolerance=0.1) == Tally(known=1, false=1)
    assert Tally(1, 1, 0, 0.5) + Tally(3, 2, 4, 1.0) == Tally(4, 3, 4, 1.5)


@pytest.mark.parametrize("overlap", [0, 12])
def test_joins_say_where_they_are(overlap):
    """Pieces of one grey level each: it changes at the known frame, over the frames of the dissolve."""
    singles = [np.full((100, 2, 3, 3), 40 * n, np.uint8) for n in range(4)]
    video, known, tolerance = joined(singles, np.random.default_rng(0), overlap)
    assert tolerance == (0.3 if overlap else 1.5 / 24)
    levels = video[:, 0, 0, 0].astype(int)
    changes = np.flatnonzero(np.diff(levels)) + 1
    assert len(known) == 3
    for time in known:
        at = round(time * shot_cuts.FPS)
        near = changes[abs(changes - at) <= overlap / 2]
        assert len(near) >= 1 and abs(near.mean() - at) <= 0.5
        changes = np.setdiff1d(changes, near)
    assert not len(changes)


def test_halves_share_no_clip():
    clips = {name: Video(np.zeros((1, 1, 1, 3), np.uint8), [1.0] if name in "cd" else []) for name in "abcdef"}
    one, two = halves(clips)
    assert not set(one) & set(two) and set(one) | set(two) == set(clips)
    assert [sum(bool(video.known) for video in half.values()) for half in (one, two)] == [1, 1]


def test_the_command_writes_what_it_counts(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(shot_cuts, "GRID", {"unlike": (0.35, 3.0)})  # 3 is more than there is
    videos, labels = tmp_path / "videos", tmp_path / "labels"
    videos.mkdir(), labels.mkdir()
    cuts = {}
    for name in ("a", "b"):
        video, places = join([scene(ord(name) + i, 40) for i in range(3)])
        write_video(videos / f"{name}.mp4", video, fps=24)
        cuts[f"{name}.mp4"] = [place / 24 for place in places]
    for name, pan in {"c": 0.0, "d": 0.6, "e": 0.0, "f": 0.3}.items():
        write_video(videos / f"{name}.mp4", scene(ord(name), 100, pan=(0, pan)), fps=24)
    rows = [f"{name},{time}" for name, times in cuts.items() for time in times]
    (labels / "shot_cuts.csv").write_text("\n".join(["file,seconds", *rows]) + "\n")
    (labels / "cameras.csv").write_text("\n".join(["file,camera", *(f"{name}.mp4,static" for name in "abcdef")]) + "\n")
    out = tmp_path / "out.json"
    arguments = [str(videos), f"--labels={labels}", "--joins=1", f"--out={out}"]
    assert shot_cuts.main(arguments) == 0, capsys.readouterr()
    found = json.loads(out.read_text())
    assert found["command"] == "python -m benchmarks.shot_cuts " + " ".join(arguments)
    assert found["clips"]["multi_shot"] == {"known": 4, "found": 4, "false": 0, "minutes": pytest.approx(240 / 1440)}
    assert found["clips"]["single_shot"] == {"known": 0, "found": 0, "false": 0, "minutes": pytest.approx(400 / 1440)}
    assert found["joins"]["hard"]["known"] == found["joins"]["hard"]["found"] == 3
    parts = found["held_out"]
    assert [part["clips"] for part in parts] == [["b.mp4", "d.mp4", "f.mp4"], ["a.mp4", "c.mp4", "e.mp4"]]
    assert all(part["thresholds"] == {"unlike": 0.35} for part in parts)
    assert all(part["multi_shot"]["found"] == part["multi_shot"]["known"] == 2 for part in parts)
    order = [row["file"][0] for row in found["motion"]]
    assert order.index("f") < order.index("d") and set(order[:2]) <= set("abce")


def test_bad_input_is_one_sentence(tmp_path, capsys):
    assert shot_cuts.main([str(tmp_path), f"--labels={tmp_path}"]) == 2
    assert "shot_cuts.csv: no such file" in capsys.readouterr().err
