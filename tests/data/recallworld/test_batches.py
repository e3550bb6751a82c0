import numpy as np
import pytest

from mpjax.data.batch import Batch
from mpjax.data.recallworld.batches import batches
from mpjax.data.recallworld.clips import clip_seed, sample_clip
from mpjax.data.recallworld.render import render
from mpjax.data.recallworld.world import World
from mpjax.errors import InputError

R1 = World()
R2 = World(scene="R2", prompt_bytes=24)
D1 = World(scene="D1")


def make(world, **changes):
    arguments = {"batch_size": 3, "segments": 6, "seed": 4, "split": "train", "segments_at": lambda step: 6}
    return batches(world, **{**arguments, **changes})


def text(prompts):
    return bytes(int(b) - 1 for b in prompts if b).decode()


def equal(a, b):
    return all(np.array_equal(getattr(a, k), getattr(b, k)) for k in ("reference", "segments", "prompts", "weight"))


@pytest.mark.parametrize("world", [R1, R2, World(scene="R3"), D1, World(scene="D2")], ids=lambda w: w.scene)
def test_shapes_and_contents(world):
    batch = make(world)[5]
    assert isinstance(batch, Batch)
    assert batch.reference.shape == (3, 1, 8, 8, 3) and batch.reference.dtype == np.float32
    assert batch.segments.shape == (3, 6, 4, 8, 8, 3) and batch.segments.dtype == np.float32
    assert batch.prompts.shape == (3, 6, world.prompt_bytes) and batch.prompts.dtype == np.int32
    assert batch.weight.shape == (3, 6) and batch.weight.dtype == np.float32
    gap = None
    if world.scene[0] == "R":
        gap = next(n for n in range(6) if "returns" in text(batch.prompts[0, n])) - {"R1": 1}.get(world.scene, 2)
    for i in range(3):
        clip = sample_clip(world, clip_seed(seed=4, split="train", step=5, index=i), 6, gap)
        video = render(world, [clip])[0]
        np.testing.assert_array_equal(np.concatenate([batch.reference[i], *batch.segments[i]]), video)
        assert [text(p) for p in batch.prompts[i]] == list(clip.prompts)


def test_an_element_depends_on_seed_split_and_step_alone():
    data = make(R1)
    assert equal(data[3], make(R1)[3])
    assert not equal(data[3], data[4])
    assert not equal(data[3], make(R1, seed=5)[3])
    assert not equal(data[3], make(R1, split="validation")[3])
    resumed = iter(data[3:].to_iter_dataset())
    assert equal(next(resumed), data[3]) and equal(next(resumed), data[4])


def test_return_is_one_segment_and_carries_the_loss_as_often_as_asked():
    data = make(R1, batch_size=2, return_focus=0.7)
    on_return, gaps, others = 0, [], set()
    for step in range(300):
        batch = data[step]
        returns = {n for i in range(2) for n in range(6) if text(batch.prompts[i, n]) == "the toy returns"}
        assert len(returns) == 1
        (returned,) = returns
        gaps.append(returned - 1)
        assert (batch.weight[0] == batch.weight[1]).all() and batch.weight[0].sum() == 1
        chosen = int(batch.weight[0].argmax())
        on_return += chosen == returned
        if chosen != returned:
            others.add(chosen - returned)
    assert 0.6 < on_return / 300 < 0.8
    assert np.bincount(gaps, minlength=5).size == 5 and np.bincount(gaps).min() > 35
    assert {-1, 1, 2} <= others and 0 not in others


def test_focus_of_one_and_of_zero():
    for focus, expected in ((1.0, True), (0.0, False)):
        for step in range(20):
            batch = make(R2, return_focus=focus, batch_size=2)[step]
            chosen = int(batch.weight[0].argmax())
            assert ("returns" in text(batch.prompts[0, chosen])) is expected
            assert ("returns" in text(batch.prompts[1, chosen])) is expected


def test_curriculum_keeps_the_shape_and_bounds_gap_and_weight():
    data = make(R1, segments_at=lambda step: 2 + min(step // 10, 4), return_focus=0.5)
    for step in range(0, 60):
        valid = 2 + min(step // 10, 4)
        batch = data[step]
        assert batch.segments.shape[1] == 6
        assert (batch.weight[:, valid:] == 0).all() and batch.weight.sum() == 3
        returned = [text(p) for p in batch.prompts[0]].index("the toy returns")
        assert 1 <= returned <= valid - 1
    batch = make(D1, segments_at=lambda step: 4, given=2)[0]
    assert batch.weight.tolist() == [[0, 0, 1, 1, 0, 0]] * 3
    assert make(D1)[0].weight.tolist() == [[0, 1, 1, 1, 1, 1]] * 3


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"batch_size": 0}, "batch_size"),
        ({"return_focus": 1.5}, "return_focus"),
        ({"given": -1}, "given"),
        ({"split": "test"}, "split"),
        ({"seed": -1}, "seed"),
    ],
)
def test_wrong_arguments_are_named(changes, named):
    with pytest.raises(InputError, match=named):
        make(R1, **changes)


def test_wrong_curricula_are_named():
    for world, changes, named in (
        (R1, {"segments_at": lambda step: 7}, "segments_at"),
        (R1, {"segments_at": lambda step: 1}, "segments"),
        (D1, {"segments_at": lambda step: 2, "given": 2}, "given"),
    ):
        with pytest.raises(InputError, match=named):
            make(world, **changes)[0]
