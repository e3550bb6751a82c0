"""From the published container, by its name below `--weights`, to the golden numbers."""

import jax
import numpy as np
import pytest

from mpjax.evaluation.vbench import networks, offers, vit
from tests.evaluation.vbench import published
from tests.evaluation.vbench.golden import assert_close, golden
from tests.fixtures import vbench_cases
from tests.fixtures.torch_containers import write_legacy, write_zip


@pytest.fixture(autouse=True)
def _forget():
    """What was read is kept as long as the process lives; here that would be every network at once."""
    yield
    for kept in (
        networks.vit_params,
        networks.vit_probe,
        networks.aesthetic_probe,
        networks.musiq_probe,
    ):
        kept.cache_clear()


@pytest.mark.parametrize("write", [write_zip, write_legacy])
def test_musiq(write, tmp_path, monkeypatch):
    monkeypatch.setattr(published, "write_zip", write)
    metric = published.metric_from_files("imaging_quality", tmp_path)
    score = metric.probe(vbench_cases.frames("musiq small", 1, *vbench_cases.SIZE)[:, None])
    np.testing.assert_allclose(score, golden()["musiq.small"][1:], atol=1e-3)


@pytest.mark.parametrize(
    ("name", "video", "count", "features"),
    [
        ("background_consistency", "clip", 3, "clip_b32"),
        pytest.param("subject_consistency", "dino", 3, "dino", marks=pytest.mark.slow),
        pytest.param("long_subject_consistency_slow_fast", "dinov2", 2, "dinov2", marks=pytest.mark.slow),
    ],
)
def test_vision_transformers(name, video, count, features, tmp_path):
    metric = published.metric_from_files(name, tmp_path)
    rows = metric.probe(vbench_cases.frames(video, count, *vbench_cases.SIZE)[:, None])
    assert_close(rows, golden()[f"{features}.features"])


@pytest.mark.slow
def test_clip_l14_and_the_head(tmp_path):
    metric = published.metric_from_files("aesthetic_quality", tmp_path)
    frames = vbench_cases.frames("clip", 2, *vbench_cases.SIZE)
    scores = metric.probe(frames[:, None])
    assert scores.mean() / 10 == pytest.approx(golden()["clip_l14.score"][0], abs=1e-6)
    params = networks.vit_params(vit.CLIP_L14, offers.CLIP_L14.find(tmp_path))  # those that gave the scores
    rows = jax.jit(lambda params, images: vit.ViT(vit.CLIP_L14).apply(params, networks.clip_image(images)))(
        params, frames
    )
    assert_close(np.asarray(rows), golden()["clip_l14.features"])
