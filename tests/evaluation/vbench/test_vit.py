import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mpjax.evaluation.vbench import vit
from mpjax.evaluation.vbench.consistency import consistency, fidelity
from mpjax.evaluation.vbench.networks import (
    clip_image,
    dino_cropped,
    dino_cropped_picture,
    dino_whole,
)
from tests.evaluation.vbench.golden import assert_close, golden, seeded_params
from tests.fixtures import vbench_cases

ONE = jax.ShapeDtypeStruct((1, 224, 224, 3), jnp.float32)


def features(config, network, images, prepare):
    """Features of a few pictures `[n, height, width, 3]`."""
    module = vit.ViT(config)
    params = seeded_params(module, network, ONE, prefix="visual." if network.startswith("clip") else "")
    return np.asarray(jax.jit(lambda params, images: module.apply(params, prepare(images)))(params, images))


def test_dino_of_a_picture_that_is_not_square():
    frames = vbench_cases.frames("dino", 3, *vbench_cases.SIZE)
    mine = features(vit.DINO_B16, "dino", frames, dino_whole)
    assert_close(mine, golden()["dino.features"])
    assert consistency(mine).mean() == pytest.approx(golden()["dino.score"][0], abs=1e-5)


def test_clip_b32():
    frames = vbench_cases.frames("clip", 3, *vbench_cases.SIZE)
    mine = features(vit.CLIP_B32, "clip_b32", frames, clip_image)
    assert_close(mine, golden()["clip_b32.features"])
    assert consistency(mine).mean() == pytest.approx(golden()["clip_b32.score"][0], abs=1e-5)


def test_formulas_from_the_packages_features():
    said = golden()
    for name in ("dino", "clip_b32"):
        assert consistency(said[f"{name}.features"]).mean() == pytest.approx(said[f"{name}.score"][0], abs=1e-6)
    for name in ("i2v_subject", "dreamsim"):
        rows = said[f"{name}.features"]
        assert fidelity(rows[:1], rows[1:]) == pytest.approx(said[f"{name}.score"][0], abs=1e-6)


@pytest.mark.slow
def test_i2v_subject():
    frames = vbench_cases.frames("dino", 3, *vbench_cases.SIZE)
    picture = vbench_cases.picture("dino image")[None]
    rows = np.concatenate(
        [
            features(vit.DINO_B16, "dino", picture, dino_cropped_picture),
            features(vit.DINO_B16, "dino", frames, dino_cropped),
        ]
    )
    reference = golden()["i2v_subject.features"]
    assert_close(rows[1:], reference[1:])
    assert fidelity(rows[:1], rows[1:]) == pytest.approx(golden()["i2v_subject.score"][0], abs=1e-4)


@pytest.mark.slow
def test_dinov2():
    frames = vbench_cases.frames("dinov2", 2, *vbench_cases.SIZE)
    mine = features(vit.DINOV2_B14, "dinov2", frames, dino_cropped)
    assert_close(mine, golden()["dinov2.features"])
    assert consistency(mine).mean() == pytest.approx(golden()["dinov2.score"][0], abs=1e-5)
