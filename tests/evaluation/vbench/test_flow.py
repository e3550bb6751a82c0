import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mpjax.evaluation.vbench.amt import AMT, predict_middle
from mpjax.evaluation.vbench.dynamic import longest_flow
from mpjax.evaluation.vbench.flow_layers import correlation_pyramid, look_up, pad_to, warp
from mpjax.evaluation.vbench.raft import RAFT
from tests.evaluation.vbench.golden import golden, params_from_file
from tests.fixtures import vbench_cases

SMALL = jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.float32)


def test_raft_as_the_package(tmp_path):
    module = RAFT()
    params = params_from_file(tmp_path / "raft-things.pth", module, "raft", SMALL, SMALL, prefix="module.")
    frames = vbench_cases.frames("raft", 3, *vbench_cases.FLOW_SIZE)
    flow = np.asarray(jax.jit(module.apply)(params, frames[:-1], frames[1:]))
    reference = golden()["raft.flow"]
    assert np.abs(reference).max() > 1
    np.testing.assert_allclose(flow[:, ::4, ::4], reference, atol=1e-3, rtol=0)  # pixels
    np.testing.assert_allclose(longest_flow(flow), golden()["raft.scores"], rtol=1e-3)


def test_amt_as_the_package(tmp_path):
    module = AMT()
    params = params_from_file(tmp_path / "amt-s.pth", module, "amt", SMALL, SMALL, within="state_dict")
    frames = vbench_cases.frames("amt", 6, *vbench_cases.AMT_SIZE)
    padded, _ = pad_to(jnp.asarray(frames[[0, 2]], jnp.float32) / 255, 16)
    image, flow = (np.asarray(each[0]) for each in jax.jit(module.apply)(params, padded[:1], padded[1:]))
    said = golden()
    assert np.abs(said["amt.flow"]).max() > 1
    np.testing.assert_allclose(flow[::4, ::4, 0], said["amt.flow"], atol=1e-3, rtol=0)
    np.testing.assert_allclose(image[::4, ::4], said["amt.image"], atol=1e-3, rtol=0)
    predicted = jax.jit(lambda a, b: predict_middle(lambda *x: module.apply(params, *x), a, b))(
        frames[:3:2], frames[2::2]
    )
    score = 1 - np.abs(np.asarray(predicted) - frames[1:4:2]).mean() / 255
    assert score == pytest.approx(float(said["amt.score"][0]), abs=1e-3)


def test_the_middle_is_cut_to_whole_numbers_and_padded_with_its_edge():
    frames = np.random.default_rng(0).integers(0, 255, (1, 18, 30, 3), np.uint8)
    seen = []

    def almost_one_more(first, second):
        seen.append(np.asarray(first))
        return first + 0.9 / 255, first

    np.testing.assert_array_equal(predict_middle(almost_one_more, frames, frames), frames)
    assert seen[0].shape == (1, 32, 32, 3)
    rows, columns = np.clip(np.arange(32) - 7, 0, 17), np.clip(np.arange(32) - 1, 0, 29)
    np.testing.assert_allclose(seen[0][0] * 255, frames[0][rows][:, columns], atol=1e-4)


def test_a_look_up_is_a_bilinear_sample_of_the_correlations():
    random = np.random.default_rng(0)
    first, second = random.normal(size=(2, 1, 4, 5, 3))
    pyramid = correlation_pyramid(jnp.asarray(first), jnp.asarray(second), 2, 1)
    centres = random.uniform(-4, 8, (1, 4, 5, 2))
    found = np.asarray(look_up(pyramid, jnp.asarray(centres), 1)).reshape(4, 5, 2, 3, 3)
    for level in range(2):
        target = second[0] if level == 0 else second[0, :, :4].reshape(2, 2, 2, 2, 3).mean((1, 3))
        for y in range(4):
            for x in range(5):
                plane = np.pad(target @ first[0, y, x] / np.sqrt(3), 20)
                for i in range(3):
                    for j in range(3):
                        u, v = centres[0, y, x] / 2**level + (i - 1, j - 1) + np.array([20, 20])
                        u0, v0 = int(np.floor(u)), int(np.floor(v))
                        fu, fv = u - u0, v - v0
                        expected = (plane[v0, u0] * (1 - fu) + plane[v0, u0 + 1] * fu) * (1 - fv) + (
                            plane[v0 + 1, u0] * (1 - fu) + plane[v0 + 1, u0 + 1] * fu
                        ) * fv
                        assert found[y, x, level, i, j] == pytest.approx(expected, abs=1e-5)


def test_a_look_up_far_outside_is_zero():
    pyramid = correlation_pyramid(jnp.ones((1, 4, 4, 2)), jnp.ones((1, 4, 4, 2)), 1, 1)
    for far in (1e3, -1e3, 1e12):
        assert not np.asarray(look_up(pyramid, jnp.full((1, 4, 4, 2), far), 1)).any()


def test_warping_by_whole_pixels_shifts():
    image = jnp.arange(20.0).reshape(1, 4, 5, 1)
    moved = np.asarray(warp(image, jnp.broadcast_to(jnp.array([1.0, 2.0]), (1, 4, 5, 2))))[0, ..., 0]
    expected = np.asarray(image)[0, ..., 0][np.minimum(np.arange(4) + 2, 3)][:, np.minimum(np.arange(5) + 1, 4)]
    np.testing.assert_allclose(moved, expected)


def test_longest_flow_is_the_mean_of_the_longest_twentieth():
    flow = np.zeros((1, 10, 20, 2), np.float32)
    flow[0, 0, :10] = (3, 4)
    assert longest_flow(flow)[0] == 5
    flow[0, 0, 9] = 0
    assert longest_flow(flow)[0] == pytest.approx(4.5)
