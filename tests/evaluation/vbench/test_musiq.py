import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mpjax.evaluation.vbench.musiq import MUSIQ, scales
from tests.evaluation.vbench.golden import golden, seeded_params
from tests.fixtures import vbench_cases


@pytest.mark.parametrize(("name", "size"), [("small", vbench_cases.SIZE), ("wide", vbench_cases.WIDE)])
def test_as_the_package(name, size):
    module = MUSIQ()
    params = seeded_params(module, "musiq", jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.uint8))
    frames = vbench_cases.frames(f"musiq {name}", 1, *size)
    mine = float(jax.jit(module.apply)(params, frames)[0])
    average, per_video = golden()[f"musiq.{name}"]
    assert mine == pytest.approx(float(per_video), abs=1e-3)
    assert mine / 100 == pytest.approx(float(average), abs=1e-5)


def test_places_that_a_wide_picture_leaves_empty_are_masked():
    cut, position, size, there = scales(jnp.ones((1, 64, 320, 3)))
    assert cut.shape[1] == 49 + 144 + 20
    assert there.sum() == 2 * 7 + 3 * 12 + 20  # 224 x 45, 384 x 77, 320 x 64
    assert set(size[there]) == {0, 1, 2} and not np.asarray(cut)[0, ~there].any()
    assert position[-20:].tolist() == [row * 50 + column for row in range(2) for column in range(10)]
