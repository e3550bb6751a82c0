import json
import os
from dataclasses import replace

import numpy as np
import pytest

from mpjax import config
from mpjax.__main__ import main
from mpjax.data.media import Media
from mpjax.data.raw import look
from mpjax.data.raw.clip import read_clips, write_clips
from mpjax.data.raw.command import inspect_raw, scan_to_folder
from mpjax.data.raw.duplicates import Seen, signature
from mpjax.data.raw.entries import Entry, read_entries
from mpjax.data.raw.filters import SCORES, Filters
from mpjax.data.raw.geometry import Geometry
from mpjax.data.raw.measure import measure
from mpjax.data.raw.scan import scan
from mpjax.data.raw.shots import ShotDetector
from mpjax.data.video import read_frames
from mpjax.errors import InputError
from tests.data.media import counted, counter, join, moving, scene, write_audio, write_tar, write_video

GEOMETRY = Geometry(fps=12, segment_frames=12, max_segments=3, buckets=((48, 80), (80, 48)))
OFF = Filters(**dict.fromkeys(Filters.__dataclass_fields__))
SETTINGS = {"geometry": GEOMETRY, "filters": Filters(), "shots": ShotDetector()}


def scanned(path, **changes):
    entries = path if isinstance(path, list) else read_entries(path)
    return list(scan(entries, **SETTINGS | changes))


