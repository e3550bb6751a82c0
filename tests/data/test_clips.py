import hashlib
import json
from pathlib import Path

import grain
import ml_dtypes
import numpy as np
import pytest

from mpjax import codecs
from mpjax.data import clip_encoding, clips
from mpjax.data.assembly import assign_splits
from mpjax.data.clip_encoding import ClipEncoder, cut, encode_frames
from mpjax.data.clips import encode_folder, encode_list
from mpjax.data.latents import open_dataset
from mpjax.data.media import Media
from mpjax.data.raw.clip import Clip, read_clips, write_clips
from mpjax.data.raw.filters import SCORES
from mpjax.data.video import read_frames
from mpjax.errors import InputError
from tests.data.media import moving, write_video

CODEC = codecs.create("dct", time_factor=2, space_factor=4, channels=6)
ENCODER = ClipEncoder(codec=CODEC, segment_frames=2)
SETTINGS = {"encoder": ENCODER, "fps": 12, "height": 16, "width": 24, "max_segments": 2}
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


def clip_of(frames: int, start: float = 0.0, **values) -> Clip:
    defaults = {
        "media": Media(path=Path("a.mp4")),
        "name": "a.mp4",
        "start": start,
        "end": start + frames / 12,
        "caption": "",
        "fps": 12.0,
        "frames": frames,
        "segments": (frames - 1) // 4,
        "bucket": (16, 24),
        "source_hash": "0" * 64,
    }
    return Clip(**defaults | values)


def test_clips_are_cut_as_defined():
    # A full clip is 1 + 2 * 4 = 9 frames: 0..8, 9..17, then 18..22 with one segment; 23..25 are a rest.
    pieces = list(cut(clip_of(26, start=1.5), segment_pixels=4, max_segments=2))
    assert [(p.frames, p.segments) for p in pieces] == [(9, 2), (9, 2), (5, 1)]
    np.testing.assert_allclose([p.start for p in pieces], [1.5, 1.5 + 9 / 12, 1.5 + 18 / 12])
    np.testing.assert_allclose([p.end for p in pieces], [1.5 + 9 / 12, 1.5 + 18 / 12, 1.5 + 23 / 12])
    assert len({p.id for p in pieces}) == 3


def test_a_piece_has_no_scores_of_the_whole():
    scores = dict.fromkeys(SCORES, 0.5) | {"seconds": 14 / 12}
    pieces = list(cut(clip_of(14, scores=scores), segment_pixels=4, max_segments=2))
    of_both = {"enlargement": 0.5, "shots": 0.5}
    assert [p.scores for p in pieces] == [of_both | {"seconds": 9 / 12}, of_both | {"seconds": 5 / 12}]
    (whole,) = cut(clip_of(9, scores=scores), segment_pixels=4, max_segments=2)
    assert whole.scores == scores
    assert next(cut(clip_of(14), segment_pixels=4, max_segments=2)).scores == {}


@pytest.mark.parametrize(("count", "lengths"), [(4, []), (5, [1]), (8, [1]), (9, [2]), (10, [2]), (14, [2, 1])])
def test_rests_are_dropped(count, lengths):
    assert [p.segments for p in cut(clip_of(count), segment_pixels=4, max_segments=2)] == lengths


def test_encoding_is_that_of_the_codec():
    frames = moving(9, 16, 24)
    got = encode_frames(iter(frames), CODEC, segment_frames=2)
    video = frames[None].astype(np.float32) / 127.5 - 1
    latents = CODEC.encode(video)[0].astype(ml_dtypes.bfloat16)
    error = CODEC.decode(latents[None].astype(np.float32)) - video
    assert got["latents"].dtype == ml_dtypes.bfloat16
    np.testing.assert_array_equal(got["latents"], latents)
    np.testing.assert_array_equal(got["first_frame"], frames[0])
    assert got["psnr"][0] == pytest.approx(10 * np.log10(4 / np.mean(np.square(error, dtype=np.float64))), abs=1e-6)
    cells = latents.astype(np.float64).reshape(-1, 6)
    np.testing.assert_allclose(got["total"], cells.sum(0), rtol=1e-12)
    np.testing.assert_allclose(got["squares"], (cells**2).sum(0), rtol=1e-12)


def test_exact_reconstruction_has_a_finite_psnr():
    frames = np.full((3, 4, 4, 3), 255, np.uint8)
    assert encode_frames(iter(frames), codecs.create("identity"), segment_frames=1)["psnr"] == 100.0


