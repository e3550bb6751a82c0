import json
import shutil

import pytest

from mpjax import codecs
from mpjax.__main__ import main
from mpjax.data import assembly, clip_batches
from mpjax.data.clip_batches import Weighted
from mpjax.data.clip_encoding import ClipEncoder
from mpjax.data.clips import encode_folder
from mpjax.data.latents import open_dataset
from mpjax.data.pipeline import read_from
from mpjax.data.shards import Shards
from mpjax.errors import InputError
from tests.data.media import moving, write_video


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A dataset of two shards of training and one of validation."""
    folder = tmp_path_factory.mktemp("shards")
    (folder / "videos").mkdir()
    for i in range(3):
        write_video(folder / "videos" / f"{i}.mp4", moving(21, 32, 48, seed=i))
    encoder = ClipEncoder(codec=codecs.create("dct", time_factor=2, space_factor=4, channels=24), segment_frames=2)
    sizes = {"fps": 12, "height": 16, "width": 24, "max_segments": 2, "progress": lambda line: None}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(assembly, "SHARD_BYTES", 10_000)
        encode_folder(folder / "videos", folder / "data", encoder=encoder, **sizes)
    return folder / "data"


def shards_of(path, split):
    return sorted(path.glob(f"*-{split}.array_record*"))


@pytest.mark.parametrize("split", ["train", "validation"])
@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda path, data: path.unlink(), "is missing"),
        (lambda path, data: path.write_bytes(b""), "is damaged"),
        (lambda path, data: path.write_bytes(data[: len(data) // 2]), "is damaged"),
        (lambda path, data: path.write_bytes(data[:-3]), "is damaged"),
    ],
)
def test_a_shard_that_is_missing_or_cut_off_is_named(whole, tmp_path, capsys, split, damage, said):
    path = shutil.copytree(whole, tmp_path / "data")
    shard = shards_of(path, split)[-1]
    damage(shard, shard.read_bytes())
    with pytest.raises(InputError, match=rf"{shard.name}: this shard.*{said}.*copy it again, or encode"):
        open_dataset(path).source(split)
    assert main(["data", "inspect", str(path)]) == 2
    assert shard.name in capsys.readouterr().err


def test_a_damaged_record_is_named_when_it_is_read(whole, tmp_path):
    path = shutil.copytree(whole, tmp_path / "data")
    _, last = shards_of(path, "train")
    data = last.read_bytes()
    last.write_bytes(data[:1000] + b"\xff" * 300 + data[1300:])
    source, count = open_dataset(path).source("train"), len(open_dataset(path).index["train"].ids)
    assert source[0]["source"]  # the other shard is whole
    with pytest.raises(InputError, match=rf"{last.name}: record \d+ of the split is damaged: copy it again"):
        [source[i] for i in range(count)]


def test_the_file_of_a_record(tmp_path):
    shards = Shards(paths=[tmp_path / name for name in "abc"], lengths=[2, 1, 3])
    assert "".join(shards.holding(i).name for i in range(6)) == "aabccc"


@pytest.mark.parametrize("name", ["dataset_info.json", "features.json"])
@pytest.mark.parametrize("content", [None, "", '{"a'])
def test_what_describes_the_shards(whole, tmp_path, name, content):
    path = shutil.copytree(whole, tmp_path / "data")
    (path / name).unlink()
    if content is not None:
        (path / name).write_text(content)
    with pytest.raises(InputError, match=r"features.json is missing or damaged: copy it again"):
        open_dataset(path).source("train")


def test_an_index_of_other_shards(whole, tmp_path):
    path = shutil.copytree(whole, tmp_path / "data")
    index = json.loads((path / "index.json").read_text())
    index["train"] = {name: column[1:] for name, column in index["train"].items()}
    (path / "index.json").write_text(json.dumps(index))
    with pytest.raises(InputError, match=r"index.json is not that of these shards: copy it again"):
        open_dataset(path).source("train")


def test_training_ends_in_the_same_sentence(whole, tmp_path):
    path = shutil.copytree(whole, tmp_path / "data")
    shard = shards_of(path, "train")[-1]
    data = shard.read_bytes()
    shard.write_bytes(data[:1000] + b"\xff" * 300 + data[1300:])
    dataset = open_dataset(path)
    batches = clip_batches.batches(
        [Weighted(dataset=dataset, weight=1.0)],
        split="train",
        segments_at=lambda step: 1,
        batch_size=2,
        segments=2,
        seed=0,
        codec=dataset.codec,
        prompt_bytes=16,
    )
    with pytest.raises(InputError, match=rf"{shard.name}: record \d+ of the split is damaged"):
        for _, _ in zip(range(9), read_from(batches, 0), strict=False):
            pass
