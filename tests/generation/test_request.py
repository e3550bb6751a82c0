import numpy as np
import pytest
from PIL import Image

from mpjax.conditioning.tokens import encode_prompt
from mpjax.data.recallworld.clips import clip_seed, sample_clip
from mpjax.data.video import read_image
from mpjax.errors import InputError
from mpjax.generation.command import read_prompts
from mpjax.generation.request import Request, make_plan
from mpjax.generation.sampling import SamplingRequest
from tests.data.media import moving, write_video


def plan(trained, **fields):
    return make_plan(trained.run, trained.step, Request(**fields))


# 4 frames/s, 4 frames a segment: a whole number of segments, one frame more, the shortest, odd lengths.
@pytest.mark.parametrize(
    "seconds, frames, segments",
    [
        (5, 20, 5),
        (5.25, 21, 5),
        (5.5, 22, 6),
        (0.25, 1, 0),
        (0.5, 2, 1),
        (1.13, 5, 1),
        (1.38, 6, 2),
        (86400, 345600, 86400),
    ],
)
def test_lengths(trained, seconds, frames, segments):
    made = plan(trained, seconds=seconds)
    assert (made.frames, made.segments) == (frames, segments)


def test_prompts_go_to_their_segments_and_the_last_goes_on(trained):
    made = plan(trained, prompts=("one", "two", "é"))
    for segment, prompt in enumerate(["one", "two", "é", "é", "é"]):
        np.testing.assert_array_equal(made.prompt(segment), encode_prompt(prompt, 16))


def test_recallworld_tells_its_own_story_to_the_end(trained):
    """Of a training clip's length the prompts are those of the clip; after that the toy stays, whatever came last."""
    experiment, ends = trained.run.experiment, set()
    for seed in range(12):
        made = plan(trained, seed=seed)
        clip = sample_clip(experiment.data.world, clip_seed(seed=0, split="validation", step=seed, index=0), 5)
        assert made.prompts[:5] == clip.prompts
        assert made.prompts[5:] == ("the toy stays",)
        ends.add(made.prompts[4])
    assert ends == {"the toy returns", "the toy stays"}


def test_the_seed_chooses_the_validation_clip(trained):
    from mpjax.datasets import open_datasets

    validation = open_datasets(trained.run.experiment).validation
    for seed in (0, 3):
        np.testing.assert_array_equal(plan(trained, seed=seed).reference, validation[seed].reference[0])


def test_a_picture_becomes_the_first_frame(trained, tmp_path):
    picture = moving(1, 30, 41)[0]
    Image.fromarray(picture).save(tmp_path / "a.png")
    from_file = plan(trained, image=tmp_path / "a.png").reference
    np.testing.assert_array_equal(from_file, plan(trained, image=picture).reference)
    np.testing.assert_array_equal(from_file, plan(trained, image=str(tmp_path / "a.png")).reference)
    write_video(tmp_path / "a.mp4", moving(5, 32, 32), fps=4)  # of a video the first frame
    still, first = (plan(trained, **{key: tmp_path / "a.mp4"}, seconds=5) for key in ("image", "video"))
    np.testing.assert_array_equal(still.reference, first.reference)
    expected = read_image(tmp_path / "a.png", height=8, width=8) / 127.5 - 1
    np.testing.assert_allclose(from_file, expected[None], atol=1e-6)
    exact = moving(1, 8, 8)[0]
    np.testing.assert_allclose((plan(trained, image=exact).reference[0] + 1) * 127.5, exact, atol=1e-4)


def test_every_choice_makes_another_fingerprint(trained, tmp_path):
    frames = moving(12, 8, 8)
    clips = [
        write_video(tmp_path / "a.mp4", frames, fps=4),
        write_video(tmp_path / "b.mp4", np.concatenate([frames[:6], frames[:6]]), fps=4),  # the same first frame
    ]
    references = [plan(trained, video=clip).reference for clip in clips]
    np.testing.assert_array_equal(*references)
    changes = [
        {},
        {"seconds": 6},
        {"seed": 1},
        {"seed": 1, "prompts": ("a",)},
        {"prompts": ("a",)},
        {"prompts": ("a", "a")},
        {"least": 64},
        {"image": moving(1, 8, 8)[0]},
        {"video": clips[0]},
        {"video": clips[1]},
        {"sampling": SamplingRequest(steps=3)},
        {"sampling": SamplingRequest(shift=3.0)},
        {"sampling": SamplingRequest(shift="dynamic")},
        {"sampling": SamplingRequest(sampler="unipc")},
        {"sampling": SamplingRequest(guidance=2.0)},
        {"sampling": SamplingRequest(teacache=0.15)},
        {"sampling": SamplingRequest(guidance=2.0, negative="a")},
    ]
    prints = {plan(trained, **change).fingerprint for change in changes}
    prints.add(make_plan(trained.run, trained.step + 1, Request()).fingerprint)
    assert len(prints) == len(changes) + 1
    # What the run does anyway is no change.
    own = SamplingRequest(sampler="euler", steps=2, shift=1.0, guidance=1.0)
    assert plan(trained).fingerprint == plan(trained).fingerprint == plan(trained, sampling=own).fingerprint