def test_records(folder, finished):
    output, description = finished
    dataset = open_dataset(output)
    assert dataset.counts == {side: content["clips"] for side, content in description["splits"].items()}
    records = [r for side in dataset.counts for r in map(dataset.source(side).__getitem__, range(dataset.counts[side]))]
    by_file = {name: [r for r in records if r["source"] == name] for name in ("a.mp4", "b.mp4", "c.mp4", "broken.mp4")}
    assert sum(map(len, by_file.values())) == len(records)
    assert [len(r["latents"]) for r in by_file["a.mp4"]] == [5, 5]
    assert [len(r["latents"]) for r in by_file["b.mp4"]] == [5]
    assert [len(r["latents"]) for r in by_file["c.mp4"]] == [3, 5]  # short ones first
    assert by_file["broken.mp4"]
    assert {r["caption"] for r in by_file["a.mp4"]} == {"waves é"} and by_file["b.mp4"][0]["caption"] == ""
    frames = np.stack(list(read_frames(folder / "a.mp4", fps=12, height=16, width=24)))
    expected = CODEC.encode(frames[None, 9:18].astype(np.float32) / 127.5 - 1)[0].astype(ml_dtypes.bfloat16)
    got = by_file["a.mp4"][-1]
    assert got["latents"].dtype == ml_dtypes.bfloat16 and got["fps"] == 12
    np.testing.assert_array_equal(got["latents"], expected)
    digest = hashlib.sha256((folder / "a.mp4").read_bytes()).hexdigest()
    places = ("000000000-000000750", "000000750-000001500")
    assert [r["id"] for r in by_file["a.mp4"]] == [f"{digest[:16]}-{place}-16x24" for place in places]
    assert {r["source_hash"] for r in by_file["a.mp4"]} == {digest} and got["scores"] == {}
    assert (got["height"], got["width"], got["segments"]) == (16, 24, 2)
    assert {r["codec"] for r in records} == {codecs.codec_id(CODEC)} == {dataset.codec_id}
    for side, index in dataset.index.items():
        stored = [dataset.source(side)[i] for i in range(len(index))]
        assert list(index.ids) == [r["id"] for r in stored]
        for name in ("height", "width", "segments"):
            assert getattr(index, name).tolist() == [r[name] for r in stored]


def test_records_and_their_fields_are_in_a_fixed_order(finished):
    source = open_dataset(finished[0]).source("train")
    columns = ("height", "width", "segments", "source", "id")
    clips_in_order = [tuple(source[i][name] for name in columns) for i in range(len(source))]
    assert len(clips_in_order) > 3 and clips_in_order == sorted(clips_in_order)
    # Without care protobuf draws the order of the fields in each process: keys as map entries, tag and length first.
    (path,) = finished[0].glob("latent_clips-train.array_record*")
    for data in grain.sources.ArrayRecordDataSource([str(path)]):
        keys = (b"caption", b"codec", b"fps", b"height", b"id", b"latents/shape", b"source", b"width")
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
    assert (report["used"], len(entries)) == (4, 8)
    assert entries["copy.mp4"]["reason"] == "same content as a.mp4"
    assert entries["single.mp4"]["reason"] == "only 1 of the 5 frames one segment needs"
    assert entries["empty.mp4"]["reason"].startswith("empty file")
    assert entries["text.mp4"]["reason"].startswith("not a media file")
    assert entries["broken.mp4"]["used"] and entries["broken.mp4"]["note"].startswith("damaged after")
    assert (entries["c.mp4"]["clips"], entries["c.mp4"]["seconds"]) == (2, round((9 + 5) / 12, 3))
    psnr = np.concatenate([index.psnr for index in open_dataset(finished[0]).index.values()])
    assert finished[1]["psnr"] == pytest.approx(psnr.mean(), abs=1e-3)
    assert (psnr > 20).all() and (psnr < 60).all()


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
    monkeypatch.setattr(clips, "find_clips", None)
    assert encode_folder(folder, output, **SETTINGS, **SILENT) == description
    other = ClipEncoder(codec=codecs.create("dct", space_factor=4), segment_frames=2)
    for key, change in (
        ("fps", {"fps": 6}),
        ("max_segments", {"max_segments": 3}),
        ("seed", {"seed": 1}),
        ("codec", {"encoder": other}),
        ("sizes", {"height": 32}),
    ):
        with pytest.raises(InputError, match=f"made with {key}="):
            encode_folder(folder, output, **SETTINGS | change, **SILENT)
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


