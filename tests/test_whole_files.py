import pytest

from mpjax.__main__ import main
from mpjax.errors import InputError
from mpjax.whole_files import check_folder


def test_a_folder_for_results_cannot_lie_at_or_below_a_file(tmp_path):
    file = tmp_path / "file"
    file.write_bytes(b"x")
    check_folder(tmp_path)
    check_folder(tmp_path / "new" / "sub")
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    for place in (file, file / "sub" / "sub", tmp_path / "dangling"):
        with pytest.raises(InputError, match="is a file: give --out a folder"):
            check_folder(place)


@pytest.mark.parametrize("below", ["", "/x/y"])
@pytest.mark.parametrize(
    "words",
    [
        ["suite", "--config=configs/suites/pfvg.py", "--weights=RUN", "--out=FILE"],
        ["study", "a", "b", "--out=FILE"],
        ["elo", "votes.jsonl", "--key=k.json", "--out=FILE"],
        ["report", "a", "b", "--out=FILE"],
        ["evaluate", "a.mp4", "--out=FILE"],
        ["encode", "--config=configs/clips_tiny.py", "--input=clips", "--output=FILE"],
        ["data", "scan", "--config=configs/clips_tiny.py", "--input=clips", "--output=FILE"],
        ["data", "inspect", "clips", "--html=FILE/page.html"],
    ],
    ids=lambda words: words[1] if words[0] == "data" else words[0],
)
def test_every_verb_that_writes_a_folder_says_so_first(tmp_path, capsys, words, below):
    file = tmp_path / "file"
    file.write_bytes(b"x")
    assert main([word.replace("FILE", f"{file}{below}") for word in words]) == 2
    said = capsys.readouterr().err
    flag = next(word.partition("=")[0] for word in words if "FILE" in word)
    assert f"{file} is a file: give {flag} a " in said and said.count("\n") == 1
    assert file.read_bytes() == b"x" and [*tmp_path.iterdir()] == [file]


def test_a_page_cannot_take_the_place_of_a_folder(tmp_path, capsys):
    assert main(["data", "inspect", "clips", f"--html={tmp_path}"]) == 2
    assert "is a folder: give --html a file in it" in capsys.readouterr().err
