"""configs/clips_tiny.py from raw videos to a trained network: `data scan`, `encode`, `data inspect`, `train`."""

import json

import numpy as np
import pytest

from mpjax import codecs, config
from mpjax.__main__ import main
from mpjax.data.filmstrip import to_uint8
from mpjax.data.latents import open_dataset
from mpjax.data.raw.clip import read_clips
from tests.data.media import join, psnr, scene, write_tar, write_video

CONFIG = f"--config={config.find('clips_tiny.py')}:smoke"
# One stage of a small network, since all the time is compiling.
SHORT = [
    "--config.training.stages=[{'steps': 2, 'curriculum': [(0, 4)]}]",
    *(f"--config.training.{name}_every=0" for name in ("sample", "validate")),
    *(f"--config.model.{name}=1" for name in ("heads", "dual_blocks", "single_blocks")),
]


@pytest.fixture
def material(tmp_path, monkeypatch):
    """A folder of two shots in one file, one shot that turns still, a tar, and a broken file; by name, the frames."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "raw"
    folder.mkdir()
    shots = {seed: scene(seed, 50, 48, 64, pan=(0, 0.7)) for seed in range(5)}
    cut, _ = join([shots[0], shots[1]])
    frames = {
        "cut.mp4": cut,
        "still.mp4": np.repeat(shots[2][:1], 50, axis=0),
        "walk.mp4": shots[3],
        "t.tar:in.mp4": shots[4],
    }
    for name in ("cut.mp4", "still.mp4", "walk.mp4"):
        write_video(folder / name, frames[name])
    (folder / "walk.txt").write_text("a walk in the hills")
    (folder / "cut.txt").write_text("two shots")
    packed = write_video(tmp_path / "in.mp4", shots[4]).read_bytes()
    write_tar(folder / "t.tar", {"in.txt": b"a tar", "in.mp4": packed})
    (folder / "broken.mp4").write_text("no video\n" * 9)
    return frames


def test_from_raw_videos_to_a_network(material, tmp_path, capsys):
    assert main(["data", "scan", CONFIG, "--input=raw", "--output=scan"]) == 0
    assert main(["encode", CONFIG, "--input=scan/clips.jsonl"]) == 0
    chosen = {clip.id: clip for clip in read_clips(tmp_path / "scan" / "clips.jsonl")}
    assert sorted({clip.name for clip in chosen.values()}) == ["cut.mp4", "t.tar:in.mp4", "walk.mp4"]
    assert any(clip.start > 3 for clip in chosen.values())  # behind the cut

    dataset = open_dataset(tmp_path / "runs" / "clips")
    records = [dataset.source(split)[i] for split, count in dataset.counts.items() for i in range(count)]
    assert {record["id"] for record in records} == set(chosen) and len(records) == len(chosen)
    assert {record["caption"] for record in records} == {"two shots", "a walk in the hills", "a tar"}
    for record in records:
        clip = chosen[record["id"]]
        assert record["scores"] == clip.scores and record["scores"]["dynamism"] > 0.02
        assert len(record["latents"]) == 1 + 3 * clip.segments and record["source_hash"] == clip.source_hash
        # Of all frames of the video the one where the clip starts is the nearest to what its first latent shows.
        latents = codecs.normalise(dataset.codec, record["latents"][:1])
        shown = to_uint8(dataset.codec.decode(latents[None])[0, 0])
        nearest = np.argmax([psnr(shown, frame) for frame in material[clip.name]])
        assert nearest == round(12 * clip.start)

    capsys.readouterr()
    counts = f"3 videos, {len(chosen)} items"
    for place in ("scan", "runs/clips"):
        assert main(["data", "inspect", place]) == 0
        said = capsys.readouterr().out
        assert counts in said.splitlines()[0] and said.count("two shots") == 1

    assert main(["train", CONFIG, *SHORT, "--run=run"]) == 0
    lines = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    losses = [line["train/loss"] for line in lines if "train/loss" in line]
    assert len(losses) == 2 and np.isfinite(losses).all() and min(losses) > 0
