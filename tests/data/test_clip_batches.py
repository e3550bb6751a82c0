import json

import jax
import numpy as np
import pytest

from mpjax import codecs
from mpjax.data.batch import Batch
from mpjax.data.clip_batches import batches, cut_prompt
from mpjax.data.latents import DATASET_FILE, FORMAT, FORMAT_VERSION, open_dataset, write_records
from mpjax.errors import InputError

F, C, MEAN, STD = 2, 3, (1.0, -1.0, 0.5), (2.0, 4.0, 0.5)
LENGTHS = (3, 5, 9, 7, 3)


def latents_of(clip: int) -> np.ndarray:
    values = np.random.default_rng(clip).normal(size=(LENGTHS[clip], 2, 3, C))
    values[0] = clip  # the reference frame tells the clip
    return values.astype(np.float16)


def record_of(clip: int) -> dict:
    text = {"id": f"{clip}", "source": "s.mp4", "caption": f"clip {clip} é"}
    return text | {"fps": 12.0, "latents": latents_of(clip)}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    def records(split):
        for clip in range(len(LENGTHS)) if split == "train" else [0]:
            yield record_of(clip)

    path = write_records(
        tmp_path_factory.mktemp("d"), latent_shape=(2, 3, C), splits=("train", "validation"), records=records
    )
    codec = codecs.create("dct", time_factor=1, space_factor=1, channels=C, mean=MEAN, std=STD)
    description = {"format": FORMAT, "version": FORMAT_VERSION, "codec": codec.spec(), "fps": 12.0, "height": 2}
    splits = {"train": {"clips": len(LENGTHS)}, "validation": {"clips": 1}}
    (path / DATASET_FILE).write_text(
        json.dumps(description | {"width": 3, "segment_frames": F, "max_segments": 3, "splits": splits})
    )
    return open_dataset(path)


def make(dataset, *, split="train", batch_size=4, segments=3, seed=0, active=99, prompt_bytes=16, rows=None):
    return batches(
        dataset,
        split=split,
        batch_size=batch_size,
        segments=segments,
        seed=seed,
        segments_at=active if callable(active) else lambda step: active,
        prompt_bytes=prompt_bytes,
        rows=rows,
    )


def clips_of(batch: Batch) -> list[int]:
    return [round(float(r[0, 0, 0, 0] * STD[0] + MEAN[0])) for r in batch.reference]


def test_batch_holds_normalised_padded_clips(dataset):
    batch = make(dataset)[0]
    assert isinstance(batch, Batch)
    assert batch.reference.shape == (4, 1, 2, 3, C) and batch.reference.dtype == np.float32
    assert batch.segments.shape == (4, 3, F, 2, 3, C) and batch.segments.dtype == np.float32
    assert batch.prompts.shape == (4, 1, 16) and batch.prompts.dtype == np.int32
    assert batch.weight.shape == (4, 3) and batch.weight.dtype == np.float32
    for row, clip in enumerate(clips_of(batch)):
        expected = (latents_of(clip).astype(np.float64) - MEAN) / STD
        np.testing.assert_allclose(batch.reference[row], expected[:1], atol=1e-5)
        count = min(3, (LENGTHS[clip] - 1) // F)
        assert batch.weight[row].tolist() == [1.0] * count + [0.0] * (3 - count)
        for n in range(3):
            truth = expected[1 + n * F : 1 + (n + 1) * F] if n < count else np.zeros((F, 2, 3, C))
            np.testing.assert_allclose(batch.segments[row, n], truth, atol=1e-5)
        text = [token - 1 for token in batch.prompts_of(2)[row].tolist() if token]
        assert bytes(text).decode() == f"clip {clip} é"


def test_a_step_is_a_pure_function_of_seed_and_step(dataset):
    one, two = make(dataset), make(dataset)[6:]
    for step in (6, 8, 11):
        for a, b in zip(vars(one[step]).values(), vars(two[step - 6]).values(), strict=True):
            np.testing.assert_array_equal(a, b)
    order = [clips_of(one[step]) for step in range(10)]
    assert order != [clips_of(make(dataset, seed=1)[step]) for step in range(10)]
    iterated = iter(one[3:].to_iter_dataset())
    assert [clips_of(next(iterated)) for _ in range(4)] == order[3:7]


@pytest.mark.parametrize("hosts", [[(0, 1, 2, 3)], [(0, 1), (2, 3)], [(0, 2), (1, 3)], [(0,), (1,), (2,), (3,)]])
def test_hosts_that_read_rows_have_the_batch_of_one_together(dataset, hosts):
    """Across the borders of passes, and with the curriculum of the step."""
    whole = make(dataset, active=lambda step: 1 + step % 3)
    for step in (0, 1, 5, 11):
        parts = [make(dataset, active=lambda step: 1 + step % 3, rows=rows)[step] for rows in hosts]
        order = [row for rows in hosts for row in rows]
        joined = jax.tree.map(lambda *x: np.concatenate(x), *parts)
        for a, b in zip(jax.tree.leaves(whole[step]), jax.tree.leaves(joined), strict=True):
            np.testing.assert_array_equal(a[order], b)


def test_every_pass_shows_each_clip_once_in_a_new_order(dataset):
    shown = [clip for step in range(10) for clip in clips_of(make(dataset)[step])]
    passes = [shown[i : i + 5] for i in range(0, 40, 5)]
    assert all(sorted(p) == [0, 1, 2, 3, 4] for p in passes)
    assert len({tuple(p) for p in passes}) > 3


def test_fewer_clips_than_a_batch(dataset):
    assert clips_of(make(dataset, split="validation", batch_size=3)[5]) == [0, 0, 0]
    assert sorted(clips_of(make(dataset, batch_size=10)[0])) == sorted([0, 1, 2, 3, 4] * 2)


def test_curriculum_goes_by_step_and_survives_resuming(dataset):
    schedule = lambda step: 1 + step // 2  # noqa: E731
    full, grown = make(dataset), make(dataset, active=schedule)
    for step in range(6):
        expected = full[step].weight.copy()
        expected[:, schedule(step) :] = 0
        np.testing.assert_array_equal(grown[step].weight, expected)
        np.testing.assert_array_equal(grown[step:][0].weight, expected)
        np.testing.assert_array_equal(grown[step].segments, full[step].segments)


def test_long_captions_are_cut_between_characters(dataset):
    assert [cut_prompt("aé€", n) for n in range(7)] == ["", "a", "a", "aé", "aé", "aé", "aé€"]
    prompts = make(dataset, prompt_bytes=8)[0].prompts
    assert prompts.shape[-1] == 8 and (prompts[..., 7] == 0).all()  # "clip 0 " and half of "é"


def test_errors(dataset, tmp_path):
    with pytest.raises(InputError, match="no split 'test'; it has train, validation"):
        make(dataset, split="test")
    with pytest.raises(InputError, match="batch_size is 0"):
        make(dataset, batch_size=0)
    with pytest.raises(InputError, match="mpjax encode"):
        open_dataset(tmp_path)
    for content, message in (
        ("{", "damaged"),
        ("{}", "does not describe"),
        (json.dumps({"format": FORMAT, "version": 99}), "version 99"),
    ):
        (tmp_path / DATASET_FILE).write_text(content)
        with pytest.raises(InputError, match=message):
            open_dataset(tmp_path)


def test_no_chatter(dataset, capfd, tmp_path):
    write_records(tmp_path, latent_shape=(2, 3, C), splits=["train"], records=lambda split: [record_of(0)])
    make(dataset)[0]
    captured = capfd.readouterr()
    assert captured.out == "" and captured.err == ""
