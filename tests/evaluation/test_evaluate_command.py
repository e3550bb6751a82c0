import ast
import contextlib
import functools
import json
import re
from pathlib import Path

import av
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import mpjax
from mpjax import provenance
from mpjax.__main__ import main
from mpjax.data.clip_sources import VIDEO_SUFFIXES
from mpjax.data.video_writer import write_part
from mpjax.evaluation import evaluate_command
from mpjax.evaluation.metrics import videos
from mpjax.evaluation.metrics.flicker import TemporalFlickering
from mpjax.evaluation.metrics.metric import measure
from mpjax.evaluation.metrics.registry import File, Offer
from mpjax.evaluation.metrics.videos import find_image, find_videos, open_video
from mpjax.evaluation.study import page
from mpjax.evaluation.vbench.amt import AMT
from mpjax.evaluation.vbench.consistency import Fidelity
from tests.evaluation.vbench.golden import torch_shapes
from tests.fixtures import vbench_cases
from tests.fixtures.torch_containers import write_zip


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
    (raft,) = [line for line in said.splitlines() if "raft-things.pth" in line]  # a line a file
    assert raft.startswith("not computed without raft_model/models/raft-things.pth (from github.com")
    assert raft.endswith("dynamic_degree, long_dynamic_degree")
    assert "subject_mapping_table.yaml (from github.com/Vchitect/VBench, a clone as VBench/): long_subject_" in said
    assert "not computed without --segment-frames: seam_jump\n" in said
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
        (["--metrics=exposure,seam_jump"], "seam_jump needs --segment-frames: give --segment-frames"),
        (["--metrics=seam_jump", "--segment-frames=0"], "--segment-frames 0: give the frames"),
        (["--metrics=i2v_subject"], "--images: put it into the folder of --weights, and give --images"),
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


def test_a_second_call_keeps_what_the_first_one_measured(tmp_path, monkeypatch, capsys):
    first, second = (write(tmp_path / "clips" / name, count) for name, count in (("a.mp4", 9), ("b.mp4", 12)))
    out, measured = tmp_path / "out", []

    def counting(video, metrics):
        measured.append((video.name, [metric.name for metric in metrics]))
        return measure(video, metrics)

    monkeypatch.setattr(evaluate_command, "measure", counting)
    run = lambda *words: main(["evaluate", *map(str, words), f"--out={out}"])  # noqa: E731
    assert run(first, "--metrics=exposure,contrast") == 0
    whole = json.loads((out / "scores.json").read_text())
    assert run(first, "--metrics=exposure") == 0 and json.loads((out / "scores.json").read_text()) == whole
    assert measured == [(str(first), ["exposure", "contrast"])]
    # Only what is new is measured, and nothing is lost.
    assert run(first.parent, "--metrics=exposure,tint") == 0
    assert measured[1:] == [(str(first), ["tint"]), (str(second), ["exposure", "tint"])]
    assert sorted(_rows(out)) == sorted(
        [
            *((str(first), name) for name in ("contrast", "exposure", "tint")),
            (str(second), "exposure"),
            (str(second), "tint"),
        ]
    )
    # A video that was written anew is another one, under the old name.
    before = scores(out)
    write(first, 15)
    assert run(first, "--metrics=exposure") == 0 and measured[-1] == (str(first), ["exposure"])
    assert not any(row[0] == str(first) and row[1] == "tint" for row in _rows(out)) and before["tint"]
    # Other settings are refused, and leave everything as it is.
    was = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    for flag in ("--backward", "--segment-frames=4"):
        assert run(first, "--metrics=exposure", flag) == 2
        name = flag.partition("=")[0]
        assert f"measured without {name}, now with {flag}; give the same flags, or" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == was
    (out / "settings.json").write_text("{}")
    assert run(first, "--metrics=exposure") == 2 and "settings.json is no file of" in capsys.readouterr().err
    (out / "settings.json").unlink()
    assert run(first, "--metrics=exposure") == 2 and "holds something else (scores.csv)" in capsys.readouterr().err


def test_a_folder_of_something_else_is_refused_and_left_alone(clip, tmp_path, capsys):
    words = ["evaluate", str(clip), "--metrics=exposure"]
    for name in ("b.mp4", "notes.txt"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").touch()
        assert main([*words, f"--out={tmp_path / name}"]) == 2
        assert "holds something else (file): give --out a new folder" in capsys.readouterr().err
        assert [each.name for each in (tmp_path / name).iterdir()] == ["file"]
    # An empty one, and one that a kill left with half a file, are taken.
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "settings.json.tmp").touch()
    assert main([*words, f"--out={tmp_path / 'out'}"]) == 0


