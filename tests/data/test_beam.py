"""The same dataset through Apache Beam; runs where requirements-beam.txt is installed."""

import re
import shlex
import sys
from pathlib import Path

import pytest

from mpjax import codecs
from mpjax.__main__ import parser
from mpjax.data import assembly
from mpjax.data.beam import pipeline_options
from mpjax.data.clip_encoding import ClipEncoder
from mpjax.data.clips import encode_folder
from mpjax.errors import InputError
from tests.data.media import moving, write_video

ENCODER = ClipEncoder(codec=codecs.create("dct", time_factor=2, space_factor=4, channels=6), segment_frames=2)
SETTINGS = {"encoder": ENCODER, "fps": 12, "height": 16, "width": 24, "max_segments": 2}


def test_beam_gives_the_bytes_of_the_local_path(tmp_path, monkeypatch):
    pytest.importorskip("apache_beam")
    # More than ten shards, of one record or two.
    monkeypatch.setattr(assembly, "SHARD_BYTES", 1200)
    videos = tmp_path / "videos"
    videos.mkdir()
    for i in range(13):
        write_video(videos / f"{i:02d}.mp4", moving(9 + 4 * (i % 4), 32, 48, seed=i))
    (videos / "text.mp4").write_text("no video\n" * 99)
    encode_folder(videos, tmp_path / "local", **SETTINGS, progress=lambda line: None)
    options = pipeline_options("DirectRunner", [])
    encode_folder(videos, tmp_path / "beam", **SETTINGS, beam_options=options, progress=lambda line: None)
    names = sorted(path.name for path in (tmp_path / "local").iterdir())
    assert sum("train.array_record" in name for name in names) > 10
    assert names == sorted(path.name for path in (tmp_path / "beam").iterdir())
    for name in names:
        assert (tmp_path / "local" / name).read_bytes() == (tmp_path / "beam" / name).read_bytes(), name


def test_dataflow_is_asked_for_accelerators():
    """By the command of docs/data.md."""
    pytest.importorskip("apache_beam")
    from apache_beam.options.pipeline_options import GoogleCloudOptions
    from apache_beam.transforms.environments import resource_hints_from_options

    manual = (Path(__file__).parent.parent.parent / "docs" / "data.md").read_text()
    (command,) = re.findall(r"^python -m mpjax (.*DataflowRunner.*)$", manual, re.MULTILINE)
    args = parser().parse_args(shlex.split(command))
    options = pipeline_options(args.beam_runner, shlex.split(args.beam_options))
    assert resource_hints_from_options(options) == {
        "beam:resources:accelerator:v1": b"type:nvidia-l4;count:1;install-nvidia-driver",
        "beam:resources:min_ram_bytes:v1": b"64000000000",
    }
    assert options.view_as(GoogleCloudOptions).project == "PROJECT"


def test_without_beam(monkeypatch):
    monkeypatch.setitem(sys.modules, "apache_beam", None)
    with pytest.raises(InputError, match=r"pip install -r requirements-beam\.txt"):
        pipeline_options("DirectRunner", [])
