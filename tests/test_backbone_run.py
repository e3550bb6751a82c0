"""configs/framepack_f1_13b.py from videos to a video: autoencoder, embeddings, weights to start from, both stages."""

import json

import av
import ml_dtypes
import numpy as np
import pytest
from PIL import Image

from mpjax import config
from mpjax.__main__ import main
from mpjax.conditioning.pretrained import PretrainedEncoders
from mpjax.data.latents import open_dataset
from mpjax.weights import read_run
from tests.data.media import moving, write_video
from tests.fixtures import seeded, tiny_vae
from tests.interop.checkpoints import tiny_tensors, write_checkpoint

CONFIG = f"--config={config.find('framepack_f1_13b.py')}:smoke"
LORA = f"--config={config.find('framepack_f1_lora.py')}:smoke"
CAPTIONS = {"a": "A dog runs", "b": "A dog jumps across the field"}


@pytest.fixture
def whole_run(tmp_path, monkeypatch):
    """A function (folder of encoders) → nothing: runs the commands of the config's docstring in `tmp_path`."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))

    def run(encoders):
        (tmp_path / "videos").mkdir()
        for name, caption in CAPTIONS.items():
            write_video(tmp_path / "videos" / f"{name}.mp4", moving(75, 48, 64, seed=ord(name)), fps=30)
            (tmp_path / "videos" / f"{name}.txt").write_text(caption)
        write_checkpoint(tmp_path / "f1" / "transformer", tiny_tensors())
        vae = tiny_vae.write_folder(tmp_path / "f1" / "vae")
        Image.fromarray(moving(1, 32, 48, seed=1)[0]).save("a.png")
        # The checkpoint has two blocks of a kind, where the config's smoke run has one.
        depth = [f"--config.model.{kind}_blocks=2" for kind in ("dual", "single", "refiner")]
        flags = [CONFIG, f"--config.data.vae={vae}", f"--config.data.encoders={encoders}", *depth]
        assert main(["encode", *flags, "--input=videos"]) == 0
        assert main(["train", *flags, "--run=run", "--init=f1"]) == 0
        video = ["--image=a.png", "--prompt=A dog runs", "--seconds=1.5", "--least=1", "--out=a.mp4"]
        assert main(["generate", "--weights=run", f"--encoders={encoders}", *video]) == 0

    return run


def assert_finished(folder, capsys, encoders):
    said = capsys.readouterr().out
    assert "weights of the PyTorch checkpoint f1" in said
    fresh = next(line for line in said.splitlines() if "new parameters start fresh" in line)
    rooms = {name.split("/")[0] for name in fresh.partition("fresh: ")[2].split(", ")}
    assert rooms == {"memorize", "squeeze"}
    dataset = open_dataset(folder / "runs" / "f1_clips")
    assert dataset.codec.spec()["name"] == "hunyuan_vae" and sum(dataset.counts.values()) == 2
    for split in dataset.counts:
        record = dataset.source(split)[0]
        expected = encoders.prompt(record["caption"])
        words = expected["text"][expected["text_mask"]].astype(ml_dtypes.bfloat16)
        np.testing.assert_array_equal(record["text"], words)
        np.testing.assert_array_equal(record["pooled"], expected["pooled"].astype(ml_dtypes.bfloat16))
    lines = [json.loads(line) for line in (folder / "run" / "log.jsonl").read_text().splitlines()]
    losses = [line["train/loss"] for line in lines if "train/loss" in line]
    assert len(losses) == 4 and np.isfinite(losses).all() and min(losses) > 0
    # What decodes is the autoencoder with the statistics of this dataset.
    assert read_run(folder / "run").codec == dataset.codec
    with av.open(folder / "a.mp4") as container:
        frames = np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])
    assert frames.shape == (45, 32, 48, 3) and frames.std() > 1


@pytest.fixture
def drawn_embeddings(monkeypatch):
    """Embeddings are drawn by name, so that it runs without torch."""

    def embed(self, prompt):
        return {"text": seeded.normal(prompt, (7, 24)), "pooled": seeded.normal(f"{prompt} pooled", (20,))}

    monkeypatch.setattr(PretrainedEncoders, "check", lambda self: None)
    monkeypatch.setattr(PretrainedEncoders, "embed_prompt", embed)
    monkeypatch.setattr(PretrainedEncoders, "embed_image", lambda self, x: np.full((5, 28), x.mean() / 255, np.float32))


@pytest.mark.slow
@pytest.mark.usefixtures("drawn_embeddings")
def test_from_videos_to_a_video(whole_run, encoder_folder, tmp_path, capsys):
    whole_run(encoder_folder)
    assert_finished(tmp_path, capsys, PretrainedEncoders(encoder_folder, tmp_path / "other"))


@pytest.mark.slow
@pytest.mark.usefixtures("drawn_embeddings")
def test_an_adapter_beside_converted_weights(whole_run, encoder_folder, tmp_path, capsys):
    """The commands of configs/framepack_f1_lora.py."""
    whole_run(encoder_folder)
    depth = [f"--config.model.{kind}_blocks=2" for kind in ("dual", "single", "refiner")]
    flags = [LORA, f"--config.data.vae={tmp_path / 'f1' / 'vae'}", f"--config.data.encoders={encoder_folder}", *depth]
    assert main(["convert", "--input=f1", "--output=base", "--height=32", "--width=48", "--dtype=bfloat16"]) == 0
    assert main(["train", *flags, "--run=style", "--init=base"]) == 0
    assert "that stay as they are" in capsys.readouterr().out
    video = [f"--encoders={encoder_folder}", "--image=a.png", "--prompt=A dog runs", "--seconds=1", "--least=1"]
    assert main(["generate", "--weights=base", "--lora=style:100", "--steps=2", *video, "--out=styled.mp4"]) == 0
    assert main(["generate", "--weights=base", "--steps=2", *video, "--out=plain.mp4"]) == 0
    assert main(["convert", "--weights=style", "--lora-format=musubi", "--output=style.safetensors"]) == 0
    assert (tmp_path / "styled.mp4").read_bytes() != (tmp_path / "plain.mp4").read_bytes()


@pytest.mark.parity
def test_from_videos_to_a_video_with_the_real_encoders(whole_run, tmp_path, capsys):
    """Small ones, run by transformers."""
    pytest.importorskip("diffusers")
    from tests.fixtures.reference_conditioning import write_encoders

    write_encoders(tmp_path / "encoders")
    whole_run(tmp_path / "encoders")
    assert_finished(tmp_path, capsys, PretrainedEncoders(tmp_path / "encoders", tmp_path / "other"))
