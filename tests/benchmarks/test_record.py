import pytest

from benchmarks.record import check_out, description
from mpjax.errors import InputError


def test_a_file_that_can_be_written_is_not_made_yet_and_an_old_one_stays(tmp_path):
    out = tmp_path / "new" / "record.json"
    check_out(out)
    assert out.parent.is_dir() and not out.exists()
    out.write_text("kept")
    check_out(out)
    assert out.read_text() == "kept"


def test_a_file_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "record.json").mkdir()
    with pytest.raises(InputError, match=r"record\.json, which cannot be written"):
        check_out(tmp_path / "record.json")


def test_a_description_says_what_ran():
    said = description("benchmarks.x", ["--out=OUT"])
    assert said["command"] == "python -m benchmarks.x --out=OUT" and said["seed"] is None
    assert {"commit", "versions", "machine", "runtime"} <= set(said)
