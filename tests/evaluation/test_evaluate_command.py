import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mpjax.__main__ import main
from mpjax.data.video_writer import write_part
from mpjax.evaluation.metrics.videos import find_videos, open_video
from mpjax.evaluation.vbench.amt import AMT
from tests.evaluation.vbench.golden import torch_shapes
from tests.fixtures import vbench_cases
from tests.fixtures.torch_zip import write_zip


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return write(tmp_path_factory.mktemp("one") / "clips" / "moving.mp4", 21)


def write(path, count):
    path.parent.mkdir(exist_ok=True)
    write_part(path, vbench_cases.frames("clip", count, 128, 144), fps=8, first_frame=0)
    return path


def scores(folder):
    return {row["metric"]: row for row in json.loads((folder / "scores.json").read_text())["scores"]}


def test_all_without_weights_measures_what_needs_none_and_names_the_rest(clip, tmp_path, capsys):
    assert main(["evaluate", str(clip.parent), f"--out={tmp_path / 'out'}"]) == 0
    found = scores(tmp_path / "out")
    assert 0.5 < found["temporal_flickering"]["value"] < 1 and found["temporal_flickering"]["drift"] is not None
    said = capsys.readouterr().out
    assert "dynamic_degree: not computed: needs raft_model/models/raft-things.pth (from github.com" in said
    assert "long_subject_consistency_slow_fast: not computed: needs" in said and "subject_mapping_table.yaml" in said
    left_out = json.loads((tmp_path / "out" / "scores.json").read_text())["left_out"]
    assert "musiq_spaq_ckpt-358bb6af.pth" in left_out["imaging_quality"]


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--metrics=dynamic_degree"], "raft-things.pth (from github.com"),
        (["--metrics=motion"], "choose all or some of subject_consistency"),
        (["--metrics=temporal_flickering,temporal_flickering"], "twice"),
        (["--weights=nowhere"], "nowhere: no such folder"),
        (["--images=nowhere"], "nowhere: no such folder"),
        (["--out=README.md"], "is a file"),
        (["nothing.mp4"], "nothing.mp4: no such file"),
    ],
)
def test_bad_input_is_one_sentence_before_anything_is_written(clip, tmp_path, capsys, flags, said):
    assert main(["evaluate", *flags, str(clip), *([] if "--out" in flags[0] else [f"--out={tmp_path / 'out'}"])]) == 2
    printed = capsys.readouterr()
    assert said in printed.err and printed.err.count("\n") == 1 and not (tmp_path / "out").exists()


@pytest.mark.slow
def test_a_network_from_its_published_container(clip, tmp_path):
    like = jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.float32)
    tensors = {name: vbench_cases.weight(name, shape, "amt") for name, shape in torch_shapes(AMT(), like, like).items()}
    folder = tmp_path / "weights" / "amt_model"
    folder.mkdir(parents=True)
    write_zip(folder / "amt-s.pth", tensors, within="state_dict")
    flags = [
        f"--weights={folder.parent}",
        f"--out={tmp_path / 'out'}",
        "--metrics=motion_smoothness,temporal_flickering",
    ]
    assert main(["evaluate", str(clip), *flags]) == 0
    smooth = scores(tmp_path / "out")["motion_smoothness"]
    assert 0 < smooth["value"] < 1 and len(smooth["values"]) == 10 and smooth["drift"] is not None


def test_another_networks_file_is_named(clip, tmp_path, capsys):
    write_zip(tmp_path / "raft-things.pth", {"module.fnet.conv1.weight": np.zeros((64, 3, 7, 7))})
    assert (
        main(["evaluate", str(clip), f"--weights={tmp_path}", "--metrics=dynamic_degree", f"--out={tmp_path / 'o'}"])
        == 2
    )
    assert "raft-things.pth has no tensor" in capsys.readouterr().err
    write_zip(tmp_path / "raft-things.pth", {"module.fnet.conv1.weight": np.zeros((64, 3, 5, 5))})
    assert (
        main(["evaluate", str(clip), f"--weights={tmp_path}", "--metrics=dynamic_degree", f"--out={tmp_path / 'o'}"])
        == 2
    )
    err = capsys.readouterr().err
    assert "raft-things.pth" in err and not (tmp_path / "o").exists()


def test_videos_are_counted_and_found(tmp_path):
    clip, other = (write(tmp_path / "clips" / name, count) for name, count in (("moving.mp4", 21), ("another.mp4", 9)))
    assert find_videos([clip.parent]) == [other, clip]
    video = open_video(clip)
    frames = list(video.read())
    assert (video.frames, video.fps) == (21, 8) and len(frames) == 21 and frames[0].shape == (128, 144, 3)
    truth = vbench_cases.frames("clip", 21, 128, 144)
    assert np.abs(np.stack(frames).astype(float) - truth).mean() < 25  # lossy, and in order
    broken = clip.parent / "broken.mp4"
    broken.write_bytes(clip.read_bytes()[: clip.stat().st_size // 2])
    assert main(["evaluate", str(broken), f"--out={tmp_path / 'o'}"]) == 2