def test_two_videos_of_one_name_are_refused_at_once(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    paths = [write(tmp_path / folder / "a.mp4", count) for folder, count in (("x", 9), ("y", 10))]
    run = lambda *words: main(["evaluate", *map(str, words), "--metrics=exposure", "--out=out"])  # noqa: E731
    assert run(*paths) == 2 and "y/a.mp4 has the name of" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    assert run("x/a.mp4") == 0
    before = (tmp_path / "out" / "scores.json").read_bytes()
    assert run("y/a.mp4") == 2 and "y/a.mp4 has the name of x/a.mp4" in capsys.readouterr().err
    assert (tmp_path / "out" / "scores.json").read_bytes() == before
    # The same file by another path, moved, or written anew is no second one.
    assert run(paths[0]) == 0 and _rows(tmp_path / "out") == [(str(paths[0]), "exposure")]
    write(paths[0], 12)
    assert run("x/a.mp4") == 0 and _rows(tmp_path / "out") == [("x/a.mp4", "exposure")]
    paths[1].write_bytes(paths[0].read_bytes())
    assert run("y/a.mp4") == 0 and _rows(tmp_path / "out") == [("y/a.mp4", "exposure")]


def test_every_bad_video_is_named_before_any_is_measured(tmp_path, capsys):
    clip = write(tmp_path / "clips" / "good.mp4", 21)
    for name in ("cut", "short"):
        (clip.parent / f"{name}.mp4").write_bytes(clip.read_bytes()[: clip.stat().st_size // 2])
    assert main(["evaluate", str(clip.parent), "--metrics=exposure", f"--out={tmp_path / 'out'}"]) == 2
    said = capsys.readouterr().err
    assert "cut.mp4: " in said and "short.mp4: " in said and "good.mp4" not in said
    assert not (tmp_path / "out").exists()


def test_a_damaged_score_is_to_be_deleted(clip, tmp_path, capsys):
    words = ["evaluate", str(clip), "--metrics=exposure", f"--out={tmp_path / 'out'}"]
    assert main(words) == 0
    whole = (tmp_path / "out" / "scores.json").read_bytes()
    (kept,) = (tmp_path / "out" / "videos").iterdir()
    for text in ("{", "[1]", '[{"metric": "exposure"}]'):
        kept.write_text(text)
        assert main(words) == 2 and f"{kept} is damaged: delete it" in capsys.readouterr().err
    kept.unlink()
    assert main(words) == 0 and (tmp_path / "out" / "scores.json").read_bytes() == whole


def test_a_segment_longer_than_the_video_has_no_join_inside(clip, tmp_path, capsys):
    for frames, joins in ((20, 0), (19, 2), (5000, 0)):
        words = ["evaluate", str(clip), "--metrics=seam_jump", f"--segment-frames={frames}"]
        assert main([*words, f"--out={tmp_path / str(frames)}"]) == 0
        row = scores(tmp_path / str(frames))["seam_jump"]
        assert len(row["values"]) == joins and (row["reason"] is None) == bool(joins)
        assert ("not computed for 1 video: no join inside" in capsys.readouterr().out) == (not joins)


def test_a_video_is_said_when_it_is_done(tmp_path, monkeypatch, capsys):
    path = write(tmp_path / "clips" / "a.mp4", 9)
    monkeypatch.setattr(evaluate_command, "measure", lambda *args: print("measured") or measure(*args))
    assert main(["evaluate", str(path), "--metrics=exposure", f"--out={tmp_path / 'out'}"]) == 0
    assert capsys.readouterr().out.startswith(f"measured\n{path}: 9 frames")


def _rows(folder):
    return [(row["video"], row["metric"]) for row in json.loads((folder / "scores.json").read_text())["scores"]]


def test_a_killed_run_goes_on(tmp_path, monkeypatch):
    paths = [write(tmp_path / "clips" / name, count) for name, count in (("a.mp4", 9), ("b.mp4", 12))]
    measured = []

    def killed(video, metrics):
        if len(measured) == 1:
            raise KeyboardInterrupt
        measured.append(video.name)
        return measure(video, metrics)

    monkeypatch.setattr(evaluate_command, "measure", killed)
    words = ["evaluate", str(paths[0].parent), "--metrics=exposure", f"--out={tmp_path / 'out'}"]
    with contextlib.suppress(KeyboardInterrupt):
        main(words)
    monkeypatch.setattr(evaluate_command, "measure", lambda *args: measured.append(args[0].name) or measure(*args))
    assert main(words) == 0 and measured == [str(path) for path in paths] and len(_rows(tmp_path / "out")) == 2


def test_other_code_is_another_setting(clip, tmp_path, monkeypatch, capsys):
    words = ["evaluate", str(clip), "--metrics=exposure", f"--out={tmp_path / 'out'}"]
    assert main(words) == 0
    root = Path(mpjax.__path__[0])
    copy = tmp_path / "mpjax"
    for place in evaluate_command.SOURCES:
        for path in [root / place] if place.endswith(".py") else (root / place).glob("*.py"):
            (copy / path.relative_to(root)).parent.mkdir(parents=True, exist_ok=True)
            (copy / path.relative_to(root)).write_bytes(path.read_bytes())
    same = functools.partial(provenance.sources, root=copy)
    monkeypatch.setattr(evaluate_command.provenance, "sources", same)
    assert main(words) == 0
    (copy / "data" / "video.py").write_text("# another")
    assert main(words) == 2
    assert re.search(r"measured with code [0-9a-f]{12}, not [0-9a-f]{12}; give another --out", capsys.readouterr().err)


def test_the_code_of_a_score_is_all_that_its_metrics_import():
    """But for what can only refuse, and the two that say which videos there are and how results are written."""
    root = Path(mpjax.__path__[0])
    counted = {
        path
        for place in evaluate_command.SOURCES
        for path in ([root / place] if place.endswith(".py") else (root / place).glob("*.py"))
    }
    assert all(path.is_file() for path in counted) and len(counted) > 30
    others = {root / name for name in ("errors.py", "whole_files.py", "data/clip_sources.py")}
    for path in counted:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("mpjax"):
                names = [f"{node.module}.{alias.name}" for alias in node.names] + [node.module]
                found = {root.parent / f"{name.replace('.', '/')}.py" for name in names}
                assert {each for each in found if each.exists()} <= counted | others, path


def test_other_weights_are_other_settings(clip, tmp_path, monkeypatch, capsys):
    offer = Offer(
        name="temporal_flickering", make=lambda _: TemporalFlickering(), files=(File(names=("w.pth",), source="x"),)
    )
    monkeypatch.setattr(evaluate_command, "OFFERS", (offer,))
    codes = []
    for folder, content in (("one", b"1"), ("same", b"1"), ("other", b"2")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "w.pth").write_bytes(content)
        codes.append(main(["evaluate", str(clip), f"--weights={tmp_path / folder}", f"--out={tmp_path / 'out'}"]))
    assert codes == [0, 0, 2] and "temporal_flickering was measured with other weights" in capsys.readouterr().err


class Mean:
    batch = 8

    def __call__(self, frames):
        return frames[:, 0].mean((1, 2))


def test_pictures_are_found_by_name_and_decoded_when_the_video_has_its_turn(tmp_path, monkeypatch):
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for name in ("prompt.jpg", "prompt-1.png"):
        save_picture(pictures / name)
    paths = [write(tmp_path / "clips" / f"{name}.mp4", 9) for name in ("prompt-0", "prompt-1", "alone")]
    assert [find_image(path, pictures) for path in paths] == [pictures / "prompt.jpg", pictures / "prompt-1.png", None]
    probe = Mean()
    offer = Offer(name="i2v", make=lambda: Fidelity(name="i2v", probe=probe, picture_probe=probe))
    monkeypatch.setattr(evaluate_command, "OFFERS", (offer,))
    held = []
    opened = videos.open_video

    def watched(path, **words):
        video = opened(path, **words)
        held.append(any(isinstance(value, np.ndarray) for value in vars(video).values()))
        return video

    monkeypatch.setattr(evaluate_command, "open_video", watched)
    assert main(["evaluate", *map(str, paths), f"--images={pictures}", f"--out={tmp_path / 'out'}"]) == 0
    assert held == [False] * 3
    rows = {row["video"]: row for row in json.loads((tmp_path / "out" / "scores.json").read_text())["scores"]}
    assert rows[str(paths[0])]["value"] > 0 and rows[str(paths[1])]["value"] > 0
    assert rows[str(paths[2])]["reason"] == f"no picture in {pictures} is called alone"


def save_picture(path):
    av_frame = av.VideoFrame.from_ndarray(np.full((32, 48, 3), 90, np.uint8), format="rgb24")
    av_frame.to_image().save(path)


def test_a_folder_has_the_same_videos_for_every_verb(tmp_path):
    for suffix in VIDEO_SUFFIXES:
        (tmp_path / f"a{suffix}").touch()
    assert {path.suffix for path in find_videos([tmp_path])} == set(VIDEO_SUFFIXES)
    assert set(page.SUFFIXES) <= set(VIDEO_SUFFIXES)


def test_missing_weights_are_said_before_a_video_is_decoded(clip, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(evaluate_command, "open_video", lambda *_, **__: pytest.fail("decoded"))
    assert main(["evaluate", str(clip), "--metrics=dynamic_degree", f"--out={tmp_path / 'o'}"]) == 2
    assert "raft-things.pth" in capsys.readouterr().err