@pytest.mark.parametrize(
    "fields, message",
    [
        ({"seconds": 0}, "seconds is 0"),
        ({"seconds": -1}, "seconds is -1"),
        ({"seconds": float("nan")}, "seconds is nan"),
        ({"seconds": float("inf")}, "seconds is inf"),
        ({"seconds": 0.1}, "less than one frame: give at least 0.25"),
        ({"seed": -1}, "seed is -1"),
        ({"seed": 2**32}, "seed is 4294967296"),
        ({"least": 0}, "least is 0"),
        ({"prompts": ("fine", "x" * 17)}, "has 17 bytes, but this model reads 16"),
        ({"seconds": "5"}, "seconds is '5': give a number"),
        ({"seed": 1.0}, "seed is 1.0: give a whole number"),
        ({"least": True}, "least is True: give a whole number"),
        ({"prompts": (3,)}, "prompt is 3: give text, or a list of texts, one a segment"),
        ({"prompts": ("a", "b", "c"), "seconds": 1.0}, "3 prompts, but 1 s is 1 segment of 1 s: raise seconds"),
        ({"prompts": ("a",) * 4, "seconds": 3.25}, "4 prompts, but 3.25 s are 3 segments of 1 s: raise seconds"),
        ({"prompts": ("a", "b"), "seconds": 0.25}, "2 prompts, but 0.25 s is 1 segment of 1 s: raise seconds"),
        ({"image": [[1]]}, r"image is a list: give a path, or uint8 \[height, width, 3\]"),
        ({"image": "missing.png"}, "missing.png: no such file"),
        ({"image": np.zeros((8, 8, 3), np.float32)}, "image is float32"),
        ({"image": np.zeros((8, 8, 4), np.uint8)}, "image is uint8"),
        ({"video": "missing.mp4"}, "missing.mp4: no such file"),
        ({"image": "a.png", "video": "b.mp4"}, "image and video"),
    ],
)
def test_what_cannot_be_used_is_refused(trained, tmp_path, fields, message):
    files = ("image", "video")
    fields = {k: tmp_path / v if k in files and isinstance(v, str) else v for k, v in fields.items()}
    with pytest.raises(InputError, match=message):
        plan(trained, **fields)


@pytest.mark.parametrize(
    "frames, seconds, message", [(4, 5, "has 4 frames"), (9, 2.25, "alone fills the 2.25 s"), (40, 3, "alone fills")]
)
def test_a_clip_must_leave_something_to_do(trained, tmp_path, frames, seconds, message):
    video = write_video(tmp_path / "clip.mp4", moving(frames), fps=4)
    with pytest.raises(InputError, match=message):
        plan(trained, video=video, seconds=seconds)


@pytest.mark.parametrize("frames, given", [(5, 1), (8, 1), (9, 2), (12, 2)])
def test_whole_segments_of_a_clip_are_given(trained, tmp_path, frames, given):
    video = write_video(tmp_path / "clip.mp4", moving(frames), fps=4)
    made = plan(trained, video=video, seconds=5, prompts=("first", "second"))
    assert made.given == given
    # Prompts count from the first segment that is generated.
    assert made.prompts == ("first",) * given + ("first", "second")


def test_prompt_files(tmp_path):
    path = tmp_path / "prompts.txt"
    path.write_text('a "quoted" toy\n\n["one", "two"]\n  spaces \n', encoding="utf-8")
    assert read_prompts(path) == [('a "quoted" toy',), ("one", "two"), ("spaces",)]
    for text in ('["one", 2]', "[one]", "[]"):
        path.write_text(f"fine\n{text}\n")
        with pytest.raises(InputError, match=r"prompts.txt:2 starts with"):
            read_prompts(path)
    path.write_text("\n\n")
    with pytest.raises(InputError, match="holds no prompt"):
        read_prompts(path)
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match=r"missing\.txt: no such file"):
        read_prompts(tmp_path / "missing.txt")
    for unreadable in (path, tmp_path):
        with pytest.raises(InputError, match="cannot be read as UTF-8"):
            read_prompts(unreadable)


def test_as_many_prompts_as_segments_are_taken(trained, tmp_path):
    assert len(plan(trained, prompts=("a", "b", "c"), seconds=2.5).prompts) == 3
    assert plan(trained, prompts=("a",), seconds=0.25).prompts == ("a",)
    clip = write_video(tmp_path / "a.mp4", moving(9, 8, 8), fps=4)  # two segments, and as many to go
    assert plan(trained, video=clip, prompts=("a", "b"), seconds=4.25).given == 2
    with pytest.raises(InputError, match=r"3 prompts, but 4\.25 s are 2 segments of 1 s after the clip: raise seconds"):
        plan(trained, video=clip, prompts=("a", "b", "c"), seconds=4.25)
