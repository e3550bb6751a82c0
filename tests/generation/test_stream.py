import json
import os
import signal
import threading
from pathlib import Path

import av
import jax
import numpy as np
import pytest

from mpjax import codecs
from mpjax.__main__ import main
from mpjax.data.clip_encoding import ClipEncoder
from mpjax.data.clips import encode_folder
from mpjax.data.video import read_frames
from mpjax.diffusion.guidance import ClassifierFree
from mpjax.diffusion.samplers import UniPC
from mpjax.errors import InputError
from mpjax.experiment import fingerprint
from mpjax.generation import command, stream
from mpjax.generation.request import Request, make_plan
from mpjax.generation.rollout import Rollout
from mpjax.generation.sampling import SamplingPlan
from mpjax.generation.stream import GenerationResult, write_video
from mpjax.models.teacache import TeaCache
from mpjax.weights import load_run, read_run
from tests.data.media import moving, psnr
from tests.data.media import write_video as write_clip
from tests.generation.runs import clips_experiment, write_run


def frames_of(path) -> np.ndarray:
    with av.open(path) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


class Countdown(threading.Event):
    """A stop request that comes while segment n is being made."""

    def __init__(self, segments: int):
        super().__init__()
        self._left = segments

    def is_set(self) -> bool:
        self._left -= 1
        return self._left < 0


@pytest.fixture
def write(trained, rollout):
    """Writes one video with the compiled rollout."""

    def run(out, *, stopping=None, say=lambda _: None, timing=None, **fields):
        plan = make_plan(trained.run, trained.step, Request(**{"least": 16, **fields}))
        return write_video(trained.run, lambda: rollout, plan, out, stopping=stopping, say=say, timing=timing)

    return run


@pytest.mark.parametrize("seconds, frames", [(0.25, 1), (0.5, 2), (1.13, 5), (1.4, 6), (2.25, 9), (3, 12)])
def test_the_number_of_frames_is_exact(write, tmp_path, seconds, frames):
    result = write(tmp_path / "a.mp4", seconds=seconds)
    assert result.finished and result.frames == frames
    assert frames_of(tmp_path / "a.mp4").shape == (frames, 16, 16, 3)
    assert {path.name for path in tmp_path.iterdir()} == {"a.mp4", "a.mp4.json"}
    assert json.loads((tmp_path / "a.mp4.json").read_text())["frames"] == frames


def test_a_shorter_video_is_the_beginning_of_a_longer_one(write, tmp_path):
    write(tmp_path / "short.mp4", seconds=1.75, least=8, seed=3)
    write(tmp_path / "long.mp4", seconds=4, least=8, seed=3)
    np.testing.assert_array_equal(frames_of(tmp_path / "long.mp4")[:5], frames_of(tmp_path / "short.mp4")[:5])


def test_a_prompt_changes_its_segment_and_what_follows(write, tmp_path):
    def video(name, *prompts):
        write(tmp_path / name, seconds=4.25, prompts=prompts, least=64)
        return frames_of(tmp_path / name).astype(int)

    long, changed, short = (
        video("a.mp4", "a", "b", "c", "c"),
        video("b.mp4", "a", "b", "d", "c"),
        video("c.mp4", "a", "b", "c"),
    )
    np.testing.assert_array_equal(long, short)
    np.testing.assert_array_equal(long[:9], changed[:9])
    assert np.abs(long[9:13] - changed[9:13]).max() > 10


def test_a_stop_and_the_way_on(write, tmp_path):
    whole, out, lines = tmp_path / "whole.mp4", tmp_path / "a.mp4", []
    write(whole, seconds=4)
    for segments in (0, 2, 1):
        result = write(out, seconds=4, stopping=Countdown(segments), say=lines.append)
        assert not result.finished and result.path == tmp_path / "a.partial.mp4"
        assert result.frames == len(frames_of(result.path)) and len(result.seconds_per_segment) == segments
        assert "the same command goes on" in lines[-1]
    assert write(out, seconds=4).finished
    assert out.read_bytes() == whole.read_bytes()
    assert {path.name for path in tmp_path.iterdir()} == {"whole.mp4", "whole.mp4.json", "a.mp4", "a.mp4.json"}


