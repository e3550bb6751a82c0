"""Clips with embeddings of pretrained encoders beside them: from videos to an update."""

import os
import sys
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from mpjax import experiment
from mpjax.__main__ import main
from mpjax.conditioning import pretrained
from mpjax.conditioning.pretrained import PretrainedEncoders
from mpjax.data.latents import open_dataset
from mpjax.datasets import open_datasets
from mpjax.errors import InputError
from mpjax.models.encoders import Condition
from mpjax.training.loop import train
from tests.data.media import moving
from tests.data.media import write_video as write_clip
from tests.fixtures import seeded

CONFIG = "configs/clips_tiny.py:smoke"
# One update of one small video, since all the time is compiling; the whole network is in tests/test_backbone_run.py.
SHORT = [
    "--config.training.stages=[{'steps': 1, 'curriculum': [(0, 2)]}]",
    *(f"--config.training.{field}=1" for field in ("batch_size", "validation_batches", "samples")),
    *(f"--config.model.{field}=1" for field in ("heads", "dual_blocks", "single_blocks")),
    "--config.training.segments=2",
    "--config.model.memory=None",
    "--config.sampler.steps=1",
]


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """Two captioned videos."""
    home = tmp_path_factory.mktemp("embeddings")
    (home / "videos").mkdir()
    for name in "ab":
        write_clip(home / "videos" / f"{name}.mp4", moving(30, 48, 64, seed=ord(name)), fps=12)
        (home / "videos" / f"{name}.txt").write_text(f"video {name}")
    return home


@pytest.fixture
def overrides(encoder_folder, tmp_path, monkeypatch):
    """Flags of the experiment; the encoders draw by name and count what they are asked for."""
    asked = []

    def embed(self, prompt):
        asked.append(prompt)
        return {"text": seeded.normal(prompt, (3, 64)), "pooled": seeded.normal(prompt, (64,))}

    def see(self, picture):
        asked.append(picture)
        return np.full((2, 64), picture.mean(), np.float32)

    monkeypatch.setattr(PretrainedEncoders, "embed_prompt", embed)
    monkeypatch.setattr(PretrainedEncoders, "embed_image", see)
    monkeypatch.setattr(PretrainedEncoders, "check", lambda self: None)
    flags = [
        "--config.model.encoders=None",
        f"--config.data.encoders={encoder_folder}",
        f"--config.data.path={tmp_path / 'data'}",
        "--config.data.max_segments=1",
        "--config.data.validation_fraction=0.5",
    ]
    return flags, asked


def encode(home, flags):
    return main(["encode", f"--config={CONFIG}", f"--input={home / 'videos'}", *flags])


def test_from_videos_to_an_update(home, overrides, tmp_path):
    flags, asked = overrides
    assert encode(home, flags) == 0
    prompts = [x for x in asked if isinstance(x, str)]
    pictures = [x for x in asked if not isinstance(x, str)]
    assert prompts == ["", "video a", "video b"] and len(pictures) == 4  # two windows of 13 frames each
    assert not list(Path(os.environ["XDG_CACHE_HOME"]).rglob("*.safetensors"))  # the records hold them
    loaded = experiment.load(CONFIG, [*flags, *SHORT])
    datasets = open_datasets(loaded)
    batch = datasets.train[0]
    assert isinstance(batch.prompts, Condition)
    # One copy a video, though it has two segments.
    assert batch.prompts.text.shape == (1, 1, 512, 64) and batch.prompts.image.shape == (1, 1, 2, 64)
    assert (batch.prompts.text_mask.sum(-1) == 3).all()
    dataset = open_dataset(tmp_path / "data")
    record = dataset.source("train")[0]
    expected = seeded.normal(record["caption"], (3, 64)).astype(ml_dtypes.bfloat16)
    np.testing.assert_array_equal(record["text"], expected)
    # The first frame as it was read, not as the codec shows it.
    assert any(record["image"][0, 0] == np.float32(picture.mean()).astype(ml_dtypes.bfloat16) for picture in pictures)
    np.testing.assert_array_equal(dataset.empty_prompt()["pooled"], seeded.normal("", (64,)).astype(ml_dtypes.bfloat16))
    with pytest.raises(InputError, match=r"pooled embeddings of width 64, but model\.pooled_width is 32"):
        open_datasets(experiment.load(CONFIG, [*flags, "--config.model.pooled_width=32"]))
    asked.clear()
    said: list[str] = []
    assert train(loaded, tmp_path / "run", say=said.append) == 1
    assert asked == []  # training needs no encoder
    assert "training.segments is 2, but the dataset was encoded with max_segments = 1: the rest of ev" in said[0]
    assert any("held-out loss" in line for line in said) and list((tmp_path / "run" / "samples").iterdir())
    assert main(["generate", f"--weights={tmp_path / 'run'}", f"--out={tmp_path / 'a.mp4'}"]) == 2


def test_what_does_not_fit_is_refused(home, overrides, tmp_path):
    flags, _ = overrides
    with pytest.raises(InputError, match=r"set model\.encoders to None"):
        experiment.load(CONFIG, flags[1:])
    with pytest.raises(InputError, match=r"or give data\.encoders"):
        experiment.load(CONFIG, flags[:1])
    with pytest.raises(InputError, match="leave its scale at 1"):
        experiment.load(CONFIG, [*flags, "--config.classifier_free.scale=2.0"])
    with pytest.raises(InputError, match="time_factor 4 and space_factor 8"):
        experiment.load(CONFIG, [*flags, f"--config.data.vae={tmp_path}"])
    with pytest.raises(InputError, match="no finished dataset"):
        open_datasets(experiment.load(CONFIG, flags))
    plain = [flag for flag in flags if "encoders" not in flag]
    assert encode(home, plain) == 0
    with pytest.raises(InputError, match="holds no embeddings"):
        open_datasets(experiment.load(CONFIG, flags))


def test_a_dataset_encoded_otherwise_is_refused(home, overrides, encoder_folder, capsys):
    flags, _ = overrides
    assert encode(home, flags) == 0
    assert encode(home, flags) == 0 and "finished already" in capsys.readouterr().out
    (encoder_folder / "tokenizer" / "config.json").write_text('{"other": 1}')
    pretrained.pretrained.cache_clear()
    assert encode(home, flags) == 2
    assert "already holds a dataset made with embeddings=" in capsys.readouterr().err


def test_encoders_that_cannot_run_are_found_before_any_video_is_read(home, overrides, tmp_path, monkeypatch, capsys):
    flags, _ = overrides
    monkeypatch.undo()
    monkeypatch.setitem(sys.modules, "transformers", None)
    assert encode(home, flags) == 2
    assert "need transformers and torch" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["encoders"]
