import re
import textwrap

import jax
import numpy as np
import pytest
from PIL import Image

import mpjax
from mpjax import api
from mpjax.diffusion.samplers import UniPC
from mpjax.errors import InputError
from mpjax.generation.request import make_plan
from tests.data.media import moving
from tests.generation.runs import recallworld_experiment, write_run


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("runs") / "run", recallworld_experiment())


@pytest.fixture(scope="module")
def example(run):
    """What the example in the module's docstring leaves behind, run on a tiny run instead of `runs/recall`."""
    assert api.__doc__
    code = "\n".join(line for line in api.__doc__.splitlines() if line.startswith("    ") or not line)
    assert code.count("runs/recall") == 1
    values: dict = {}
    exec(textwrap.dedent(code).replace("runs/recall", str(run)), values)
    return values


@pytest.fixture(scope="module")
def model(example):
    return example["model"]


def test_the_example_runs_and_its_comments_are_true(example):
    shapes = re.findall(r"uint8 (\[[\d, ]+\])", api.__doc__ or "")
    for name, shape in zip(("frames", "shown"), shapes, strict=True):
        assert example[name].dtype == np.uint8 and str(list(example[name].shape)) == shape
    assert example["state"].segment == 3
    assert all(getattr(mpjax, name) is getattr(api, name) for name in mpjax.__all__)
    with pytest.raises(AttributeError, match="no attribute 'other'"):
        _ = mpjax.other


def test_generate_is_start_and_next_segment(model, tmp_path):
    image = moving(1, 8, 8)[0]
    Image.fromarray(image).save(tmp_path / "a.png")
    frames = model.generate(["a", "b"], image=image, seconds=3, seed=4)
    np.testing.assert_array_equal(frames, model.generate(("a", "b"), str(tmp_path / "a.png"), seconds=3, seed=4))
    assert frames.shape == (12, 8, 8, 3) and (model.fps, model.segment_frames, model.step) == (4.0, 4, 2)
    np.testing.assert_array_equal(frames[0], image)
    state = model.start("a", image, seed=4)
    for n, prompt in enumerate(["a", "b", "b"]):
        shown, state = model.next_segment(state, prompt)
        np.testing.assert_array_equal(shown[: 11 - 4 * n], frames[1 + 4 * n : 5 + 4 * n])  # the last one is cut
    assert (
        model.generate("a", image=image, seed=5, seconds=2) != model.generate("a", image=image, seed=4, seconds=2)
    ).any()


def test_a_state_can_be_gone_on_from_twice(model):
    state = model.start("a")
    copy = jax.tree.map(np.array, state.generation.video)
    first, _ = model.next_segment(state, "b")
    again, _ = model.next_segment(state, "b")
    np.testing.assert_array_equal(first, again)
    jax.tree.map(np.testing.assert_array_equal, state.generation.video, copy)


def test_a_given_segment_is_pushed_as_pixels_or_as_latents(model):
    state, frames = model.start("a"), moving(4, 8, 8)
    latents = frames / np.float32(127.5) - 1
    by_pixels, by_latents = model.update_memory(state, frames), model.update_memory(state, latents)
    before, one, other = (s.generation.video for s in (state, by_pixels, by_latents))
    jax.tree.map(np.testing.assert_array_equal, one, other)
    np.testing.assert_array_equal(one.history.frames[0, -4:], latents)
    assert by_pixels.segment == 1
    assert np.abs(one.memory.tokens - before.memory.tokens).max() > 0.1
    shown, _ = model.next_segment(by_pixels, "b")
    assert (shown != model.next_segment(state, "b")[0]).any()


def test_another_sampling_holds_for_whole_videos_and_single_segments(run, model, monkeypatch):
    """One rollout serves both, made for what was asked."""
    samplings, requests = [], []
    monkeypatch.setattr(api.Rollout, "of", lambda *asked, **more: samplings.append((*asked, more)) or model._rollout)
    monkeypatch.setattr(
        api, "make_plan", lambda run, step, request: requests.append(request) or make_plan(run, step, request)
    )
    asked = mpjax.SamplingRequest(sampler="unipc", steps=3, guidance=2.0, negative="b")
    mpjax.load(run, asked, offload=True).generate("a", seconds=0.25)
    ((_, sampling, more),) = samplings
    assert [request.sampling for request in requests] == [asked] and sampling.sampler == UniPC(steps=3)
    assert more == {"offload": True}
    with pytest.raises(InputError, match="--distilled-guidance needs"):
        mpjax.load(run, mpjax.SamplingRequest(distilled_guidance=2.0))


def test_bad_input(model, tmp_path):
    state = model.start("a")
    for call, message in (
        (lambda: api.load(tmp_path), "no run folder"),
        (lambda: model.generate("x" * 17), "17 bytes"),
        (lambda: model.next_segment(state, "x" * 17), "17 bytes"),
        (lambda: model.start("a", np.zeros((8, 8), np.uint8)), "image is uint8"),
        (lambda: model.start("a", [[1]]), "image is a list: give a path"),
        (lambda: model.start(5), "prompt is 5: give text"),
        (lambda: model.generate(5), "prompt is 5: give text"),
        (lambda: model.next_segment(state, ["a"]), "prompt is \\['a'\\]: give text"),
        (lambda: model.update_memory(state, [1]), "segment is a list"),
        (lambda: model.generate(["a", "b", "c"], seconds=2), "3 prompts, but 2 s are 2 segments"),
        (lambda: model.generate("a", seconds=-1), "^seconds is -1: give a length above 0$"),
        (lambda: model.generate("a", seconds=0), "above 0"),
        (lambda: model.update_memory(state, np.zeros((3, 8, 8, 3), np.uint8)), "segment is uint8"),
        (lambda: model.update_memory(state, np.zeros((4, 8, 8, 3), np.int64)), "segment is int64"),
        (lambda: model.update_memory(state, np.zeros((4, 8, 8, 4), np.float32)), "segment is float32"),
    ):
        with pytest.raises(InputError, match=message):
            call()