@pytest.fixture(scope="module")
def odd(tmp_path_factory):
    """One file for every fault and every oddity."""
    path = tmp_path_factory.mktemp("odd")
    shot = scene(1, 40, 54, 96, pan=(0, 1))
    good = write_video(path / "good.mp4", shot)
    for pix_fmt in ("yuv420p10le", "yuv444p", "gray"):
        write_video(path / f"{pix_fmt}.mkv", scene(len(pix_fmt), 40, 54, 96, pan=(0, 1)), pix_fmt=pix_fmt)
    write_video(path / "odd.mkv", scene(5, 40, 55, 97, pan=(0, 1)), codec="ffv1", pix_fmt="bgr0")
    write_video(path / "single.mp4", shot[:1])
    write_video(path / "short.mp4", shot[:10])
    write_video(path / "thin.mkv", scene(2, 40, 4, 400), codec="ffv1", pix_fmt="bgr0")
    write_audio(path / "audio.mp4")
    (path / "empty.mp4").touch()
    (path / "text.mp4").write_text("no video\n" * 99)
    (path / "cut.mp4").write_bytes(good.read_bytes()[: good.stat().st_size // 3])
    (path / "noise.mp4").write_bytes(np.random.default_rng(0).bytes(9999))
    os.mkfifo(path / "pipe.mp4")
    (path / b"caf\xe9.mp4".decode("utf-8", "surrogateescape")).write_bytes(
        write_video(path / "x.mp4", scene(6, 40, 54, 96, pan=(1, 0))).read_bytes()
    )
    (path / "x.mp4").unlink()
    return path


def test_every_fault_is_named_and_nothing_stops(odd):
    found = {s.entry.name: s for s in scanned(odd)}
    assert len(found) == len(list(odd.iterdir())) == 15
    for name, reason in {
        "single.mp4": "no shot of the 1.08 s that one segment needs, of 0.0833 s",
        "short.mp4": "no shot of the 1.08 s",
        "thin.mkv": "too elongated",
        "audio.mp4": "no video stream",
        "empty.mp4": "empty file",
        "text.mp4": "not a media file",
        "noise.mp4": "not a media file",
        "pipe.mp4": "no such file",
    }.items():
        assert reason in found.pop(name).problem, name
    broken = found.pop("cut.mp4")
    assert broken.note.startswith("damaged after") and broken.note in broken.problem + broken.note
    for name, one in found.items():
        assert one.problem == "" and [c.reason for c in one.clips] == [""], name
        assert (one.clips[0].segments, one.clips[0].frames, one.clips[0].bucket) == (3, 37, (48, 80))


def test_clips_are_the_frames_they_say(tmp_path):
    path = write_video(tmp_path / "a.mp4", counted(200, 54, 96), fps=24)
    (one,) = scanned(
        [Entry(media=Media(path=path), name="a", start=2.0, end=8.0)],
        filters=OFF,
    )
    # 6 s at 12 fps are 72 frames: 37, then 25, then a rest of 10.
    assert [(c.start, c.frames, c.segments) for c in one.clips] == [(2.0, 37, 3), (pytest.approx(2 + 37 / 12), 25, 2)]
    for clip in one.clips:
        size = dict(zip(("height", "width"), clip.bucket, strict=True))
        frames = list(read_frames(clip.media, fps=clip.fps, start=clip.start, end=clip.end, **size))
        assert len(frames) == clip.frames
        assert [counter(f) for f in frames] == [round(24 * clip.start) + 2 * i for i in range(clip.frames)]


def test_no_clip_crosses_a_cut(tmp_path):
    video, places = join([scene(i, 60, pan=(0, 0.7)) for i in range(3)], dissolve=6)
    path = write_video(tmp_path / "a.mp4", video)
    (one,) = scanned(path)
    assert [cut.time for cut in one.cuts] == pytest.approx([p / 12 for p in places], abs=0.17)
    assert len(one.clips) >= 3 and all(c.scores["shots"] == 3 for c in one.clips)
    for place in places:
        first, last = (place - 3) / 12, (place + 3) / 12
        assert all(c.end <= first + 0.1 or c.start >= last - 0.1 for c in one.clips)
    (one,) = scanned(path, filters=Filters(most_shots=1))
    assert {c.reason for c in one.clips} == {"shots 3 is above 1"}


def test_scores(tmp_path):
    still = np.repeat(scene(0, 1), 40, axis=0)
    walk, pan = scene(1, 40, walker=2.0), scene(2, 40, pan=(0, 1.0))
    black = scene(3, 60, pan=(0, 1))
    black[20:35] = 0
    dark_ends = scene(4, 60, pan=(0, 1))
    dark_ends[:10] = dark_ends[50:] = 0
    tiny = scene(7, 40, 24, 40, pan=(0, 0.5))
    videos = {"still": still, "walk": walk, "pan": pan, "black": black, "ends": dark_ends, "tiny": tiny}
    for name, frames in videos.items():
        write_video(tmp_path / f"{name}.mp4", frames)
    found = {s.entry.name.removesuffix(".mp4"): s.clips for s in scanned(tmp_path)}
    scores = {name: clips[0].scores for name, clips in found.items()}
    assert all(set(s) == set(SCORES) for s in scores.values())
    assert scores["still"]["dynamism"] < 1e-3 < 0.02 < scores["walk"]["dynamism"] < scores["pan"]["dynamism"]
    assert max(scores["still"]["camera"], scores["walk"]["camera"]) < 0.01
    # One pixel of 54 rows at 12 fps.
    assert scores["pan"]["camera"] == pytest.approx(12 / 54, rel=0.15)
    assert scores["still"]["frozen"] > 2.5 and scores["pan"]["frozen"] == 0
    assert found["still"][0].reason.startswith("frozen")
    assert scores["tiny"]["enlargement"] == 2 and found["tiny"][0].reason.startswith("enlargement 2 is above 1.3")
    (ends,) = found["ends"]
    assert ends.start == pytest.approx(10 / 12, abs=0.01) and ends.scores["black"] == 0 and ends.kept
    assert [(c.kept, c.scores["black"], c.scores["shots"]) for c in found["black"]] == [(True, 0, 3)] * 2


def test_black_in_the_middle(tmp_path):
    video = scene(3, 60, pan=(0, 0.5))
    video[20:32] = 0
    write_video(tmp_path / "a.mp4", video)
    (one,) = scanned(tmp_path, shots=ShotDetector(unlike=2.0))  # no cut is that unlike
    assert one.clips[0].scores["black"] == pytest.approx(1.0) and one.clips[0].reason == "black 1 is above 0.5"


def test_duplicates_at_another_size_and_rate(tmp_path):
    video = scene(1, 40, 54, 96, pan=(0, 1))
    write_video(tmp_path / "a.mp4", video)
    write_video(tmp_path / "b.mp4", scene(2, 40, 54, 96, pan=(0, 1)))
    halves = np.clip(video[:, ::2, ::2].astype(int) * 0.8 + 10, 0, 255).astype(np.uint8)[:, :27, :48]
    write_video(tmp_path / "c.mkv", np.repeat(halves, 2, axis=0), fps=24, codec="ffv1", pix_fmt="bgr0")
    found = {s.entry.name: s.clips[0] for s in scanned(tmp_path, filters=Filters(most_enlargement=None))}
    assert found["a.mp4"].kept and found["b.mp4"].kept
    assert found["b.mp4"].scores["duplicate"] < 0.8
    assert found["c.mkv"].scores["duplicate"] > 0.95 and found["c.mkv"].reason.startswith("duplicate")


def test_a_sharp_copy_of_what_was_left_out_is_kept(tmp_path):
    video = scene(1, 40, 54, 96, pan=(0, 1))
    write_video(tmp_path / "a.mkv", video[:, ::2, ::2][:, :26], codec="ffv1", pix_fmt="bgr0")
    write_video(tmp_path / "b.mp4", video)
    small, sharp = (s.clips[0] for s in scanned(tmp_path))
    assert small.reason.startswith("enlargement") and sharp.kept and sharp.scores["duplicate"] == 0


def test_ranges_of_one_video_are_compared_by_their_overlap():
    seen, pictures = Seen(), signature(np.zeros((9, 18, 32, 3), np.uint8))
    assert seen.likeness(pictures, "a", 0.0, 10.0) == 0
    seen.add(pictures, "a", 0.0, 10.0)
    assert seen.likeness(pictures, "a", 10.0, 20.0) == 0
    seen.add(pictures, "a", 10.0, 20.0)
    assert seen.likeness(pictures, "a", 15.0, 25.0) == pytest.approx(0.5)
    assert seen.likeness(pictures, "b", 0.0, 10.0) == 1


def test_a_clip_in_a_tar_is_the_same_clip(tmp_path):
    path = write_video(tmp_path / "a.mp4", scene(1, 60, pan=(0, 1)))
    media = write_tar(tmp_path / "t.tar", {"pad.txt": b"0" * 999, "a.mp4": path.read_bytes()})["a.mp4"]
    plain, packed = (scanned([Entry(media=m, name="a")])[0].clips for m in (Media(path=path), media))
    assert [(c.id, c.scores) for c in plain] == [(c.id, c.scores) for c in packed] and plain


def test_time_limit(tmp_path):
    write_video(tmp_path / "a.mp4", moving(60))
    (one,) = scanned(tmp_path, deadline_seconds=1e-9)
    assert "took longer than 1e-09 s" in one.problem


def test_lists_and_page(odd, tmp_path):
    lines = []
    scan_to_folder(odd, tmp_path / "out", **SETTINGS, progress=lines.append)
    kept = list(read_clips(tmp_path / "out" / "clips.jsonl"))
    assert kept and all(c.kept for c in kept) and len(lines) == 16
    write_clips(tmp_path / "again.jsonl", kept)
    assert list(read_clips(tmp_path / "again.jsonl")) == kept
    assert len({c.id for c in kept}) == len(kept)
    page = (tmp_path / "out" / "scan.html").read_text()
    assert page.count("<img") == len(kept) and "audio.mp4" in page and "no video stream" in page
    assert "http" not in page  # nothing from elsewhere
    text = inspect_raw(tmp_path / "out", videos=None, geometry=GEOMETRY, page=tmp_path / "i.html")
    assert f"{len(kept)} items" in text and "48 × 80" in text
    assert (tmp_path / "i.html").read_text().count("<img") == len(kept)


@pytest.fixture
def three(tmp_path):
    """Two videos, and the first once more."""
    (tmp_path / "in").mkdir()
    for i, name in enumerate("ab"):
        write_video(tmp_path / "in" / f"{name}.mp4", scene(i, 40, pan=(0, 1)))
    (tmp_path / "in" / "c.mp4").write_bytes((tmp_path / "in" / "a.mp4").read_bytes())
    return tmp_path / "in"


def test_an_interrupted_scan_goes_on_with_the_video_that_it_was_at(three, tmp_path, monkeypatch):
    looked = []

    def stop_at(limit):
        def measured(media, **options):
            looked.append(media.path.name)
            if len(looked) == limit:
                raise KeyboardInterrupt
            return measure(media, **options)

        monkeypatch.setattr(look, "measure", measured)

    scan_to_folder(three, tmp_path / "whole", **SETTINGS, progress=lambda line: None)
    stop_at(2)
    with pytest.raises(KeyboardInterrupt):
        scan_to_folder(three, tmp_path / "out", **SETTINGS, progress=lambda line: None)
    assert looked == ["a.mp4", "b.mp4"] and not (tmp_path / "out").exists()
    looked.clear()
    stop_at(None)
    scan_to_folder(three, tmp_path / "out", **SETTINGS, progress=lambda line: None)
    assert looked == ["b.mp4", "c.mp4"]
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == ["clips.jsonl", "left_out.jsonl", "scan.html", "scan.json"]
    for name in names:
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name
    (again,) = read_clips(tmp_path / "out" / "left_out.jsonl")
    assert again.name == "c.mp4" and again.reason.startswith("duplicate")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "out", "whole"]


def test_a_finished_scan_is_kept_and_other_settings_are_refused(three, tmp_path, monkeypatch):
    lines = []
    scan_to_folder(three, tmp_path / "out", **SETTINGS, progress=lines.append)
    before = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    monkeypatch.setattr(look, "measure", None)
    scan_to_folder(three, tmp_path / "out", **SETTINGS, progress=lines.append)
    assert lines[-1].endswith("out: finished already")
    for change, what in (
        ({"filters": Filters(most_shots=1)}, "filters"),
        ({"geometry": replace(GEOMETRY, max_segments=2)}, "geometry"),
        ({"shots": ShotDetector(unlike=0.5)}, "shots"),
    ):
        with pytest.raises(InputError, match=f"already holds a scan of other {what}"):
            scan_to_folder(three, tmp_path / "out", **SETTINGS | change, progress=lines.append)
    (three / "b.txt").write_text("a caption")
    with pytest.raises(InputError, match="a scan of other videos or captions"):
        scan_to_folder(three, tmp_path / "out", **SETTINGS, progress=lines.append)
    assert before == {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    with pytest.raises(InputError, match="is no finished scan"):
        scan_to_folder(three, three, **SETTINGS, progress=lines.append)


def test_many_clips_are_compared_as_few_are():
    """Against every signature and every range, one by one."""
    draw = np.random.default_rng(0)
    seen, added = Seen(), []
    for number in range(200):
        bits, source = draw.integers(0, 256, 48, np.uint8), str(draw.integers(20))
        start = float(draw.uniform(0, 50))
        expected = 0.0
        for other, name, first in added:
            agree = np.mean(np.unpackbits(bits) == np.unpackbits(other))
            shared = max(0.0, min(start, first) + 10 - max(start, first)) / 10
            expected = max(expected, shared if name == source else agree)
        assert seen.likeness(bits, source, start, start + 10) == pytest.approx(expected), number
        seen.add(bits, source, start, start + 10)
        added.append((bits, source, start))


def test_nothing_kept_is_an_error_with_a_page(tmp_path):
    (tmp_path / "in").mkdir()
    write_video(tmp_path / "in" / "a.mp4", np.repeat(scene(0, 1), 40, axis=0))
    with pytest.raises(InputError, match="not one clip is kept"):
        scan_to_folder(tmp_path / "in", tmp_path / "out", **SETTINGS, progress=lambda line: None)
    (clip,) = read_clips(tmp_path / "out" / "left_out.jsonl")
    assert clip.reason.startswith("frozen") and (tmp_path / "out" / "scan.html").is_file()
    with pytest.raises(InputError, match="line 1 is no clip"):
        (tmp_path / "b.jsonl").write_text(json.dumps({"name": 1}))
        list(read_clips(tmp_path / "b.jsonl"))


def test_a_scan_that_kept_nothing_gives_way_to_its_correction(three, tmp_path):
    table, lines = tmp_path / "t.csv", []
    table.write_text("path,start\na.mp4,soon\n")
    options = SETTINGS | {"videos": three, "progress": lines.append}
    for _ in range(2):
        with pytest.raises(InputError, match="not one clip is kept"):
            scan_to_folder(table, tmp_path / "out", **options)
    table.write_text("path,start\na.mp4,0\n")
    (tmp_path / "out" / "mine.txt").write_text("keep")
    with pytest.raises(InputError, match="already holds a scan of other videos"):
        scan_to_folder(table, tmp_path / "out", **options)
    (tmp_path / "out" / "mine.txt").unlink()
    scan_to_folder(table, tmp_path / "out", **options)
    assert len(list(read_clips(tmp_path / "out" / "clips.jsonl"))) == 1
    assert lines[-1].startswith("1 clip (0.00 h) kept, 0 left out, of 1 entry (")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "out", "t.csv"]


def test_two_scans_into_one_folder(three, tmp_path):
    def second(line):
        said.append(line)
        if (tmp_path / "out").exists():  # the first is about to end
            return scan_to_folder(three, tmp_path / "out", **SETTINGS, progress=said.append)
        with pytest.raises(InputError, match="another run is writing"):
            scan_to_folder(three, tmp_path / "out", **SETTINGS, progress=print)

    said = []
    scan_to_folder(three, tmp_path / "out", **SETTINGS, progress=second)
    assert len(said) == 5 and said[-1].endswith("finished already")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "out"]