def test_interrupted_run_resumes_with_the_clip_that_it_was_at(folder, finished, tmp_path, monkeypatch):
    output, opened = tmp_path / "out", []

    def interrupt_at(limit):
        def read(media, **options):
            opened.append((media.path.name, round(options["start"] * 12)))
            if len(opened) == limit:
                raise KeyboardInterrupt
            return read_frames(media, **options)

        return read

    whole = [("a.mp4", 0), ("a.mp4", 9), ("b.mp4", 0), ("broken.mp4", 0)]
    monkeypatch.setattr(clip_encoding, "read_frames", interrupt_at(2))
    with pytest.raises(KeyboardInterrupt):
        encode_folder(folder, output, **SETTINGS, **SILENT)
    assert opened == whole[:2] and not output.exists()
    opened.clear()
    monkeypatch.setattr(clip_encoding, "read_frames", interrupt_at(None))
    encode_folder(folder, output, **SETTINGS, **SILENT)
    assert opened[:3] == whole[1:]
    for path in finished[0].iterdir():
        assert path.read_bytes() == (output / path.name).read_bytes()


def test_a_list_of_clips_gives_the_records_of_its_folder(folder, finished, tmp_path):
    write_clips(tmp_path / "clips.jsonl", read_clips(finished[0] / "clips.jsonl"))
    options = {key: value for key, value in SETTINGS.items() if key not in ("height", "width")}
    encode_list(tmp_path / "clips.jsonl", tmp_path / "out", **options, **SILENT)
    shards = sorted(path.name for path in finished[0].glob("*array_record*"))
    assert len(shards) == 2
    for name in (*shards, "index.json", "clips.jsonl"):
        assert (finished[0] / name).read_bytes() == (tmp_path / "out" / name).read_bytes()


LISTED = {key: value for key, value in SETTINGS.items() if key not in ("height", "width")}


def test_a_range_is_dropped_only_where_it_is_the_same(folder, tmp_path):
    """A longer clip of the same start is another one; one range with two captions is one record, and a note."""
    media = Media(path=folder / "a.mp4")
    of = {"media": media, "source_hash": media.content_hash()}
    rows = [
        clip_of(5, caption="x", **of),
        clip_of(9, name="b.mp4", **of),
        clip_of(5, caption="y", **of),
        clip_of(5, start=0.75, name="b.mp4", **of),
        clip_of(5, name="b.mp4", **of),
        clip_of(5, name="b.mp4", bucket=(24, 16), **of),
    ]
    assert len({row.id for row in rows}) == 4
    write_clips(tmp_path / "c.jsonl", rows)
    encode_list(tmp_path / "c.jsonl", tmp_path / "out", **LISTED, validation_fraction=0.0, **SILENT)
    source = open_dataset(tmp_path / "out").source("train")
    records = [source[i] for i in range(len(source))]
    assert len({r["id"] for r in records}) == len(records) == 4
    assert sorted((r["source"], r["segments"], r["caption"]) for r in records) == [
        ("a.mp4", 1, "x"),
        ("b.mp4", 1, ""),
        ("b.mp4", 1, ""),
        ("b.mp4", 2, ""),
    ]
    entries = json.loads((tmp_path / "out" / "encode_report.json").read_text())["videos"]
    note = "1 clip left out, first: 0.000 to 0.417 s, same content as a.mp4"
    assert [(entry["clips"], entry["note"]) for entry in entries] == [(1, note), (3, note)]


