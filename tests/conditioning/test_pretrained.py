"""LLaMA, CLIP and SigLIP: the glue around `transformers`, against diffusers' pipeline with small random encoders."""

import hashlib
import pickle
import shutil
import sys

import numpy as np
import pytest
from safetensors.numpy import save_file

from mpjax.conditioning import pretrained
from mpjax.conditioning.pretrained import FOLDERS, MODELS, TEMPLATE, PretrainedEncoders
from mpjax.errors import InputError

PROMPTS = ["", "A dog runs across the field , and jumps .", "word " * 400, "braces {0} {} stay"]


def test_template_to_the_letter():
    """diffusers 0.42.1 `DEFAULT_PROMPT_TEMPLATE`."""
    assert hashlib.sha256(TEMPLATE.encode()).hexdigest() == TEMPLATE_HASH


def test_a_missing_part_is_named(encoder_folder, tmp_path):
    folder = encoder_folder
    PretrainedEncoders(folder, tmp_path / "cache")
    (folder / "text_encoder_2" / "model.safetensors").rename(folder / "text_encoder_2" / "pytorch_model.bin")
    with pytest.raises(InputError, match=r"text_encoder_2 lacks config.json or \*.safetensors"):
        PretrainedEncoders(folder, tmp_path / "cache")
    (folder / "tokenizer").rename(folder / "other")
    with pytest.raises(InputError, match="has no tokenizer/"):
        PretrainedEncoders(folder, tmp_path / "cache")


def test_without_transformers_the_remedy_is_named(encoder_folder, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    monkeypatch.setitem(sys.modules, "torch", None)
    encoders = PretrainedEncoders(encoder_folder, tmp_path / "cache")
    for call in (encoders.check, lambda: encoders.prompt("a")):
        with pytest.raises(InputError, match="pip install torch transformers"):
            call()


class Transformers:
    """In place of the library: loads anything, but fails on one folder or lacks a tensor of it."""

    def __init__(self, error=None, folder="", missing=()):
        self.error, self.folder, self.missing = error, folder, missing
        self.AutoTokenizer = self.AutoConfig = self.LlamaModel = self

    def from_pretrained(self, folder, *, output_loading_info=False, **_):
        if self.error is not None and folder.name == self.folder:
            raise self.error
        return (self, {"missing_keys": set(self.missing)}) if output_loading_info else self

    def eval(self):
        return self


@pytest.mark.parametrize("name", FOLDERS)
def test_damage_is_one_sentence_that_names_the_folder(encoder_folder, tmp_path, monkeypatch, name):
    for model in MODELS:
        save_file({"a": np.zeros(3, np.float32)}, encoder_folder / model / "model.safetensors")
    encoders = PretrainedEncoders(encoder_folder, tmp_path / "cache")
    use = lambda **fields: monkeypatch.setattr(pretrained, "_libraries", lambda: (None, Transformers(**fields)))  # noqa: E731
    use()
    encoders.check()
    use(error=Exception("no such thing:\n  and a report\n"), folder=name)
    with pytest.raises(InputError, match=rf"encoders/{name} cannot be read \(no such thing\): copy it again$"):
        encoders.check()
    use()
    if name in MODELS:  # the last bytes of a file did not arrive
        path = encoder_folder / name / "model.safetensors"
        path.write_bytes(path.read_bytes()[:-1])
        with pytest.raises(InputError, match=rf"encoders/{name} cannot be read \(.*\): copy it again$"):
            encoders.check()


def test_a_tensor_that_transformers_would_draw_is_missed(encoder_folder, tmp_path, monkeypatch):
    encoders = PretrainedEncoders(encoder_folder, tmp_path / "cache")
    lacking = Transformers(missing=["norm.weight", "layers.1.up"])
    monkeypatch.setattr(pretrained, "_libraries", lambda: (None, lacking))
    with pytest.raises(InputError, match=r"text_encoder lacks 2 tensors of LlamaModel, such as layers\.1\.up: copy"):
        _ = encoders._llama


def test_cached_embeddings_need_no_encoder(encoder_folder, tmp_path, monkeypatch):
    encoders = PretrainedEncoders(encoder_folder, tmp_path / "cache")
    rows = np.arange(6, dtype=np.float32).reshape(2, 3)
    monkeypatch.setattr(encoders, "embed_prompt", lambda prompt: {"text": rows, "pooled": rows[0]})
    encoders.prompt("a")
    again = PretrainedEncoders(encoder_folder, tmp_path / "cache")
    found = again.prompt("a")
    assert found["text"].shape == (512, 3) and found["text_mask"].sum() == 2
    np.testing.assert_array_equal(found["text"][:2], rows)
    assert not found["text"][2:].any()
    # Other weights under the same name are other encoders.
    (encoder_folder / "text_encoder" / "model.safetensors").write_bytes(b"x")
    assert PretrainedEncoders(encoder_folder, tmp_path / "cache").identity != encoders.identity


def test_a_picture_of_another_type_is_refused(encoder_folder, tmp_path):
    encoders = PretrainedEncoders(encoder_folder, tmp_path / "cache")
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


@pytest.mark.parity
@pytest.mark.parametrize(
    ("file", "damage", "words"),
    [
        ("tokenizer/tokenizer.json", lambda b: b[:50], "tokenizer cannot be read"),
        ("tokenizer_2/tokenizer_config.json", lambda b: b[:50], "tokenizer_2 cannot be read"),
        ("text_encoder/config.json", lambda b: b[:-5], "text_encoder cannot be read"),
        ("text_encoder_2/model.safetensors", lambda b: b[:-50], "text_encoder_2 cannot be read"),
        ("image_encoder/model.safetensors", lambda b: b[:5], "image_encoder cannot be read"),
    ],
)
def test_damage_is_found_before_anything_is_loaded(folder, tmp_path, file, damage, words):
    copy = shutil.copytree(folder, tmp_path / "encoders")
    encoders = PretrainedEncoders(copy, tmp_path / "cache")
    encoders.check()
    (copy / file).write_bytes(damage((copy / file).read_bytes()))
    with pytest.raises(InputError, match=rf"{words} \(.*\): copy it again$") as caught:
        encoders.check()
    assert "\n" not in str(caught.value)


@pytest.mark.parity
@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('"num_hidden_layers": 4', '"num_hidden_layers": 5', "text_encoder lacks 9 tensors of LlamaModel, such as lay"),
        ('"hidden_size": 24', '"hidden_size": 32', "text_encoder cannot be read"),
    ],
)
def test_weights_that_do_not_fill_the_network_are_refused(folder, tmp_path, old, new, words):
    copy = shutil.copytree(folder, tmp_path / "encoders")
    path = copy / "text_encoder" / "config.json"
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(InputError, match=words) as caught:
        PretrainedEncoders(copy, tmp_path / "cache").prompt("a dog")
    assert "\n" not in str(caught.value)


TEMPLATE_HASH = "a52f68dde3637b127592fffe9e2483a5d0563987a49db6ddb9b06146f2ba7cb5"


def test_another_process_gets_the_folder_and_loads_its_own(encoder_folder):
    encoders = pretrained.pretrained(encoder_folder)
    encoders.__dict__["_llama"] = object()  # loaded weights stay behind
    data = pickle.dumps(encoders)
    assert len(data) < 500 and pickle.loads(data) is encoders
