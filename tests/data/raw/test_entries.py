import csv
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mpjax.data.raw.entries import read_entries
from mpjax.errors import InputError
from tests.data.media import write_tar

MIRA_V1 = {
    "clip_id": "864.3",
    "source": "youtube, 3D engine-rendered scenes",
    "video_id": "5I2SnLsGWhY",
    "fps": "29.97",
    "timestamp": "['00:07:42.095', '01:08:42.823']",
    "framestamp": "[13849, 15669]",
    "file_path": "video_clips/000000000/000000000864.3.mp4",
    "short_caption": "a walk",
    "dense_caption": " a walk through a forest, with mist ",
}
MIRA_V0 = {
    "index": "000000008783_AJp_A-NXoGoM-000114",
    "video_id": "AJp_A-NXoGoM",
    "start_frame": "600",
    "end_frame": "4200",
    "short_caption": "cars",
    "dense_caption": "",
    "fps": "30",
    "start_timestep": "0:00:20",
}
SEKAI = {
    "videoFile": "au1t_-L8MXQ_0021750_0023550.mp4",
    "cameraFile": "au1t_-L8MXQ_0021750_0023550.npz",
    "caption": "a street at night",
    "location": "Osaka",
}


def write_table(path, rows):
    if path.suffix == ".csv":
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    elif path.suffix == ".jsonl":
        path.write_text("\n\n".join(map(json.dumps, rows)), encoding="utf-8")
    else:
        pq.write_table(pa.Table.from_pylist(rows), path)
    return path


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_plain_tables(tmp_path, suffix):
    (tmp_path / "a.mp4").write_bytes(b"1")
    rows = [
        {"path": "a.mp4", "caption": "a café, or\ntwo", "start": "1:02.5", "end": "70"},
        {"path": "a.mp4", "caption": "", "start": "", "end": ""},
        {"path": "gone.mp4", "caption": "b", "start": "0", "end": "1"},
        {"path": "", "caption": "c", "start": "", "end": ""},
        {"path": "a.mp4", "caption": "d", "start": "3", "end": "2"},
        {"path": "a.mp4", "caption": "e", "start": "soon", "end": ""},
    ]
    entries = list(read_entries(write_table(tmp_path / f"t{suffix}", rows)))
    assert [(e.caption, e.start, e.end) for e in entries[:2]] == [("a café, or\ntwo", 62.5, 70.0), ("", 0.0, None)]
    assert [e.media.path for e in entries[:2]] == [tmp_path / "a.mp4"] * 2
    for entry, problem in zip(
        entries, ("", "", "no such file", "path is empty", "is empty", "is no time"), strict=True
    ):
        assert (problem in entry.problem) if problem else entry.problem == ""


def test_numbers_in_parquet_and_paths_in_another_folder(tmp_path):
    (tmp_path / "v").mkdir()
    (tmp_path / "v" / "a.mp4").write_bytes(b"1")
    path = tmp_path / "t.parquet"
    pq.write_table(pa.table({"file": ["a.mp4"] * 3000, "start": [0.5] * 3000, "end": [None, *[2] * 2999]}), path)
    entries = list(read_entries(path, tmp_path / "v"))
    assert len(entries) == 3000 and not any(e.problem for e in entries)
    assert [(e.start, e.end) for e in entries[:2]] == [(0.5, None), (0.5, 2.0)]


@pytest.mark.parametrize(
    ("row", "places"),
    [
        (
            MIRA_V1,
            [
                ("video_clips/000000000/000000000864.3.mp4", 0, None),
                ("raw_video/000000000864.mp4", 462.095, 4122.823),
                ("000000000864.mp4", 462.095, 4122.823),
                ("5I2SnLsGWhY.mp4", 462.095, 4122.823),
            ],
        ),
        (
            MIRA_V0,
            [
                ("clip_video/000000008/000000008783_AJp_A-NXoGoM-000114.mp4", 0, None),
                ("raw_video/000000008/000000008783_AJp_A-NXoGoM.mp4", 20, 140),
                ("AJp_A-NXoGoM.mp4", 20, 140),
            ],
        ),
        (
            SEKAI,
            [
                ("au1t_-L8MXQ_0021750_0023550.mp4", 0, None),
                ("au1t_-L8MXQ/au1t_-L8MXQ_0021750_0023550.mp4", 0, None),
                ("au1t_-L8MXQ.webm", 725, 785),
            ],
        ),
        ({"videoFile": "00100201_0001.mp4", "cameraFile": "x.npz", "caption": "a"}, [("00100201_0001.mp4", 0, None)]),
    ],
    ids=["mira v1", "mira v0", "sekai real", "sekai game"],
)
def test_published_tables(tmp_path, row, places):
    """A clip is where the dataset's own tools put it, or a range of its source video."""
    table = write_table(tmp_path / "t.csv", [row])
    caption = (row.get("dense_caption") or row.get("short_caption") or row.get("caption")).strip()
    (entry,) = read_entries(table)
    assert entry.problem.startswith("no such file")
    for file, start, end in places:
        path = tmp_path / "videos" / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"1")
        (entry,) = read_entries(table, tmp_path / "videos")
        assert (entry.media.path, entry.caption, entry.problem) == (path, caption, "")
        assert entry.start == pytest.approx(start) and (entry.end == end or entry.end == pytest.approx(end))
        path.unlink()


