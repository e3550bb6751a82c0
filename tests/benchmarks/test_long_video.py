"""The command on a small network: what it pauses ends in the bytes of what it does not."""

import json

import pytest

from benchmarks import long_video
from tests.fixtures import tiny_vae

SMOKE = "configs/framepack_f1_13b.py:smoke"


def made(folder, *flags):
    """(exit status, record, bytes of the video)."""
    tiny_vae.write_folder(folder / "vae")
    out = folder / "record.json"
    status = long_video.main([f"--config={SMOKE}", f"--folder={folder}", f"--out={out}", "--seconds=4", *flags])
    return status, json.loads(out.read_text()), (folder / "video.mp4").read_bytes()


def test_a_pause_changes_no_byte(tmp_path):
    status, record, whole = made(tmp_path / "whole")
    again, paused, parts = made(tmp_path / "paused", "--pause-after=2")
    assert status == again == 0 and whole == parts
    assert record["frames"] == paused["frames"] == 120 and record["segments"] == 4  # of 36 frames
    assert [len(part) for part in record["seconds_per_segment"]] == [4]
    assert [len(part) for part in paused["seconds_per_segment"]] == [2, 2]
    assert min(min(part) for part in paused["seconds_per_segment"]) > 0 and record["median_seconds"] > 0
    # Called again, it finds the video and its seconds.
    assert made(tmp_path / "paused", "--pause-after=2")[1:] == (paused, parts)
    assert record["peak_bytes"] is None  # a CPU does not tell
    assert {"command", "commit", "versions", "machine"} <= set(record)


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--seconds=0"], "--seconds is 0: give a length above 0"),
        (["--seconds=inf"], "--seconds is inf: give a length above 0"),
        (["--pause-after=-1"], "--pause-after is -1: give a number of segments, or 0"),
        (["--config=configs/recall_tiny.py"], "config.model.encoders is set: give a config of a network that reads"),
    ],
)
def test_bad_input_is_one_sentence(flags, words, tmp_path, capsys):
    out = tmp_path / "record.json"
    assert long_video.main([f"--config={SMOKE}", f"--folder={tmp_path}", f"--out={out}", *flags]) == 2
    assert words in capsys.readouterr().err and not out.exists()
