import json

import jax
import ml_dtypes
import numpy as np
import pytest

from benchmarks.synthetic_records import record, write_dataset
from mpjax.data.batch import Batch
from mpjax.data.clip_batches import Weighted, batches, cut_prompt
from mpjax.data.latents import DATASET_FILE, FORMAT, INDEX_FILE, open_dataset
from mpjax.errors import InputError
from mpjax.models.encoders import Condition

F, C, MEAN, STD = 2, 3, (1.0, -1.0, 0.5), (2.0, 4.0, 0.5)
LENGTHS = (3, 5, 9, 7, 3)


def latents_of(clip: int) -> np.ndarray:
    values = np.random.default_rng(clip).normal(size=(LENGTHS[clip], 2, 3, C))
    values[0] = clip  # the reference frame tells the clip
    return values.astype(ml_dtypes.bfloat16)


def record_of(clip: int) -> dict:
    return record(clip, latents_of(clip), segment_frames=F, caption=f"clip {clip} é")


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    splits = {"train": [record_of(clip) for clip in range(len(LENGTHS))], "validation": [record_of(0)]}
    return write_dataset(tmp_path_factory.mktemp("d"), splits, segment_frames=F, mean=MEAN, std=STD)


def make(dataset, *, split="train", batch_size=4, segments=3, seed=0, active=99, prompt_bytes=16, **options):
    return batches(
        [Weighted(dataset=dataset)],
        split=split,
        codec=dataset.codec,
        batch_size=batch_size,
        segments=segments,
        seed=seed,
        segments_at=active if callable(active) else lambda step: active,
        prompt_bytes=prompt_bytes,
        **options,
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


def test_a_damaged_index_is_named(dataset, tmp_path):
    for name in (DATASET_FILE, INDEX_FILE):
        (tmp_path / name).write_bytes((dataset.path / name).read_bytes())
    assert open_dataset(tmp_path).counts == {"train": 5, "validation": 1}
    (tmp_path / INDEX_FILE).write_text('{"train": {}}')
    with pytest.raises(InputError, match=r"index\.json is missing or damaged"):
        open_dataset(tmp_path)


def test_hosts_read_the_rows_of_the_whole_batch(dataset):
    whole = make(dataset, text_dropout=0.5)
    for step in (0, 3, 10):
        for count in (2, 4):
            hosts = [range(i, i + 4 // count) for i in range(0, 4, 4 // count)]
            parts = [make(dataset, text_dropout=0.5, rows=rows)[step] for rows in hosts]
            for name, values in vars(whole[step]).items():
                np.testing.assert_array_equal(np.concatenate([getattr(p, name) for p in parts]), values)


def test_a_host_reads_no_other_record(dataset, monkeypatch):
    asked = []
    kind = type(dataset.source("train"))
    read = kind.__getitem__
    monkeypatch.setattr(kind, "__getitem__", lambda self, i: (asked.append(i), read(self, i))[1])
    batch = make(dataset, rows=[1])[2]
    assert len(asked) == len(batch.weight) == 1


def test_dropped_prompts_are_a_share_drawn_by_seed_and_step(dataset):
    dropped = make(dataset, text_dropout=0.25, batch_size=8)
    gone = np.array([(dropped[step].prompts == 0).all((1, 2)) for step in range(200)])
    assert 0.2 < gone.mean() < 0.3
    again = make(dataset, text_dropout=0.25, batch_size=8)[150:]
    np.testing.assert_array_equal((again[0].prompts == 0).all((1, 2)), gone[150])
    plain = make(dataset, batch_size=8)
    for step in range(5):
        np.testing.assert_array_equal(dropped[step].segments, plain[step].segments)
        kept = ~gone[step]
        np.testing.assert_array_equal(dropped[step].prompts[kept], plain[step].prompts[kept])
    assert (plain[0].prompts > 0).any((1, 2)).all()


def test_embeddings_and_the_cached_empty_prompt(tmp_path):
    def values(clip: int) -> dict:
        return {"text": np.full((clip + 1, 4), clip), "pooled": np.full(5, clip), "image": np.full((2, 6), clip)}

    records = [record(clip, latents_of(clip), segment_frames=F, **values(clip)) for clip in range(5)]
    empty = {"text": np.full((3, 4), -1.0), "pooled": np.full(5, -2.0)}
    dataset = write_dataset(tmp_path, {"train": records}, segment_frames=F, empty_prompt=empty)
    seen = set()
    for step in range(10):
        batch = make(dataset, prompt_bytes=None, text_dropout=0.5)[step]
        assert isinstance(batch.prompts, Condition) and batch.prompts.text.dtype == np.float32
        for row, clip in enumerate(int(r[0, 0, 0, 0]) for r in batch.reference):
            mask, text = batch.prompts.text_mask[row, 0], batch.prompts.text[row, 0]
            dropped = bool(batch.prompts.pooled[row, 0, 0] == -2)
            seen.add(dropped)
            assert mask.sum() == (3 if dropped else clip + 1) and (text[~mask] == 0).all()
            assert (text[mask] == (-1 if dropped else clip)).all()
            assert (batch.prompts.image[row, 0] == clip).all()  # the picture is never dropped
    assert seen == {True, False}
    (dataset.path / "empty_prompt.safetensors").unlink()
    with pytest.raises(InputError, match=r"empty_prompt\.safetensors is missing or damaged"):
        make(dataset, prompt_bytes=None)


def test_a_mixture_of_datasets_and_sizes(dataset, tmp_path):
    large = [record(9, np.full((3, 4, 4, C), 9.0), segment_frames=F)] * 4
    other = write_dataset(tmp_path, {"train": large}, segment_frames=F)
    mixed = batches(
        [Weighted(dataset=dataset, weight=2.0), Weighted(dataset=other)],
        split="train",
        codec=dataset.codec,
        batch_size=2,
        segments=3,
        seed=0,
        segments_at=lambda step: 3,
        prompt_bytes=16,
    )
    shapes = [mixed[step].segments.shape[3:5] for step in range(30)]
    assert shapes.count((4, 4)) == 10 and shapes.count((2, 3)) == 20
    # The codec's normalisation is that of all, not the dataset's own, which has none here.
    step = shapes.index((4, 4))
    np.testing.assert_allclose(mixed[step].reference[0, 0, 0, 0], (9 - np.array(MEAN)) / STD, rtol=1e-6)
    with pytest.raises(InputError, match=r"has weight 0\.0: give a positive number"):
        Weighted(dataset=other, weight=0.0)


def test_no_chatter(dataset, capfd, tmp_path):
    write_dataset(tmp_path, {"train": [record_of(0)]}, segment_frames=F)
    make(dataset)[0]
    captured = capfd.readouterr()
    assert captured.out == "" and captured.err == ""
