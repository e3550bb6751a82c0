import jax.numpy as jnp
import numpy as np
import pytest

from mpjax.evaluation.vbench.resize import centre_crop, interpolate_positions, matrix, resize, shorter_side
from tests.evaluation.vbench.golden import golden
from tests.fixtures import vbench_cases


@pytest.mark.parametrize("method", ["bilinear", "bicubic"])
@pytest.mark.parametrize("size", [(40, 50), (90, 131)])
@pytest.mark.parametrize("antialias", [False, True])
def test_as_torchvision(method, size, antialias):
    image = vbench_cases.frames("resize", 1, 61, 83)
    mine = np.asarray(resize(jnp.asarray(image), size, method, antialias=antialias))[0, ::3, ::3]
    np.testing.assert_allclose(mine, golden()[f"resize.{method}.{size[0]}.{antialias}"], atol=2e-3)


@pytest.mark.parametrize("method", ["bilinear", "bicubic"])
@pytest.mark.parametrize("size", [(40, 50), (90, 131)])
def test_as_pillow(method, size):
    image = vbench_cases.frames("resize", 1, 61, 83)
    mine = np.asarray(resize(jnp.asarray(image), size, method, antialias=True, uint8=True))[0, ::3, ::3]
    off = np.abs(mine - golden()[f"resize.{method}.{size[0]}.pil"])
    assert off.max() <= 1 and (off > 0).mean() < 0.01  # Pillow's weights are fixed-point numbers


def test_bicubic_is_a_minus_three_quarters_only_without_antialias():
    assert matrix(4, 8, "bicubic", False)[4, 3] == pytest.approx(-0.10546875, abs=1e-6)  # k(1.25) at a = -3/4
    inner = matrix(8, 16, "bicubic", True)[8]
    assert inner.min() == pytest.approx(-0.0703125, abs=1e-6)  # k(1.25) at a = -1/2


def test_rows_sum_to_one():
    for method in ("bilinear", "bicubic"):
        for antialias in (False, True):
            for size, new in ((7, 3), (3, 7), (5, 5)):
                np.testing.assert_allclose(matrix(size, new, method, antialias).sum(1), 1, atol=1e-6)


def test_sizes_are_cut_not_rounded_and_crops_rounded_to_even():
    assert shorter_side((480, 854, 3), 224) == (224, 398)  # 398.53
    assert shorter_side((854, 480, 3), 224) == (398, 224)
    image = jnp.arange(9.0)[None, :, None, None] * jnp.ones((1, 9, 9, 1))
    assert centre_crop(image, 4)[0, 0, 0, 0] == 2  # 2.5
    assert centre_crop(image, 2)[0, 0, 0, 0] == 4  # 3.5


def test_a_grid_of_its_own_keeps_its_positions():
    table = vbench_cases.weight("pos_embed", (196, 3), "positions")
    np.testing.assert_array_equal(interpolate_positions(jnp.asarray(table), (14, 14)), table)
    assert interpolate_positions(jnp.asarray(table), (14, 20)).shape == (280, 3)