def test_rows_that_tell_no_range(tmp_path):
    rows = [MIRA_V1 | {"timestamp": text} for text in ("", "[]", "['00:01:00.0', '00:00:30.0']")]
    entries = list(read_entries(write_table(tmp_path / "t.csv", rows)))
    assert [e.name for e in entries] == [f"t.csv, row {n}" for n in (1, 2, 3)]
    assert not any("row" in e.problem or "t.csv" in e.problem for e in entries)
    (entry,) = read_entries(write_table(tmp_path / "u.csv", [MIRA_V0 | {"fps": "0"}]))
    assert "fps is 0" in entry.problem


def test_a_row_with_more_values_than_columns(tmp_path):
    (tmp_path / "a.mp4").write_bytes(b"1")
    (tmp_path / "t.csv").write_text("path,caption\na.mp4,a dog, running\na.mp4,a dog\n")
    bad, good = read_entries(tmp_path / "t.csv")
    assert (bad.name, bad.caption) == ("t.csv, row 1", "") and bad.problem.startswith("more values than columns")
    assert (good.caption, good.problem) == ("a dog", "")


def test_a_folder_of_videos_needs_a_table(tmp_path):
    (tmp_path / "a.mp4").write_bytes(b"1")
    (tmp_path / "t.csv").write_text("path\na.mp4\n")
    with pytest.raises(InputError, match=r"--videos .*nope: no such folder"):
        read_entries(tmp_path / "t.csv", tmp_path / "nope")
    for path in (tmp_path, tmp_path / "a.mp4"):
        with pytest.raises(InputError, match=r"--videos .*is none: leave it out"):
            read_entries(path, tmp_path)


def test_a_field_of_a_megabyte(tmp_path):
    (entry,) = read_entries(write_table(tmp_path / "t.csv", [SEKAI | {"location": "x" * 10**6}]))
    assert entry.caption == "a street at night"


def test_webdataset_tars(tmp_path):
    members = {
        "a/0001.mp4": b"v" * 700,
        "a/0001.txt": b" one ",
        "a/0002.json": json.dumps({"caption": "two"}).encode(),
        "a/0002.webm": b"w" * 3,
        "a/0003.low.mp4": b"x",
        "a/0003.txt": "drei ü".encode(),
        "b/notes.txt": b"alone",
    }
    write_tar(tmp_path / "s-0.tar", members)
    (tmp_path / "z.mp4").write_bytes(b"1")
    entries = list(read_entries(tmp_path))
    assert [(e.name, e.caption) for e in entries] == [
        ("z.mp4", ""),
        ("s-0.tar:a/0001.mp4", "one"),
        ("s-0.tar:a/0002.webm", "two"),
        ("s-0.tar:a/0003.low.mp4", "drei ü"),
    ]
    with entries[1].media.open() as file:
        assert file.read() == b"v" * 700
    assert [e.name for e in read_entries(tmp_path / "s-0.tar")] == [e.name for e in entries[1:]]


def test_damaged_tars(tmp_path):
    write_tar(tmp_path / "zipped.tar", {"a.mp4": b"1"}, mode="w:gz")
    write_tar(tmp_path / "short.tar", {"a.mp4": b"1" * 100, "b.mp4": b"2" * 5000})
    data = (tmp_path / "short.tar").read_bytes()
    (tmp_path / "short.tar").write_bytes(data[:3000])
    problems = {e.name: e.problem for e in read_entries(tmp_path)}
    assert "no uncompressed tar" in problems.pop("zipped.tar")
    assert problems.pop("short.tar:a.mp4") == ""
    assert "the tar ends before it" in problems["short.tar:b.mp4"]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("t.csv", "", "t.csv: empty"),
        ("t.csv", "\n\0\1", "no UTF-8 text"),
        ("t.jsonl", "\0", "no UTF-8 text"),
        ("t.csv", "name,words\na,b\n", "name, words are of no known layout"),
        ("t.jsonl", '{"path": "a.mp4"}\n{\n', "line 2 is no JSON"),
        ("t.jsonl", "[1]\n", "line 1 is no JSON object"),
        ("t.parquet", "no", "no Parquet file"),
        ("t.xlsx", "x", "no list of videos"),
    ],
)
def test_tables_that_cannot_be_read(tmp_path, name, text, message):
    (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match=message):
        list(read_entries(tmp_path / name))


def test_nothing_there(tmp_path):
    with pytest.raises(InputError, match="no such file or folder"):
        read_entries(tmp_path / "gone")
    with pytest.raises(InputError, match="no video files and no tars"):
        list(read_entries(tmp_path))


def test_a_damaged_page_of_parquet_is_one_sentence(tmp_path):
    path = tmp_path / "t.parquet"
    pq.write_table(pa.table({"path": [f"{i:05d}.mp4" for i in range(4000)]}), path, row_group_size=2000)
    chunk = pq.ParquetFile(path).metadata.row_group(1).column(0)
    data = bytearray(path.read_bytes())
    start = chunk.dictionary_page_offset
    data[start : start + chunk.total_compressed_size] = b"\xff" * chunk.total_compressed_size
    path.write_bytes(data)
    with pytest.raises(InputError, match=r"t\.parquet: damaged after row [12]\d\d\d; export it again"):
        list(read_entries(path))
