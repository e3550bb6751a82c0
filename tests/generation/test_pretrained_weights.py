"""From a checkpoint of PyTorch to a video: `convert`, then `generate` with embeddings of pretrained encoders."""

import dataclasses
import json

import av
import jax
import numpy as np
import pytest
from PIL import Image

import mpjax
from mpjax.__main__ import main
from mpjax.conditioning import pretrained
from mpjax.conditioning.pretrained import PretrainedEncoders
from mpjax.errors import InputError
from mpjax.generation.command import with_size
from mpjax.generation.request import Request, make_plan
from mpjax.weights import read_run
from tests.fixtures import seeded, tiny_vae
from tests.interop.checkpoints import tiny_tensors, write_checkpoint

SIZE = ["--height=32", "--width=48"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A pipeline as diffusers stores it, converted as F1 (`run`) and as F0 (`backwards`), and a picture."""
    folder = tmp_path_factory.mktemp("pretrained")
    write_checkpoint(folder / "pipeline" / "transformer", tiny_tensors())
    tiny_vae.write_folder(folder / "pipeline" / "vae")
    source = f"--input={folder / 'pipeline'}"
    assert main(["convert", source, f"--output={folder / 'run'}", *SIZE]) == 0
    assert main(["convert", source, f"--output={folder / 'backwards'}", *SIZE, "--layout=framepack_f0"]) == 0
    picture = np.random.default_rng(0).integers(0, 256, (64, 80, 3), np.uint8)
    Image.fromarray(picture).save(folder / "a.png")
    return folder


@pytest.fixture
def encoders(encoder_folder, monkeypatch):
    """A folder of encoders whose embeddings are drawn by name: what they compute, tests/conditioning shows."""

    def embed(self, prompt):
        return {"text": seeded.normal(prompt, (7, 24)), "pooled": seeded.normal(f"{prompt} pooled", (20,))}

    monkeypatch.setattr(PretrainedEncoders, "embed_prompt", embed)
    monkeypatch.setattr(PretrainedEncoders, "embed_image", lambda self, picture: seeded.normal("picture", (5, 28)))
    return encoder_folder


def generate(folder, encoders, out, *flags, run="run"):
    weights, image = f"--weights={folder / run}", f"--image={folder / 'a.png'}"
    fixed = ["--seconds=1.5", "--steps=2", f"--encoders={encoders}", "--least=1", f"--out={out}"]
    return main(["generate", weights, image, *fixed, *flags])


def frames_of(path):
    with av.open(path) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


def test_prompt_and_image_to_video(folder, encoders, tmp_path, capsys):
    """45 frames of 30 a second: two segments, the second cut."""
    assert generate(folder, encoders, tmp_path / "a.mp4", "--prompt=a dog runs") == 0
    shown = frames_of(tmp_path / "a.mp4")
    assert shown.shape == (45, 32, 48, 3) and shown.std() > 5
    assert json.loads((tmp_path / "a.mp4.json").read_text())["prompts"] == ["a dog runs"]
    assert generate(folder, encoders, tmp_path / "a.mp4", "--prompt=a dog runs") == 0
    assert "finished already" in capsys.readouterr().out
    assert generate(folder, encoders, tmp_path / "a.mp4", "--prompt=a cat runs") == 2
    assert "generated from another request" in capsys.readouterr().err
    assert generate(folder, encoders, tmp_path / "b.mp4", "--prompt=a cat runs") == 0
    other = frames_of(tmp_path / "b.mp4")
    assert np.abs(other[1:].astype(int) - shown[1:]).mean() > 1  # the prompt reaches the network


def test_from_the_end(folder, encoders, tmp_path):
    """F0: as many frames, written once the first segment exists, which is made last."""
    assert generate(folder, encoders, tmp_path / "a.mp4", "--prompt=a dog runs", run="backwards") == 0
    assert frames_of(tmp_path / "a.mp4").shape == (45, 32, 48, 3)


def test_prompts_come_in_the_order_of_the_video(folder, encoders):
    """Also for F0, which generates the last segment first; the last prompt goes on at the end, not at the beginning."""
    request = Request(prompts=("a", "b"), image=folder / "a.png", seconds=4.0, encoders=encoders)
    forwards, backwards = (make_plan(read_run(folder / name), 0, request) for name in ("run", "backwards"))
    assert forwards.segments == backwards.segments == 4

    def order(plan):
        known = {plan.conditions[0].pooled.tobytes(): "a", plan.conditions[1].pooled.tobytes(): "b"}
        return "".join(known[plan.prompt(done).pooled.tobytes()] for done in range(4))

    assert order(forwards) == "abbb" and order(backwards) == "bbba"


def test_a_single_frame(folder, encoders, tmp_path, capsys):
    """The autoencoder holds even that one back until the end."""
    assert generate(folder, encoders, tmp_path / "a.mp4", "--prompt=a", "--seconds=0.03") == 0
    assert frames_of(tmp_path / "a.mp4").shape == (1, 32, 48, 3)
    assert generate(folder, encoders, tmp_path / "b.mp4", "--seconds=0.03", run="backwards") == 2
    assert "a single frame" in capsys.readouterr().err


def test_what_is_missing_is_named(folder, encoders, tmp_path, capsys):
    weights, out = f"--weights={folder / 'run'}", f"--out={tmp_path / 'a.mp4'}"
    assert main(["generate", weights, out]) == 2
    assert "give --encoders the folder of their weights" in capsys.readouterr().err
    assert main(["generate", weights, out, f"--encoders={encoders}"]) == 2
    assert "no dataset: give --image or --video" in capsys.readouterr().err
    backwards = f"--weights={folder / 'backwards'}"
    assert main(["generate", backwards, out, f"--encoders={encoders}", f"--video={folder / 'a.png'}"]) == 2
    assert "generates videos from their end" in capsys.readouterr().err
    assert not list(tmp_path.glob("a.mp4*"))


def test_encoders_of_another_width_are_named(folder, encoders, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(PretrainedEncoders, "embed_image", lambda self, picture: np.zeros((5, 9), np.float32))
    assert generate(folder, encoders, tmp_path / "a.mp4", "--prompt=a") == 2
    assert "the image encoder makes embeddings of width 9" in capsys.readouterr().err


def test_size_by_the_picture_or_by_hand(folder, trained):
    run = read_run(folder / "run")
    assert with_size(run, None, None) is run
    auto = with_size(run, "auto", folder / "a.png")  # 64 x 80 is nearest in shape to 544 x 704
    assert (auto.height, auto.width) == (544, 704)
    assert (with_size(run, (64, 32), None).height, run.height) == (64, 32)
    with pytest.raises(InputError, match="add --image"):
        with_size(run, "auto", None)
    with pytest.raises(InputError, match="give multiples of 16"):
        with_size(run, (64, 40), None)
    with pytest.raises(InputError, match="leave --size out"):
        with_size(trained.run, (64, 48), None)


def test_every_way_in_python_embeds_the_picture_itself(folder, encoders, monkeypatch):
    """Not the first frame as the autoencoder shows it: `generate`, `start` and `next_segment` condition alike."""
    seen, read = [], []
    monkeypatch.setattr(
        PretrainedEncoders, "embed_image", lambda self, x: seen.append(x) or seeded.normal("picture", (5, 28))
    )
    model = mpjax.load(folder / "run", encoders=encoders)

    class Recorded:
        """In place of the network: what it would be conditioned on."""

        def start(self, prompt, reference, seed, segments):
            read.append(prompt)
            return np.zeros((1, 32, 48, 3), np.uint8), None

        def generate(self, state, prompt, negative):
            read.append(prompt)
            return np.zeros((36, 32, 48, 3), np.uint8), None

        def finish(self, state):
            return np.zeros((0, 32, 48, 3), np.uint8)

    model._rollout = Recorded()
    picture = np.random.default_rng(1).integers(0, 256, (32, 48, 3), np.uint8)
    model.generate("a", image=picture, seconds=0.5)
    state = model.start("a", picture)
    _, state = model.next_segment(state, "a")
    model.next_segment(state, "a")
    assert len(read) == 5 and len(seen) == 1  # embeddings are kept by what was seen
    np.testing.assert_array_equal(seen[0], picture)
    for condition in read[1:]:
        jax.tree.map(np.testing.assert_array_equal, condition, read[0])


@pytest.mark.parity
def test_with_the_real_encoders(folder, tmp_path, monkeypatch):
    """Small ones, run by transformers; the embeddings that the plan holds are those of `PretrainedEncoders`."""
    pytest.importorskip("diffusers")
    from tests.fixtures.reference_conditioning import write_encoders

    write_encoders(tmp_path / "encoders")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    pretrained.pretrained.cache_clear()
    assert generate(folder, tmp_path / "encoders", tmp_path / "a.mp4", "--prompt=A dog runs") == 0
    assert frames_of(tmp_path / "a.mp4").shape == (45, 32, 48, 3)
    request = Request(prompts=("A dog runs",), image=folder / "a.png", encoders=tmp_path / "encoders")
    plan = make_plan(read_run(folder / "run"), 0, request)
    expected = PretrainedEncoders(tmp_path / "encoders", tmp_path / "other").prompt("A dog runs")
    for name, array in expected.items():
        np.testing.assert_array_equal(getattr(plan.conditions[0], name), array)
    other = make_plan(read_run(folder / "run"), 0, dataclasses.replace(request, prompts=("A cat runs",)))
    assert other.fingerprint != plan.fingerprint
