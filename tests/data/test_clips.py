import hashlib
import json

import grain
import numpy as np
import pytest

from mpjax import codecs
from mpjax.data import clip_windows, clips
from mpjax.data.clip_windows import encode_windows
from mpjax.data.clips import assign_splits, encode_folder
from mpjax.data.latents import open_dataset
from mpjax.data.video import read_frames
from mpjax.errors import InputError
from tests.data.media import moving, write_video

CODEC = codecs.create("dct", time_factor=2, space_factor=4, channels=6)
SETTINGS = {"codec": CODEC, "fps": 12, "height": 16, "width": 24, "segment_frames": 2, "max_segments": 2}
SILENT = {"progress": lambda line: None}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Four sound videos (one a duplicate) and four that must be left out."""
    path = tmp_path_factory.mktemp("videos")
    write_video(path / "a.mp4", moving(21, 32, 48, seed=1))
    write_video(path / "b.mp4", moving(9, 32, 48, seed=2))
    write_video(path / "c.mp4", moving(14, 32, 48, seed=3))
    (path / "copy.mp4").write_bytes((path / "a.mp4").read_bytes())
    write_video(path / "single.mp4", moving(1, 32, 48))
    (path / "empty.mp4").touch()
    (path / "text.mp4").write_text("no video\n" * 99)
    broken = write_video(path / "broken.mp4", moving(36, 32, 48)).read_bytes()
    (path / "broken.mp4").write_bytes(broken[: len(broken) * 2 // 3])
    (path / "a.txt").write_text("waves é")
    return path


@pytest.fixture(scope="module")
def finished(folder, tmp_path_factory):
    output = tmp_path_factory.mktemp("datasets") / "one"
    return output, encode_folder(folder, output, **SETTINGS, **SILENT)


def test_windows_are_cut_as_defined():
    frames = moving(26, 16, 24)
    windows = list(encode_windows(iter(frames), CODEC, segment_frames=2, max_segments=2))
    # A full window is 1 + 2 * 2 * 2 = 9 frames: 0..8, 9..17, then 18..22 with one segment; 23..25 are a rest.
    expected = []
    for start, stop in ((0, 9), (9, 18), (18, 23)):
        video = frames[None, start:stop].astype(np.float32) / 127.5 - 1
        latents = CODEC.encode(video)[0].astype(np.float16)
        error = CODEC.decode(latents[None].astype(np.float32)) - video
        expected.append((latents, 10 * np.log10(4 / np.mean(np.square(error, dtype=np.float64)))))
    assert len(windows) == len(expected)
    for window, (latents, psnr) in zip(windows, expected, strict=True):
        np.testing.assert_array_equal(window.latents, latents)
        assert window.psnr == pytest.approx(psnr, abs=1e-6)


@pytest.mark.parametrize(
    ("count", "lengths"), [(0, []), (1, []), (4, []), (5, [3]), (8, [3]), (9, [5]), (10, [5]), (14, [5, 3])]
)
def test_rests_are_dropped(count, lengths):
    windows = encode_windows(iter(moving(max(count, 1), 16, 24)[:count]), CODEC, segment_frames=2, max_segments=2)
    assert [len(window.latents) for window in windows] == lengths


def test_exact_reconstruction_has_a_finite_psnr():
    frames = np.full((3, 4, 4, 3), 255, np.uint8)
    (window,) = encode_windows(iter(frames), codecs.create("identity"), segment_frames=1, max_segments=2)
    assert window.psnr == 100.0


def test_records(folder, finished):
    output, description = finished
    dataset = open_dataset(output)
    assert dataset.counts == {side: content["clips"] for side, content in description["splits"].items()}
    records = [r for side in dataset.counts for r in map(dataset.source(side).__getitem__, range(dataset.counts[side]))]
    by_file = {name: [r for r in records if r["source"] == name] for name in ("a.mp4", "b.mp4", "c.mp4", "broken.mp4")}
    assert sum(map(len, by_file.values())) == len(records)
    assert [len(r["latents"]) for r in by_file["a.mp4"]] == [5, 5]
    assert [len(r["latents"]) for r in by_file["b.mp4"]] == [5]
    assert [len(r["latents"]) for r in by_file["c.mp4"]] == [5, 3]
    assert by_file["broken.mp4"]
    assert {r["caption"] for r in by_file["a.mp4"]} == {"waves é"} and by_file["b.mp4"][0]["caption"] == ""
    frames = np.stack(list(read_frames(folder / "a.mp4", fps=12, height=16, width=24)))
    expected = CODEC.encode(frames[None, 9:18].astype(np.float32) / 127.5 - 1)[0].astype(np.float16)
    got = by_file["a.mp4"][1]
    assert got["latents"].dtype == np.float16 and got["fps"] == 12
    np.testing.assert_array_equal(got["latents"], expected)
    digest = hashlib.sha256((folder / "a.mp4").read_bytes()).hexdigest()
    assert [r["id"] for r in by_file["a.mp4"]] == [f"{digest[:16]}-00000", f"{digest[:16]}-00001"]


def test_records_and_their_fields_are_in_a_fixed_order(finished):
    source = open_dataset(finished[0]).source("train")
    clips_in_order = [(source[i]["source"], source[i]["id"]) for i in range(len(source))]
    assert len(clips_in_order) > 3 and clips_in_order == sorted(clips_in_order)
    # Without care protobuf draws the order of the fields in each process: keys as map entries, tag and length first.
    (path,) = finished[0].glob("latent_clips-train.array_record*")
    for data in grain.sources.ArrayRecordDataSource([str(path)]):
        keys = (b"caption", b"fps", b"id", b"latents", b"source")
        places = [data.index(b"\n" + bytes([len(key)]) + key) for key in keys]
        assert places == sorted(places)


def test_normalisation_is_that_of_the_train_split(finished):
    dataset = open_dataset(finished[0])
    source = dataset.source("train")
    cells = np.concatenate([source[i]["latents"].astype(np.float64).reshape(-1, 6) for i in range(len(source))])
    np.testing.assert_allclose(dataset.codec.mean, cells.mean(0), atol=1e-9)
    np.testing.assert_allclose(dataset.codec.std, cells.std(0), rtol=1e-9)


def test_report_names_every_file(finished):
    report = json.loads((finished[0] / "encode_report.json").read_text())
    entries = {entry["file"]: entry for entry in report["videos"]}
    assert (report["files"], report["used"], len(entries)) == (8, 4, 8)
    assert entries["copy.mp4"]["reason"] == "same content as a.mp4"
    assert entries["single.mp4"]["reason"] == "only 1 of the 5 frames one segment needs"
    assert entries["empty.mp4"]["reason"].startswith("empty file")
    assert entries["text.mp4"]["reason"].startswith("not a media file")
    assert entries["broken.mp4"]["used"] and entries["broken.mp4"]["note"].startswith("damaged after")
    assert (entries["c.mp4"]["windows"], entries["c.mp4"]["seconds"]) == (2, round((9 + 5) / 12, 3))
    psnr = finished[1]["psnr"]
    assert psnr["mean"] == pytest.approx(np.mean(list(psnr["clips"].values())), abs=1e-3)
    assert all(20 < value < 60 for value in psnr["clips"].values())


def test_same_input_same_bytes_and_nothing_left_over(folder, finished, tmp_path):
    again = tmp_path / "again"
    again.mkdir()  # an empty directory is welcome
    encode_folder(folder, again, **SETTINGS, **SILENT)
    names = sorted(path.name for path in finished[0].iterdir())
    assert names == sorted(path.name for path in again.iterdir())
    assert any(name.startswith("latent_clips-train.array_record") for name in names)
    for name in names:
        assert (finished[0] / name).read_bytes() == (again / name).read_bytes(), name
    assert [path.name for path in tmp_path.iterdir()] == ["again"]


def test_finished_dataset_returns_at_once_and_refuses_other_settings(folder, finished, tmp_path, monkeypatch):
    output, description = finished
    monkeypatch.setattr(clips, "encode_video", None)
    assert encode_folder(folder, output, **SETTINGS, **SILENT) == description
    for key, value in (("fps", 6), ("max_segments", 3), ("seed", 1), ("codec", codecs.create("dct", space_factor=4))):
        with pytest.raises(InputError, match=f"made with {key}="):
            encode_folder(folder, output, **SETTINGS | {key: value}, **SILENT)
    (tmp_path / "in").mkdir()
    write_video(tmp_path / "in" / "a.mp4", moving(9, 32, 48))
    with pytest.raises(InputError, match="other input files"):
        encode_folder(tmp_path / "in", output, **SETTINGS, **SILENT)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("keep")
    for taken in (tmp_path / "full", tmp_path / "full" / "mine.txt"):
        with pytest.raises(InputError, match="is no dataset"):
            encode_folder(folder, taken, **SETTINGS, **SILENT)
    assert (tmp_path / "full" / "mine.txt").read_text() == "keep"


def test_interrupted_run_resumes(folder, finished, tmp_path, monkeypatch):
    output, opened = tmp_path / "out", []

    def interrupt_at(limit):
        def read(path, **options):
            opened.append(path.name)
            if len(opened) == limit:
                raise KeyboardInterrupt
            return read_frames(path, **options)

        return read

    monkeypatch.setattr(clip_windows, "read_frames", interrupt_at(4))
    with pytest.raises(KeyboardInterrupt):
        encode_folder(folder, output, **SETTINGS, **SILENT)
    assert opened == ["a.mp4", "b.mp4", "broken.mp4", "c.mp4"] and not output.exists()
    opened.clear()
    monkeypatch.setattr(clip_windows, "read_frames", interrupt_at(None))
    encode_folder(folder, output, **SETTINGS, **SILENT)
    assert opened == ["c.mp4", "empty.mp4", "single.mp4", "text.mp4"]
    for path in finished[0].iterdir():
        assert path.read_bytes() == (output / path.name).read_bytes()


def test_no_usable_video_leaves_nothing(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "empty.mp4").touch()
    write_video(tmp_path / "in" / "short.mp4", moving(3, 32, 48))
    with pytest.raises(InputError, match=r"not one of 2 video files.*empty file.*only 3 of the 5"):
        encode_folder(tmp_path / "in", tmp_path / "out", **SETTINGS, **SILENT)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in"]


def test_video_that_fails_late_leaves_no_windows_behind(tmp_path, monkeypatch):
    def read(path, **options):
        yield from moving(9, 16, 24)
        raise InputError(f"{path}: decoding took longer than 1 s")

    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.mp4").write_bytes(b"slow")
    monkeypatch.setattr(clip_windows, "read_frames", read)
    with pytest.raises(InputError, match="took longer"):
        encode_folder(tmp_path / "in", tmp_path / "out", **SETTINGS, **SILENT)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"segment_frames": 0}, "segment_frames is 0"),
        ({"max_segments": 0}, "max_segments is 0"),
        ({"validation_fraction": 1.0}, "validation_fraction"),
        ({"fps": 0}, "fps=0"),
        ({"height": 18}, "multiples of 4"),
    ],
)
def test_bad_settings(tmp_path, change, message):
    with pytest.raises(InputError, match=message):
        encode_folder(tmp_path, tmp_path / "out", **SETTINGS | change, **SILENT)


def test_progress_counts_files(folder, tmp_path):
    lines = []
    encode_folder(folder, tmp_path / "out", **SETTINGS, progress=lines.append)
    assert [line.split("]")[0] for line in lines[:8]] == [f"[{i}/8" for i in range(1, 9)]
    assert "a.mp4: 2 clips" in lines[0] and " s left" in lines[0]
    assert any("empty.mp4: skipped: empty file" in line for line in lines)


def test_splits():
    hashes = [hashlib.sha256(bytes([i])).hexdigest() for i in range(200)]
    sides = assign_splits(hashes, 0.25, seed=0)
    assert 30 < sum(side == "validation" for side in sides.values()) < 70
    # A video keeps its side when others come or go, and the draw depends on the seed.
    assert all(sides[h] == side for h, side in assign_splits(hashes[50:150], 0.25, seed=0).items())
    assert assign_splits(hashes, 0.25, seed=1) != sides
    assert assign_splits(hashes[:1], 0.9, seed=0) == {hashes[0]: "train"}
    for seed in range(20):
        for fraction in (1e-9, 0.999):
            assert set(assign_splits(hashes[:2], fraction, seed).values()) == {"train", "validation"}
    assert set(assign_splits(hashes, 0.0, seed=0).values()) == {"train"}
