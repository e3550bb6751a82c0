import json

import pytest

from mpjax.data.clip_sources import find_sources
from mpjax.data.media import Media
from mpjax.errors import InputError


def test_names_captions_and_order(tmp_path):
    (tmp_path / "deep" / ".hidden").mkdir(parents=True)
    (tmp_path / "folder.mp4").mkdir()
    for name in ("b.MP4", "a.webm", "deep/c.mov", "notes.txt", ".d.mp4", "deep/.hidden/e.mp4", "odd.bin", "x.bin"):
        (tmp_path / name).write_bytes(b"12345")
    (tmp_path / "a.txt").write_text(" a hill \n")
    (tmp_path / "b.txt").write_text("unused")
    (tmp_path / "deep" / "c.txt").write_bytes(b"caf\xe9")
    lines = [
        {"file": "b.MP4", "caption": "a café", "fps": 3},
        {"file": "gone.mp4", "caption": ""},
        {"file": "odd.bin", "caption": "o"},
    ]
    (tmp_path / "manifest.jsonl").write_text("\n\n".join(map(json.dumps, lines)) + "\n")
    sources = find_sources(tmp_path)
    assert [(s.name, s.caption, s.bytes) for s in sources] == [
        ("a.webm", "a hill", 5),
        ("b.MP4", "a café", 5),
        ("deep/c.mov", "caf\ufffd", 5),
        ("gone.mp4", "", 0),
        ("odd.bin", "o", 5),
    ]
    # printf 12345 | sha256sum
    assert (
        Media(path=sources[0].path).content_hash() == "5994471abb01112afcc18159f6cc74b4f511b99806da59b3caf5a9c173cacfc5"
    )
    with pytest.raises(InputError, match=r"gone.mp4: no such file"):
        Media(path=sources[3].path).content_hash()


def test_names_that_are_no_unicode_become_text(tmp_path):
    (tmp_path / b"caf\xe9.mp4".decode("utf-8", "surrogateescape")).touch()
    assert find_sources(tmp_path)[0].name == "caf\\xe9.mp4"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "line 2 is no JSON object"),
        ("[]", "line 2 is no JSON object"),
        ('{"caption": "x"}', "line 2 is no JSON object"),
        ('{"file": "b.mp4", "text": "x"}', "line 2 is no JSON object"),
        ('{"file": "b.mp4", "caption": 5}', "line 2 is no JSON object"),
        ('{"file": "../a.mp4", "caption": ""}', "outside the folder"),
        ('{"file": "/a.mp4", "caption": ""}', "outside the folder"),
    ],
)
def test_bad_manifests(tmp_path, line, message):
    (tmp_path / "manifest.jsonl").write_text('{"file": "a.mp4", "caption": ""}\n' + line)
    with pytest.raises(InputError, match=message):
        find_sources(tmp_path)


def test_nothing_to_find(tmp_path):
    with pytest.raises(InputError, match="no video files"):
        find_sources(tmp_path)
    (tmp_path / "a_file.mp4").touch()
    with pytest.raises(InputError, match=r"a_file\.mp4: a file; give the folder that it lies in"):
        find_sources(tmp_path / "a_file.mp4")
    with pytest.raises(InputError, match="no such folder"):
        find_sources(tmp_path / "missing")