def test_inspection_of_raw_material(odd):
    text = inspect_raw(odd, videos=None, geometry=GEOMETRY, page=None)
    head = text.splitlines()[0]
    # What headers claim: the truncated file, too, but not what has no frame at all.
    problems = sum(name in text for name in ("audio.", "empty.", "text.", "noise.", "pipe.", "thin."))
    assert problems == 6 and "6 not usable" in head and "9 items" in head
    assert "48 × 80  " in text and "Segments of a clip" in text


@pytest.mark.parametrize("bad", [{"least_dynamism": -1.0}, {"most_black": float("nan")}])
def test_bad_thresholds(bad):
    with pytest.raises(InputError, match=next(iter(bad))):
        Filters(**bad)


def test_each_filter_has_its_bounds():
    good = dict.fromkeys(SCORES, 0.0) | {"dynamism": 1.0, "seconds": 5.0}
    assert Filters().reason(good) == ""
    for name in Filters.__dataclass_fields__:
        side, _, score = name.partition("_")
        worse = good | {score: 5.0 if side == "most" else 0.5}
        assert Filters(**{name: 1.0}).reason(worse).startswith(f"{score} "), name
        assert Filters(**{name: None}).reason(worse) == "" or name == "most_duplicate"


def test_the_command_line(odd, tmp_path, capsys):
    flags = [f"--config={config.find('clips_tiny.py')}", f"--input={odd}", f"--output={tmp_path / 'out'}"]
    assert main(["data", "scan", *flags, "--config.data.filters.most_enlargement=None"]) == 0
    assert "audio.mp4: no video stream" in capsys.readouterr().out
    clips = list(read_clips(tmp_path / "out" / "clips.jsonl"))
    # 12 fps, 3 latent frames of 4 pixel frames a segment, 48 × 64 pixels.
    assert clips and {(c.fps, c.bucket, (c.frames - 1) / c.segments) for c in clips} == {(12.0, (48, 64), 12.0)}
    assert main(["data", "inspect", str(tmp_path / "out")]) == 0
    assert f"{len(clips)} items" in capsys.readouterr().out
    assert main(["data", "inspect", str(tmp_path / "out"), f"--videos={odd}"]) == 2
    assert "is none: leave it out" in capsys.readouterr().err
    # Raw material in clips of the default, and of the same config.
    for config_flag, bucket in (([], "480 × 832"), (flags[:1], "48 × 64")):
        assert main(["data", "inspect", str(odd), *config_flag]) == 0
        out = capsys.readouterr().out
        assert (bucket in out) and (bucket == "48 × 64") == ("48 × 64" in out)
    assert main(["data", "inspect", str(odd), "--config.data.fps=6"]) == 2


def test_black_ends_are_left_out_without_a_cut(tmp_path):
    video = scene(3, 60, pan=(0, 0.5))
    video[:10] = video[50:] = 0
    write_video(tmp_path / "a.mp4", video)
    ((clip,),) = (s.clips for s in scanned(tmp_path, shots=ShotDetector(unlike=2.0)))
    assert clip.start == pytest.approx(10 / 12) and clip.scores["black"] == 0