def test_a_list_names_its_videos_from_anywhere(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(folder)
    media = Media(path=Path("a.mp4"))
    write_clips(tmp_path / "c.jsonl", [clip_of(9, media=media, source_hash=media.content_hash())])
    monkeypatch.chdir(tmp_path)
    (clip,) = read_clips(tmp_path / "c.jsonl")
    assert clip.media.path == folder / "a.mp4"


def test_a_video_that_was_changed_since_is_not_encoded(folder, tmp_path):
    changed, same = tmp_path / "changed.mp4", Media(path=folder / "b.mp4")
    changed.write_bytes((folder / "a.mp4").read_bytes())
    digest = Media(path=changed).content_hash()
    clips = [clip_of(9, media=m, source_hash=m.content_hash(), name=m.path.name) for m in (Media(path=changed), same)]
    write_clips(tmp_path / "c.jsonl", clips)
    changed.write_bytes((folder / "c.mp4").read_bytes())
    assert Media(path=changed).content_hash() == Media(path=folder / "c.mp4").content_hash() != digest
    encode_list(tmp_path / "c.jsonl", tmp_path / "out", **LISTED, **SILENT)
    first, second = json.loads((tmp_path / "out" / "encode_report.json").read_text())["videos"]
    assert first["reason"] == "is no longer the video that the clip was chosen from; scan it again"
    assert second["used"] and open_dataset(tmp_path / "out").counts == {"train": 1}


def test_scores_go_into_the_record_and_what_a_filter_left_out_stays_out(folder, tmp_path):
    media = Media(path=folder / "a.mp4")
    kept = clip_of(9, media=media, source_hash=media.content_hash(), scores={"motion": 0.5}, caption="x")
    missing = clip_of(9, start=60.0, media=media, source_hash=kept.source_hash)
    left_out = clip_of(9, start=0.25, media=media, source_hash=kept.source_hash, reason="still", name="b.mp4")
    write_clips(tmp_path / "c.jsonl", [kept, left_out, missing])
    options = {key: value for key, value in SETTINGS.items() if key not in ("height", "width")}
    encode_list(tmp_path / "c.jsonl", tmp_path / "out", **options, **SILENT)
    (record,) = (open_dataset(tmp_path / "out").source("train")[i] for i in range(1))
    assert record["scores"] == {"motion": 0.5} and record["caption"] == "x"
    report = json.loads((tmp_path / "out" / "encode_report.json").read_text())["videos"]
    assert report[1] == {"file": "b.mp4", "used": False, "reason": "still"}
    assert "1 clip could not be encoded, first: " in report[0]["note"]
    for change, message in (
        ({"fps": 6.0}, "has fps 6.0, but data.fps is 12"),
        ({"bucket": (18, 24)}, "multiples of 4"),
        ({"frames": 10}, "has 10 frames in 2 segments"),
    ):
        write_clips(tmp_path / "d.jsonl", [clip_of(9, **change) if "frames" not in change else clip_of(10)])
        with pytest.raises(InputError, match=message):
            encode_list(tmp_path / "d.jsonl", tmp_path / "other", **options, **SILENT)


def test_no_usable_video_leaves_nothing(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "empty.mp4").touch()
    write_video(tmp_path / "in" / "short.mp4", moving(3, 32, 48))
    with pytest.raises(InputError, match=r"not one of 2 videos .*empty file.*only 3 of the 5"):
        encode_folder(tmp_path / "in", tmp_path / "out", **SETTINGS, **SILENT)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in"]


def test_a_list_without_clips_leaves_nothing(tmp_path):
    (tmp_path / "left_out.jsonl").touch()
    with pytest.raises(InputError, match=r"left_out\.jsonl: no clips are listed; give a clips\.jsonl"):
        encode_list(tmp_path / "left_out.jsonl", tmp_path / "out", **LISTED, **SILENT)
    assert [path.name for path in tmp_path.iterdir()] == ["left_out.jsonl"]


def test_clip_that_fails_late_leaves_nothing_behind(tmp_path, monkeypatch):
    def read(media, **options):
        yield from moving(7, 16, 24)
        raise InputError(f"{media}: decoding took longer than 1 s")

    (tmp_path / "in").mkdir()
    write_video(tmp_path / "in" / "a.mp4", moving(9, 32, 48))
    monkeypatch.setattr(clip_encoding, "read_frames", read)
    with pytest.raises(InputError, match="took longer"):
        encode_folder(tmp_path / "in", tmp_path / "out", **SETTINGS, **SILENT)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in"]


def test_two_runs_into_one_folder_and_an_interrupted_one_of_other_settings(folder, tmp_path):
    def second(line):
        with pytest.raises(InputError, match=r"another run is writing .*out: wait for it"):
            encode_folder(folder, tmp_path / "out", **SETTINGS, **SILENT)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        encode_folder(folder, tmp_path / "out", **SETTINGS, progress=second)
    assert (tmp_path / "out.partial" / "videos").is_dir()
    with pytest.raises(InputError, match=r"out\.partial: an interrupted run with other fps left this"):
        encode_folder(folder, tmp_path / "out", **SETTINGS | {"fps": 6}, **SILENT)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"encoder": ClipEncoder(codec=CODEC, segment_frames=0)}, "segment_frames is 0"),
        ({"max_segments": 0}, "max_segments is 0"),
        ({"validation_fraction": 1.0}, "validation_fraction"),
        ({"fps": 0}, "fps=0"),
        ({"height": 18}, "multiples of 4"),
    ],
)
def test_bad_settings(tmp_path, change, message):
    (tmp_path / "a.mp4").touch()
    with pytest.raises(InputError, match=message):
        encode_folder(tmp_path, tmp_path / "out", **SETTINGS | change, **SILENT)


def test_progress_names_what_is_skipped(folder, tmp_path):
    lines = []
    encode_folder(folder, tmp_path / "out", **SETTINGS, progress=lines.append)
    assert "[6/8] empty.mp4: skipped: empty file; copy it again or leave it out" in lines[:8]
    assert any(line.startswith("7/7  ") for line in lines)
    assert lines[-1] == f"writing 7 clips of 4 videos, 2 with captions, to {tmp_path / 'out'}"


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