def test_a_finished_video_costs_nothing_and_is_never_replaced(trained, write, tmp_path):
    out = tmp_path / "a.mp4"
    write(out, seconds=1)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def fail():
        raise AssertionError("weights were loaded")

    plan = make_plan(trained.run, trained.step, Request(seconds=1, least=16))
    assert write_video(trained.run, fail, plan, out, say=lambda _: None).finished
    with pytest.raises(InputError, match="generated from another request"):
        write(out, seconds=1, seed=1)
    (tmp_path / "a.mp4.json").unlink()
    with pytest.raises(InputError, match="was not generated here"):
        write(out, seconds=1)
    assert (tmp_path / "a.mp4").read_bytes() == before["a.mp4"]


def test_an_unfinished_video_of_another_request_is_kept(write, tmp_path):
    out = tmp_path / "a.mp4"
    write(out, seconds=4, stopping=Countdown(2))
    before = {path.name: path.read_bytes() for path in (tmp_path / "a.mp4.parts").iterdir()}
    with pytest.raises(InputError, match=r"a.mp4.parts holds an unfinished video of another request"):
        write(out, seconds=5)
    assert {path.name: path.read_bytes() for path in (tmp_path / "a.mp4.parts").iterdir()} == before
    (tmp_path / "a.mp4.parts" / "notes.txt").write_text("mine")
    write(out, seconds=4)
    assert [path.name for path in (tmp_path / "a.mp4.parts").iterdir()] == ["notes.txt"]


def test_a_clip_is_continued(trained, rollout, write, tmp_path, monkeypatch):
    """Its whole segments are the beginning, untouched, and what the network has before it when it starts."""
    clip = write_clip(tmp_path / "clip.mp4", moving(15, 64, 64), fps=4, pix_fmt="yuv444p")
    pixels = np.stack(list(read_frames(clip, fps=4, height=8, width=8)))
    written, seen = [], []
    write_part, generate = stream.write_part, rollout.generate

    def spy_part(path, frames, **fields):
        written.append(frames[:, ::2, ::2])
        write_part(path, frames, **fields)

    def spy_generate(state, *prompts):
        seen.append(state)
        return generate(state, *prompts)

    monkeypatch.setattr(stream, "write_part", spy_part)
    monkeypatch.setattr(rollout, "generate", spy_generate)
    result = write(tmp_path / "a.mp4", video=clip, seconds=5.5)
    assert result.frames == 22 and len(seen) == 3
    frames = np.concatenate(written)
    np.testing.assert_array_equal(frames[:13], pixels[:13])
    assert np.abs(frames[13:15].astype(int) - pixels[13:15]).max() > 20
    latents = pixels / np.float32(127.5) - 1
    history = seen[0].video.history
    np.testing.assert_allclose(history.frames[0], latents[6:13], atol=1e-6)
    np.testing.assert_allclose(history.reference[0], latents[:1], atol=1e-6)
    assert int(history.segments) == int(seen[0].segment) == 3

    # ψ is that of three given segments: Denoiser's own functions, one after another.
    prompt = make_plan(trained.run, trained.step, Request(video=clip, seconds=5.5)).prompt(0)
    _, state = rollout.start(prompt, latents[:1], seed=0)
    for n in range(3):
        before = state.video.memory.tokens
        _, state = rollout.give(state, latents[1 + 4 * n : 5 + 4 * n])
        assert np.abs(before - state.video.memory.tokens).max() > 0.1
    np.testing.assert_array_equal(seen[0].video.memory.tokens, state.video.memory.tokens)
    assert psnr(frames_of(tmp_path / "a.mp4")[:, ::2, ::2], frames) > 25

    # The same, stopped inside the given part and after it.
    for segments in (2, 2):
        write(tmp_path / "b.mp4", video=clip, seconds=5.5, stopping=Countdown(segments))
    write(tmp_path / "b.mp4", video=clip, seconds=5.5)
    assert (tmp_path / "b.mp4").read_bytes() == (tmp_path / "a.mp4").read_bytes()


