"""RecallWorld as files, for programs that cannot render it: a TFDS dataset of clips with their ground truth.

    from mpjax.data.recallworld.dataset import open_clips, write_clips
    write_clips(Path("data/recallworld"), World(), {"train": 10_000, "validation": 500}, segments=8)

writes ArrayRecord files and `recallworld.json`, and `open_clips(Path("data/recallworld"), "train")` reads them back, as
does `tfds.builder_from_directory`. No TensorFlow is needed for either.
"""

import dataclasses
import functools
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from mpjax.data.array_records import OfflineBuilder, prepare, quiet
from mpjax.data.filmstrip import to_uint8
from mpjax.data.recallworld.clips import SPLITS, Clip, clip_seed, sample_clip, sidecar
from mpjax.data.recallworld.render import render
from mpjax.data.recallworld.world import World
from mpjax.errors import InputError

DESCRIPTION = "recallworld.json"
DTYPES = ("uint8", "float32")


class RecallWorldClips(OfflineBuilder, tfds.core.GeneratorBasedBuilder):
    """Writes clips in the order of their numbers; clip i of a split is clip i of batch 0 of that split and seed."""

    VERSION = tfds.core.Version("1.0.0")

    def __init__(
        self,
        *,
        world: World,
        counts: Mapping[str, int],
        segments: int,
        gap: int | None,
        seed: int,
        dtype: str,
        **kwargs,
    ):
        """See `write_clips`."""
        self._world, self._counts, self._segments, self._gap = world, dict(counts), segments, gap
        self._seed, self._dtype = seed, dtype
        super().__init__(**kwargs)

    def _info(self) -> tfds.core.DatasetInfo:
        size, total = self._world.frame_size, 1 + self._segments * self._world.segment_frames
        raw = tfds.features.Encoding.BYTES
        dtype = np.dtype(self._dtype)
        return self.described(
            f"RecallWorld, scene {self._world.scene}; see {DESCRIPTION} beside this file.",
            tfds.features.FeaturesDict(
                {
                    "id": tfds.features.Text(),
                    "frames": tfds.features.Tensor(shape=(total, size, size, 3), dtype=dtype, encoding=raw),
                    "sprites": tfds.features.Tensor(shape=(None,), dtype=np.int32, encoding=raw),
                    "positions": tfds.features.Tensor(shape=(None, total, 2), dtype=np.int32, encoding=raw),
                    "visible": tfds.features.Tensor(shape=(None, total), dtype=np.uint8, encoding=raw),
                    "sidecar": tfds.features.Text(),
                }
            ),
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Iterator[tuple[str, dict[str, Any]]]]:
        return {split: self._generate_examples(split) for split in self._counts}

    def _generate_examples(self, split: str) -> Iterator[tuple[str, dict[str, Any]]]:
        for index in range(self._counts[split]):
            number = clip_seed(seed=self._seed, split=split, step=0, index=index)
            clip = sample_clip(self._world, number, self._segments, self._gap)
            name = f"{split}-{index:08d}"
            yield name, {"id": name, **_arrays(clip, self._dtype), "sidecar": json.dumps(sidecar(clip))}


class ClipSource:
    """Records by index, as Grain's `MapDataset.source` asks.

    A record is a dict: `id`; `frames` `[T, H, W, 3]`, uint8 or float32 in [-1, 1]; `sprites` int32 `[o]`, `positions`
    int32 `[o, T, 2]` and `visible` bool `[o, T]` as in `Clip`; `sidecar`, the dict of `clips.sidecar`, which has the
    prompt, the segment and the objects of every frame, and the background.
    """

    def __init__(self, records: Any):
        self._records = records

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, index: int) -> dict[str, Any]:
        record = self._records[index]
        return {
            **{name: record[name] for name in ("frames", "sprites", "positions")},
            "id": bytes(record["id"]).decode(),
            "visible": record["visible"].astype(bool),
            "sidecar": json.loads(bytes(record["sidecar"])),
        }


def write_clips(
    directory: Path,
    world: World,
    counts: Mapping[str, int],
    *,
    segments: int,
    gap: int | None = None,
    seed: int = 0,
    dtype: str = "uint8",
) -> Path:
    """Write a dataset of clips.

    Args:
        directory: new or empty.
        world: the world.
        counts: clips of each split, "train" and "validation"; the splits share none.
        segments: of every clip.
        gap: hidden segments before the return; None draws one for each clip.
        seed: 0..2^32-1.
        dtype: of the frames: "uint8", (x + 1)·127.5 rounded, or "float32" as rendered.

    Returns:
        `directory`, which then holds TFDS's files and `recallworld.json`.

    Raises:
        InputError: before anything is written: a wrong argument, or a directory that is not empty.
    """
    if dtype not in DTYPES:
        raise InputError(f"dtype is {dtype!r}: choose uint8 or float32")
    if not counts or any(split not in SPLITS or count < 1 for split, count in counts.items()):
        raise InputError(f"counts is {dict(counts)}: give one clip or more for train, validation or both")
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise InputError(f"{directory} is not an empty folder: choose another one")
    sample_clip(world, clip_seed(seed=seed, split="train", step=0, index=0), segments, gap)
    fields: dict[str, Any] = {
        "world": world,
        "counts": counts,
        "segments": segments,
        "gap": gap,
        "seed": seed,
        "dtype": dtype,
    }
    made = prepare(functools.partial(RecallWorldClips, **fields), directory)
    described = {
        **fields,
        "world": {**dataclasses.asdict(world), "reach": list(world.reach)},
        "counts": dict(counts),
        "files": str(made.relative_to(directory)),
    }
    (directory / DESCRIPTION).write_text(json.dumps(described, indent=1) + "\n")  # last: it marks a finished dataset
    return directory


def open_clips(directory: Path, split: str) -> ClipSource:
    """Random access to the clips of a split.

    Raises:
        InputError: no finished dataset, or no such split in it.
    """
    try:
        described = json.loads((directory / DESCRIPTION).read_text())
        counts, files = described["counts"], directory / described["files"]
    except (OSError, ValueError, KeyError) as error:
        raise InputError(
            f"{directory} holds no finished RecallWorld dataset: {DESCRIPTION} is missing or damaged; write it again"
        ) from error
    if split not in counts:
        raise InputError(f"{directory} has no split {split!r}; it has {', '.join(counts)}")
    with quiet():
        return ClipSource(tfds.builder_from_directory(files).as_data_source(split=split))


def _arrays(clip: Clip, dtype: str) -> dict[str, np.ndarray]:
    video = render(clip.world, [clip])[0]
    return {
        "frames": to_uint8(video) if dtype == "uint8" else video,
        "sprites": clip.sprites.astype(np.int32),
        "positions": clip.positions.astype(np.int32),
        "visible": clip.visible.astype(np.uint8),
    }
