"""RoPE tables against FramePack-F1's printed numbers, complex arithmetic, and the identity they exist for."""

import jax.numpy as jnp
import numpy as np
import pytest

from mpjax.models.architecture import Architecture, FramePack
from mpjax.models.framepack import History, frame_indices, packed_table
from mpjax.models.rope import apply_rope, rope_table
from tests.models.numpy_network import rotate, rotations

F1 = FramePack(segment_frames=9, history_frames=(1, 2, 16), rope_layout="framepack_f1")
GLOBAL = FramePack(segment_frames=9, history_frames=(1, 2, 16), rope_layout="global")
GRID, AXES = (5, 6), (16, 56, 56)  # latents of 10 × 12


@pytest.fixture(scope="module")
def tables():
    """F1's (cos, sin) by stream, cut from the packed sequence [4x, 2x, clean 1x, noisy]."""
    arch = Architecture(framepack=F1, memory=None, encoders=None)
    frames = jnp.zeros((1, 19, 10, 12, 16))
    history = History(reference=frames[:, :1], frames=frames, segments=jnp.int32(7), total=jnp.int32(0))
    sizes = {"4x": 16, "2x": 9, "1x": 60, "noisy": 270}
    borders = np.cumsum(list(sizes.values()))[:-1]
    cos, sin = (np.split(np.asarray(part), borders) for part in packed_table(history, arch))
    assert [len(part) for part in cos] == list(sizes.values())
    return dict(zip(sizes, zip(cos, sin, strict=True), strict=True))


# (stream, token, channels, cos, sin) as the reference implementation prints them
VECTORS = [
    (
        "noisy",
        1 * 30 + 2 * 6 + 3,  # index 21 is the second noisy frame; y 2, x 3
        [0, 1, 2, 16, 17, 18, 72, 74],
        [-0.5477293, -0.5477293, -0.4755369, -0.4161468, -0.4161468, -0.0698175, -0.9899925, -0.7772037],
        [0.8366556, 0.8366556, -0.8796958, 0.9092974, 0.9092974, 0.9975598, 0.14112, 0.6292492],
    ),
    (
        "2x",
        0,
        [0, 2, 14, 16, 18],
        [0.1925767, -0.7565711, 0.990661, 0.7701511, 0.840988],
        [-0.8561923, 0.6053028, 0.1362922, 0.4207355, 0.3656873],
    ),
    ("2x", 8, [16, 72], [-0.6536436, -0.1849907], None),
    ("4x", 0, [0, 2, 14, 16, 18], [-0.3798703, 0.2681189, 0.9997711, 0.0335407, 0.2087388], None),
    ("4x", 15, [0, 16, 72], [-0.1682908, -0.6536442, 0.0493358], [0.4432899, -0.7568019, -0.9083932]),
]


@pytest.mark.parametrize(("stream", "token", "channels", "cos", "sin"), VECTORS)
def test_table_is_that_of_framepack_f1(tables, stream, token, channels, cos, sin):
    np.testing.assert_allclose(tables[stream][0][token, channels], cos, atol=2e-6)
    if sin is not None:
        np.testing.assert_allclose(tables[stream][1][token, channels], sin, atol=2e-6)


def test_clean_stream_is_reference_then_nearest_frame(tables):
    """Clean 1x tokens sit at frames 0 and 19."""
    cos, _ = tables["1x"]
    np.testing.assert_allclose(cos[0], 1, atol=0)  # frame 0, y 0, x 0
    np.testing.assert_allclose(cos[30, 0], np.cos(19.0), atol=2e-6)


@pytest.mark.parametrize("rate", [1, 2, 4])
def test_table_is_the_mean_rotation(rate):
    """Against complex exponentials in float64; frames, height and width that no rate divides."""
    frames, grid, axes = [-3, -2, 5, 6, 40, 41, 42], (5, 3), (4, 6, 6)
    cos, sin = rope_table(jnp.array(frames), grid, axes, 256.0, rate)
    want = rotations(frames, grid, axes, 256.0, rate)
    assert cos.dtype == jnp.float32
    np.testing.assert_allclose(cos, np.repeat(want.real, 2, -1), atol=5e-6)
    np.testing.assert_allclose(sin, np.repeat(want.imag, 2, -1), atol=5e-6)


def test_rotation_is_complex_multiplication():
    rng = np.random.default_rng(0)
    x, angle, size = rng.normal(size=(2, 7, 3, 8)), rng.normal(size=(5, 4)), rng.uniform(0.3, 1, (5, 4))
    factors = size * np.exp(1j * angle)
    table = tuple(jnp.asarray(np.repeat(part, 2, -1), jnp.float32) for part in (factors.real, factors.imag))
    got = np.asarray(apply_rope(jnp.asarray(x, jnp.float32), table))
    np.testing.assert_allclose(got, rotate(x, factors), atol=1e-6)
    np.testing.assert_array_equal(got[:, 5:], np.float32(x[:, 5:]))  # context is not turned
    assert apply_rope(jnp.asarray(x, jnp.bfloat16), table).dtype == jnp.bfloat16


def passed(segments, total=0):
    """A history after some segments; its frames do not matter."""
    return History(reference=None, frames=None, segments=jnp.int32(segments), total=jnp.int32(total))


@pytest.mark.parametrize("segment", [0, 1, 5])
def test_global_indices_are_those_of_the_paper(segment):
    """Segment s (0-based): noise 1+9s … 9+9s, 1x 9s, 2x 9s−2 and 9s−1, 4x 9s−18 … 9s−3."""
    history, noisy = (np.asarray(i) for i in frame_indices(passed(segment), GLOBAL))
    s = 9 * segment
    np.testing.assert_array_equal(noisy, np.arange(1 + s, 10 + s))
    np.testing.assert_array_equal(history[-1:], [s])
    np.testing.assert_array_equal(history[-3:-1], [s - 2, s - 1])
    np.testing.assert_array_equal(history[:-3], np.arange(s - 18, s - 2))


def test_f1_indices_never_move():
    for segment in (0, 4):
        history, noisy = frame_indices(passed(segment), F1)
        np.testing.assert_array_equal(history, np.arange(1, 20))
        np.testing.assert_array_equal(noisy, np.arange(20, 29))


def test_scores_depend_on_offsets_only():
    """The paper's Eq. 2: moving query and key by the same frames leaves their product, moving one does not."""
    rng = np.random.default_rng(1)
    q, k = (jnp.asarray(rng.normal(size=(1, 4, 1, 16)), jnp.float32) for _ in range(2))

    def scores(query_frame, key_frame):
        turn = lambda x, i: apply_rope(x, rope_table(jnp.array([i]), (2, 2), (8, 4, 4), 256.0))  # noqa: E731
        return np.einsum("bnhd,bmhd->nm", turn(q, query_frame), turn(k, key_frame))

    np.testing.assert_allclose(scores(3, 1), scores(103, 101), atol=2e-4)
    assert np.abs(scores(3, 1) - scores(4, 1)).max() > 0.1
