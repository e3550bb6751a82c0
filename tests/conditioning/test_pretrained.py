"""LLaMA, CLIP and SigLIP: the glue around `transformers`, against diffusers' pipeline with small random encoders."""

import hashlib
import sys

import numpy as np
import pytest

from mpjax.conditioning import pretrained
from mpjax.conditioning.pretrained import FOLDERS, TEMPLATE, PretrainedEncoders
from mpjax.errors import InputError

PROMPTS = ["", "A dog runs across the field , and jumps .", "word " * 400, "braces {0} {} stay"]


def empty_folder(path):
    for name in FOLDERS:
        (path / name).mkdir(parents=True)
        (path / name / "config.json").write_text("{}")
        (path / name / "model.safetensors").write_bytes(b"")
    return path


def test_template_to_the_letter():
    """diffusers 0.42.1 `DEFAULT_PROMPT_TEMPLATE`."""
    assert hashlib.sha256(TEMPLATE.encode()).hexdigest() == TEMPLATE_HASH


def test_a_missing_part_is_named(tmp_path):
    folder = empty_folder(tmp_path / "encoders")
    PretrainedEncoders(folder, tmp_path / "cache")
    (folder / "text_encoder_2" / "model.safetensors").rename(folder / "text_encoder_2" / "pytorch_model.bin")
    with pytest.raises(InputError, match=r"text_encoder_2 lacks config.json or \*.safetensors"):
        PretrainedEncoders(folder, tmp_path / "cache")
    (folder / "tokenizer").rename(folder / "other")
    with pytest.raises(InputError, match="has no tokenizer/"):
        PretrainedEncoders(folder, tmp_path / "cache")


def test_without_transformers_the_remedy_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    monkeypatch.setitem(sys.modules, "torch", None)
    encoders = PretrainedEncoders(empty_folder(tmp_path / "encoders"), tmp_path / "cache")
    with pytest.raises(InputError, match="pip install torch transformers"):
        encoders.prompt("a")


def test_cached_embeddings_need_no_encoder(tmp_path, monkeypatch):
    encoders = PretrainedEncoders(empty_folder(tmp_path / "encoders"), tmp_path / "cache")
    rows = np.arange(6, dtype=np.float32).reshape(2, 3)
    monkeypatch.setattr(encoders, "_embed", lambda prompt: {"text": rows, "pooled": rows[0]})
    encoders.prompt("a")
    again = PretrainedEncoders(tmp_path / "encoders", tmp_path / "cache")
    found = again.prompt("a")
    assert found["text"].shape == (512, 3) and found["text_mask"].sum() == 2
    np.testing.assert_array_equal(found["text"][:2], rows)
    assert not found["text"][2:].any()
    # Other weights under the same name are other encoders.
    (tmp_path / "encoders" / "text_encoder" / "model.safetensors").write_bytes(b"x")
    assert PretrainedEncoders(tmp_path / "encoders", tmp_path / "cache").identity != encoders.identity


def test_a_picture_of_another_type_is_refused(tmp_path):
    encoders = PretrainedEncoders(empty_folder(tmp_path / "encoders"), tmp_path / "cache")
    with pytest.raises(InputError, match=r"image is float64 \[4, 4, 3\]"):
        encoders.image(np.zeros((4, 4, 3)))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    pytest.importorskip("diffusers")
    from tests.fixtures.reference_conditioning import write_encoders

    path = tmp_path_factory.mktemp("encoders")
    write_encoders(path)
    return path


@pytest.mark.parity
@pytest.mark.parametrize("prompt", PROMPTS)
def test_prompts(folder, tmp_path, prompt):
    from tests.fixtures.reference_conditioning import encode_prompt

    found = PretrainedEncoders(folder, tmp_path).prompt(prompt)
    text, mask, pooled = encode_prompt(folder, prompt)
    valid = int(mask.sum())
    assert found["text_mask"].sum() == valid and found["text_mask"][:valid].all()
    np.testing.assert_allclose(found["text"][:valid], text[:valid], atol=1e-5)
    assert not found["text"][valid:].any() and np.abs(text[:valid]).max() > 0.1
    np.testing.assert_allclose(found["pooled"], pooled, atol=1e-5)


@pytest.mark.parity
def test_pictures(folder, tmp_path):
    from tests.fixtures.reference_conditioning import encode_image

    picture = np.random.default_rng(0).integers(0, 256, (48, 80, 3), np.uint8)
    found = PretrainedEncoders(folder, tmp_path).image(picture)
    np.testing.assert_allclose(found, encode_image(folder, picture), atol=1e-5)


@pytest.mark.parity
def test_the_template_is_diffusers(folder):
    from diffusers.pipelines.hunyuan_video.pipeline_hunyuan_video import DEFAULT_PROMPT_TEMPLATE

    assert DEFAULT_PROMPT_TEMPLATE == {"template": TEMPLATE, "crop_start": pretrained.TEMPLATE_TOKENS}


TEMPLATE_HASH = "a52f68dde3637b127592fffe9e2483a5d0563987a49db6ddb9b06146f2ba7cb5"
