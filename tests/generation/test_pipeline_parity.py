"""Three segments end to end against diffusers 0.42.1 `HunyuanVideoFramepackPipeline`: latents and frames.

Same tiny random weights, noise and embeddings (`tests/fixtures/pipeline_case.py`), our rollout, sampler and codec.
"""

import dataclasses
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file

from mpjax import codecs
from mpjax.diffusion.guidance import UNGUIDED, ClassifierFree
from mpjax.diffusion.samplers import Euler
from mpjax.generation import rollout as module
from mpjax.generation.rollout import Rollout
from mpjax.generation.state import load_state, save_state
from mpjax.models.encoders import Condition
from mpjax.models.memorypack import Denoiser
from tests.fixtures import pipeline_case as case
from tests.fixtures import tiny_vae
from tests.fixtures.transformer_cases import ONE
from tests.models.test_transformer_parity import architecture, parameters

GOLDEN = Path(__file__).parents[1] / "fixtures" / "pipeline.safetensors"


@pytest.fixture(scope="module")
def golden():
    return load_file(GOLDEN)


@pytest.fixture(scope="module")
def codec(tmp_path_factory):
    folder = tiny_vae.write_folder(tmp_path_factory.mktemp("vae") / "vae")
    return codecs.create("hunyuan_vae", weights=str(folder), segment_frames=case.SEGMENT_FRAMES, window=6)


def embeddings(name):
    arrays = case.embeddings(name)
    one = {key: array[0] for key, array in arrays.items()}
    return Condition(text=one["text"], text_mask=one["mask"], pooled=one["pooled"], image=one["image"])


def video(codec, monkeypatch, layout="framepack_f1", classifier_free=UNGUIDED, save=None):
    """Latents `[1, 10, 4, 6, 16]` and frames uint8 `[n, 32, 48, 3]`."""
    noise = jnp.asarray(np.stack([case.noise(n) for n in range(case.SEGMENTS)]))
    monkeypatch.setattr(module, "segment_noise", lambda key, segment, shape: noise[segment])
    arch = architecture(dataclasses.replace(ONE, layout=layout))
    sampler = Euler(steps=case.STEPS, shift=case.SHIFT)
    rollout = Rollout(Denoiser(arch, case.GUIDANCE), sampler, codec, parameters(arch), classifier_free)
    shown, state = rollout.start(embeddings("prompt"), case.reference()[0], seed=0, segments=case.SEGMENTS)
    frames, latents = [shown], []
    for _ in range(case.SEGMENTS):
        negative = embeddings("negative") if classifier_free.active else None
        shown, state = rollout.generate(state, embeddings("prompt"), negative)
        frames.append(shown)
        history = np.asarray(state.video.history.frames)
        latents.append(history[:, :3] if arch.framepack.backwards else history[:, -3:])
        if save is not None:
            save_state(save, state, {})
            state, _ = load_state(save)
    frames.append(rollout.finish(state))
    latents = latents[::-1] if arch.framepack.backwards else latents
    return np.concatenate([case.reference(), *latents], 1), np.concatenate(frames)


def test_latents_and_frames(golden, codec, monkeypatch):
    latents, frames = video(codec, monkeypatch)
    np.testing.assert_allclose(latents, golden["latents"], atol=1e-4, rtol=0)
    assert frames.shape == (37, 32, 48, 3)
    expected = golden["frames"] * 255
    assert expected.shape[0] == 10 and expected.std() > 20
    np.testing.assert_allclose(frames[:: case.FRAME_STRIDE].astype(np.float32), expected, atol=1.0)


def test_with_a_negative_prompt(golden, codec, monkeypatch):
    latents, _ = video(codec, monkeypatch, classifier_free=ClassifierFree(scale=case.NEGATIVE_SCALE))
    np.testing.assert_allclose(latents, golden["latents negative"], atol=1e-4, rtol=0)
    assert np.abs(golden["latents negative"] - golden["latents"]).max() > 0.1


def test_from_the_end_to_the_beginning(golden, codec, monkeypatch, tmp_path):
    """F0, its state saved and loaded after every segment; the frames are those of its latents in their order."""
    latents, frames = video(codec, monkeypatch, "framepack_f0", save=tmp_path / "state")
    np.testing.assert_allclose(latents, golden["latents inverted"], atol=1e-4, rtol=0)
    assert np.abs(golden["latents inverted"] - golden["latents"]).max() > 0.1
    decoded, tail = [], codec.decode_start(1, 32, 48)
    for first, last in ((0, 1), (1, 4), (4, 7), (7, 10)):
        part, tail = codec.decode_stream(tail, latents[:, first:last])
        decoded.append(part)
    decoded = np.concatenate([*decoded, codec.decode_finish(tail)], 1)[0]
    np.testing.assert_allclose(frames, np.clip(decoded * 127.5 + 127.5, 0, 255), atol=1.0)


@pytest.mark.parity
def test_every_frame(codec, monkeypatch):
    pytest.importorskip("diffusers")
    from tests.fixtures import reference_pipeline

    _, frames = video(codec, monkeypatch)
    np.testing.assert_allclose(frames.astype(np.float32), reference_pipeline.run("np") * 255, atol=1.0)