@pytest.mark.skipif(stream.resident_mb() is None, reason="reads resident memory from /proc")
def test_memory_does_not_grow_with_the_length(write, tmp_path, monkeypatch):
    arrays, measure = [], stream.resident_mb

    def count():
        arrays.append(len(jax.live_arrays()))
        return measure()

    monkeypatch.setattr(stream, "resident_mb", count)
    result = write(tmp_path / "a.mp4", seconds=41, least=512, timing=tmp_path / "t.json")
    assert len(result.rss_mb) == len(result.seconds_per_segment) == 41
    assert result.rss_mb[39] < 1.03 * result.rss_mb[9]
    assert arrays[39] == arrays[9]
    timing = json.loads((tmp_path / "t.json").read_text())
    assert timing == {"seconds_per_segment": list(result.seconds_per_segment), "rss_mb": list(result.rss_mb)}
    assert min(result.seconds_per_segment) > 0


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    """(run folder, its weights, compiled): 4 pixel frames a latent frame, a dataset with one held-out video."""
    folder = tmp_path_factory.mktemp("clips")
    (folder / "videos").mkdir()
    for name, seed in (("a", 1), ("b", 2)):
        write_clip(folder / "videos" / f"{name}.mp4", moving(18, 32, 32, seed), fps=8)
        (folder / "videos" / f"{name}.txt").write_text(f"waves {name} é")
    experiment = clips_experiment(folder / "data")
    codec = codecs.create("dct", time_factor=4, space_factor=2, channels=6)
    encoder = ClipEncoder(codec=codec, segment_frames=2)
    settings = {"encoder": encoder, "fps": 8, "height": 16, "width": 16, "max_segments": 2}
    encode_folder(folder / "videos", folder / "data", **settings, validation_fraction=0.5, progress=lambda _: None)
    trained = load_run(write_run(folder / "run", experiment))
    return folder, trained, Rollout.of(trained)


def test_a_codec_that_joins_frames(clips, tmp_path):
    """Odd lengths, a held-out first frame with its caption, and a clip, all with 8 pixel frames a segment."""
    folder, trained, rollout = clips
    dataset = json.loads((folder / "data" / "dataset.json").read_text())
    plan = make_plan(trained.run, trained.step, Request(seconds=2.5, least=16))
    assert (plan.frames, plan.segments, plan.segment_frames) == (20, 3, 8)
    assert dataset["splits"]["validation"]["clips"] == 1 and plan.prompts in (("waves a é",), ("waves b é",))
    source = folder / "videos" / f"{plan.prompts[0].split()[1]}.mp4"
    first = np.stack(list(read_frames(source, fps=8, height=16, width=16)))[:1]
    write_video(trained.run, lambda: rollout, plan, tmp_path / "a.mp4", say=lambda _: None)
    frames = frames_of(tmp_path / "a.mp4")
    assert len(frames) == 20
    assert psnr(frames[:1], first) > 20 > psnr(frames[:1], 255 - first)

    plan = make_plan(trained.run, trained.step, Request(video=source, seconds=3, least=16))
    assert plan.given == 2 and plan.frames == 24 and plan.prompts == ("",)
    write_video(trained.run, lambda: rollout, plan, tmp_path / "b.mp4", say=lambda _: None)
    frames = frames_of(tmp_path / "b.mp4")
    assert len(frames) == 24
    clip = np.stack(list(read_frames(source, fps=8, height=16, width=16)))
    assert psnr(frames[:17], clip[:17]) > 25

    stored = json.loads((folder / "run" / "run.json").read_text())
    stored["codec"]["mean"][0] += 1
    (tmp_path / "run.json").write_text(json.dumps(stored))
    with pytest.raises(InputError, match="was encoded again since"):
        make_plan(read_run(tmp_path), trained.step, Request())


def test_a_run_finds_its_dataset_from_anywhere(clips, tmp_path, monkeypatch):
    """`data.path` is relative to where `train` ran; `run.json` says where that is, the fingerprint does not."""
    folder = clips[0]
    monkeypatch.chdir(folder)
    relative = clips_experiment(Path("data"))
    run = write_run(tmp_path / "run", relative)
    stored = json.loads((run / "run.json").read_text())
    assert stored["fingerprint"] == fingerprint(relative)
    monkeypatch.chdir(tmp_path)
    first, second = (make_plan(read_run(place), 2, Request()) for place in (run, folder / "run"))
    np.testing.assert_array_equal(first.reference, second.reference)
    stored["experiment"]["data"]["path"] = str(tmp_path / "gone")
    (run / "run.json").write_text(json.dumps(stored))
    with pytest.raises(InputError, match=f"^dataset {tmp_path / 'gone'} of the run is not here: give --image or --vid"):
        make_plan(read_run(run), 2, Request())
    assert make_plan(read_run(run), 2, Request(image=np.zeros((8, 8, 3), np.uint8))).prompts == ("",)


