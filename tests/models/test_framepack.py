"""The short-term history: what it keeps, and in which order its tokens come."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mpjax.errors import InputError
from mpjax.models.architecture import FramePack
from mpjax.models.framepack import CleanEmbedder, History, empty_history, frame_indices, packed_table, push
from tests.tiny import tiny_architecture

F1 = FramePack(segment_frames=9, history_frames=(1, 2, 16))


def numbered(first, count):
    """Frames whose every value is their number, `[1, count, 4, 4, 3]`."""
    values = jnp.arange(first, first + count, dtype=jnp.float32)
    return jnp.broadcast_to(values[None, :, None, None, None], (1, count, 4, 4, 3))


def numbers(frames):
    values = np.asarray(frames)
    assert (values == values[:, :, :1, :1, :1]).all()
    return values[0, :, 0, 0, 0].astype(int).tolist()


def test_empty_history_is_zeros_and_the_reference_nearest():
    history = empty_history(numbered(100, 1), F1)
    assert numbers(history.frames) == [0] * 18 + [100]
    assert numbers(history.reference) == [100] and int(history.segments) == 0


def test_push_keeps_the_last_frames_of_the_whole_video():
    history, video = empty_history(numbered(100, 1), F1), [0] * 18 + [100]
    for n in range(4):
        history = push(history, numbered(1 + 9 * n, 9), F1)
        video += range(1 + 9 * n, 10 + 9 * n)
        assert numbers(history.frames) == video[-19:]
        assert numbers(history.reference) == [100] and int(history.segments) == n + 1


def test_a_segment_longer_than_the_reach_pushes_everything_out():
    spec = FramePack(segment_frames=9, history_frames=(1, 2, 0))
    assert numbers(push(empty_history(numbered(100, 1), spec), numbered(1, 9), spec).frames) == [7, 8, 9]


F0 = FramePack(segment_frames=9, history_frames=(1, 2, 16), rope_layout="framepack_f0")


@pytest.mark.parametrize("total", [1, 2, 4, 5, 8])
def test_f0_walks_from_the_end_with_the_paddings_of_its_demo(total):
    """The list is the one of docs/backbone.md, section 2.3; indices start 0, blanks, segment, 1x, 2x, 4x."""
    paddings = list(range(total))[::-1] if total <= 4 else [3] + [2] * (total - 3) + [1, 0]
    history, video = empty_history(numbered(100, 1), F0, total), [0] * 19
    assert numbers(history.frames) == video
    for n, padding in enumerate(paddings):
        behind, segment = (np.asarray(i) for i in frame_indices(history, F0))
        blank = 1 + 9 * padding
        np.testing.assert_array_equal(segment, np.arange(blank, blank + 9))
        np.testing.assert_array_equal(behind, np.arange(blank + 9, blank + 28))
        history = push(history, numbered(1 + 9 * n, 9), F0)
        video = [*range(1 + 9 * n, 10 + 9 * n), *video]
        assert numbers(history.frames) == video[:19]


def test_tokens_come_as_4x_2x_reference_nearest():
    """One-hot embeddings tell which rate made a token, the value tells which frames."""
    arch = tiny_architecture(framepack=FramePack(segment_frames=2, history_frames=(1, 2, 4)))
    history = History(reference=numbered(100, 1), frames=numbered(1, 7), segments=jnp.int32(0), total=jnp.int32(0))
    names = ["proj_4x", "proj_2x", "proj_1x"]
    params = {}
    for i, (name, rate) in enumerate(zip(names, (4, 2, 1), strict=True)):
        rows = 3 * rate * (2 * rate) ** 2
        kernel = np.zeros((rows, arch.width), np.float32)
        kernel[:, 0] = 1 / rows  # the mean over the patch
        bias = np.zeros(arch.width, np.float32)
        bias[1 + i] = 1
        params[name] = {"kernel": jnp.asarray(kernel), "bias": jnp.asarray(bias)}
    tokens = np.asarray(CleanEmbedder(arch).apply({"params": params}, history))[0]
    assert tokens[:, 1:4].argmax(-1).tolist() == [0] + [1] + [2] * 8
    np.testing.assert_allclose(tokens[:, 0], [2.5, 5.5] + [100] * 4 + [7] * 4, rtol=1e-5)


@pytest.mark.parametrize(("frames", "streams"), [((1, 0, 0), ["proj_1x"]), ((1, 2, 0), ["proj_1x", "proj_2x"])])
def test_a_rate_without_frames_has_no_weights_and_no_tokens(frames, streams):
    arch = tiny_architecture(framepack=FramePack(segment_frames=2, history_frames=frames))
    history = empty_history(jnp.zeros((1, 1, 4, 4, 3)), arch.framepack)
    tokens, variables = CleanEmbedder(arch).init_with_output(jax.random.key(0), history)
    assert sorted(variables["params"]) == streams
    assert packed_table(history, arch)[0].shape[0] == tokens.shape[1] + 2 * 4  # and two noisy frames


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"history_frames": (0, 2, 4)}, "history_frames"),
        ({"history_frames": (1, -1, 4)}, "history_frames"),
        ({"segment_frames": 0}, "segment_frames"),
        ({"rope_layout": "absolute"}, "rope_layout"),
    ],
)
def test_bad_fields_are_named(fields, named):
    with pytest.raises(InputError, match=named):
        FramePack(**fields)