def test_many_prompts_make_many_videos(world_run, rollout, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(Rollout, "of", lambda trained, sampling, offload: rollout)  # compiled already
    (tmp_path / "prompts.txt").write_text('a toy enters\n["one", "two"]\n')
    verb = ["generate", "--weights", str(world_run), "--seconds", "2", "--least", "16"]
    many = [*verb, "--out", str(tmp_path / "out"), "--prompts", str(tmp_path / "prompts.txt"), "--seed", "5"]
    assert main(many) == 0
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        f"000{i}.mp4{end}" for i in "01" for end in ("", ".json")
    }
    single = [*verb, "--out", str(tmp_path / "b.mp4"), "--prompt", "one", "--prompt", "two", "--seed", "6"]
    assert main([*single, "--timing"]) == 0
    timing = json.loads((tmp_path / "b.mp4.timing.json").read_text())
    assert len(timing["seconds_per_segment"]) == len(timing["rss_mb"]) == 2
    assert (tmp_path / "b.mp4").read_bytes() == (tmp_path / "out" / "0001.mp4").read_bytes()
    capsys.readouterr()
    assert main(many) == 0
    assert capsys.readouterr().out.count("finished already") == 2


@pytest.mark.parametrize("kept, made", [(16, [0, 1, 2]), (1, [0, 1, 2, 1, 2]), (0, [0, 1, 2, 0, 1, 2])])
def test_a_plan_is_kept_from_the_check_to_the_video(world_run, tmp_path, monkeypatch, kept, made):
    """Of as many videos as `KEPT_PLANS`; the others are made again."""
    seen, written = [], []

    def write(run, load, plan, out, **rest):
        written.append((plan.seed, out))
        return GenerationResult(path=out, frames=plan.frames, finished=True)

    monkeypatch.setattr(command, "KEPT_PLANS", kept)
    monkeypatch.setattr(command, "make_plan", lambda *rest: seen.append(rest[-1].seed) or make_plan(*rest))
    monkeypatch.setattr(command, "write_video", write)
    (tmp_path / "prompts.txt").write_text("one\ntwo\nthree\n")
    flags = ["--out", str(tmp_path / "out"), "--prompts", str(tmp_path / "prompts.txt")]
    assert main(["generate", "--weights", str(world_run), *flags]) == 0
    assert seen == made
    assert written == [(n, tmp_path / "out" / f"000{n}.mp4") for n in range(3)]


@pytest.mark.parametrize("number, status", [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
@pytest.mark.parametrize("finished", [1, 2, 3])
def test_a_stop_is_seen_in_the_status(world_run, tmp_path, monkeypatch, number, status, finished):
    """Of three videos, the signal comes during the last one that is begun; a stop that came too late is none."""
    written = []

    def write(run, load, plan, out, **rest):
        written.append(out)
        if len(written) == finished:
            os.kill(os.getpid(), number)
        return GenerationResult(path=out, frames=1, finished=len(written) < finished or finished == 3)

    monkeypatch.setattr(command, "write_video", write)
    (tmp_path / "prompts.txt").write_text("one\ntwo\nthree\n")
    flags = ["--out", str(tmp_path / "out"), "--prompts", str(tmp_path / "prompts.txt")]
    assert main(["generate", "--weights", str(world_run), *flags]) == (0 if finished == 3 else status)
    assert len(written) == finished


def test_flags_of_sampling_reach_the_rollout_and_are_remembered(world_run, rollout, tmp_path, capsys, monkeypatch):
    samplings = []
    monkeypatch.setattr(Rollout, "of", lambda trained, sampling, offload: samplings.append(sampling) or rollout)
    command = ["generate", "--weights", str(world_run), "--seconds", "1.5", "--least", "16", "--prompt", "one"]
    flags = ["--sampler", "unipc", "--steps", "3", "--shift", "dynamic", "--guidance", "3", "--negative", "two"]
    flags += ["--teacache", "0.15"]
    out = ["--out", str(tmp_path / "a.mp4")]
    assert main([*command, *out, *flags]) == 0
    assert json.loads((tmp_path / "a.mp4.json").read_text())["sampling"] == {
        "sampler": {"kind": "unipc", "steps": 3, "shift": None, "variant": "bh1"},
        "classifier_free": {"scale": 3.0, "rescale": 0.0},
        "distilled_guidance": 1.0,
        "negative": "two",
        "cache": {"threshold": 0.15},
    }
    assert samplings == [
        SamplingPlan(
            sampler=UniPC(steps=3, shift=None),
            classifier_free=ClassifierFree(scale=3.0),
            distilled_guidance=1.0,
            negative="two",
            cache=TeaCache(threshold=0.15),
        )
    ]
    assert main([*command, *out]) == 2 and "generated from another request" in capsys.readouterr().err
    assert main([*command, *out, *flags]) == 0 and "finished already" in capsys.readouterr().out


def test_bad_input_leaves_nothing_behind(world_run, tmp_path, capsys):
    media, empty = tmp_path / "media", tmp_path / "empty"
    media.mkdir()
    empty.mkdir()
    (media / "long.txt").write_text("fine\n" + "x" * 17 + "\n")
    (media / "fine.txt").write_text("fine\n")
    (media / "many.txt").write_text('fine\n["a", "b", "c"]\n')
    (media / "file").touch()
    clip = write_clip(media / "clip.mp4", moving(9), fps=4)
    run = ["--weights", str(world_run)]
    out = ["--out", str(tmp_path / "new" / "a.mp4")]
    for flags, message in (
        ([*run, *out, "--prompt", "x" * 17], "17 bytes"),
        ([*run, *out, "--prompts", str(media / "long.txt")], "17 bytes"),
        ([*run, *out, "--prompts", str(media / "fine.txt"), "--prompt", "a"], "leave one of them out"),
        ([*run, *out, "--seconds", "0"], "seconds is 0"),
        ([*run, *out, "--image", str(clip), "--video", str(clip)], "leave one of them out"),
        ([*run, *out, "--video", str(clip), "--seconds", "2.25"], "raise --seconds"),
        ([*run, "--out", str(tmp_path / "a.avi")], "ends in .mp4"),
        ([*run, "--out", str(empty)], "ends in .mp4"),
        ([*run, "--out", str(clip)], "was not generated here"),
        ([*run, "--out", str(media / "file" / "a.mp4")], "cannot be made"),
        ([*run, "--out", str(media / "file"), "--prompts", str(media / "fine.txt")], "give a folder"),
        ([*run, *out, "--prompts", str(media / "none.txt")], "none.txt: no such file; give --prompts a text file"),
        (
            [*run, *out[:1], str(tmp_path / "new"), "--prompts", str(media / "many.txt"), "--seconds", "1"],
            "3 prompts, but 1 s is 1 segment",
        ),
        ([*run, *out, *["--prompt", "a"] * 3, "--seconds", "1"], "3 prompts, but 1 s is 1 segment of 1 s: raise"),
        ([*run, *out, "--scale", "2"], "no flag of this command"),
        ([*run, *out, "--steps", "0"], "steps is 0: give at least 1"),
        ([*run, *out, "--shift", "-1"], "shift is -1.0: give a number above 0, or dynamic"),
        ([*run, *out, "--guidance", "0.5"], "guidance is 0.5: give at least 1"),
        ([*run, *out, "--negative", "a"], "add --guidance with a scale above 1"),
        ([*run, *out, "--guidance", "2", "--negative", "x" * 17], "17 bytes"),
        ([*run, *out, "--distilled-guidance", "6"], "use --guidance for classifier-free guidance"),
        (["--weights", str(empty), *out], "no run folder"),
    ):
        assert main(["generate", *flags]) == 2, flags
        assert message in capsys.readouterr().err, flags
    assert {path.name for path in tmp_path.iterdir()} == {"media", "empty"}
    assert not any(empty.iterdir()) and len(list(media.iterdir())) == 5
