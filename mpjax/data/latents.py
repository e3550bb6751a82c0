"""A finished dataset of latent clips: what it says of itself, and its records by index.

A dataset is one directory. TFDS writes `dataset_info.json`, `features.json` and ArrayRecord shards; beside them lie

    dataset.json             codec and its normalisation, sizes, counts, settings
    index.json               of every record, in the order of the shards: id, height, width, segments, psnr; by split
    empty_prompt.safetensors the embeddings of the empty prompt, where records hold embeddings
    encode_report.json       what became of every video
    clips.jsonl              the clips it was made of

Records are sorted by picture size and number of segments, so every bucket is one range of indices. No TensorFlow is
needed to write or to read.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from safetensors.numpy import load_file

from mpjax import codecs
from mpjax.conditioning.cache import Arrays
from mpjax.data.array_records import quiet
from mpjax.data.records import TEXTS
from mpjax.data.shards import REMEDY, Shards
from mpjax.errors import InputError

DATASET_FILE = "dataset.json"
INDEX_FILE = "index.json"
EMPTY_PROMPT_FILE = "empty_prompt.safetensors"
FORMAT = "mpjax latent clips"
FORMAT_VERSION = 2


@dataclass(frozen=True, kw_only=True)
class Index:
    """The sidecar index of a split: a column each, in the order of the records.

    Attributes:
        ids: names of the clips.
        height, width: pixels, int32 `[n]`.
        segments: whole segments after the first frame, int32 `[n]`.
        psnr: of the codec's reconstruction in dB, float64 `[n]`.
    """

    ids: tuple[str, ...]
    height: np.ndarray
    width: np.ndarray
    segments: np.ndarray
    psnr: np.ndarray

    def __len__(self) -> int:
        return len(self.ids)

    def sizes(self) -> list[tuple[int, int]]:
        """The picture sizes (height, width) that occur, in rising order."""
        return sorted(set(zip(self.height.tolist(), self.width.tolist(), strict=True)))


@dataclass(frozen=True, kw_only=True)
class LatentDataset:
    """A finished dataset.

    Attributes:
        path: its directory.
        codec: the codec of its latents, with the normalisation measured on the train split.
        codec_id: what that codec does, by content (`codecs.codec_id`).
        fps: pixel frames per second.
        segment_frames: latent frames f of a segment.
        max_segments: segments of a clip at most.
        embedding_widths: of `text`, `pooled` and `image`; empty where records hold none.
        index: by split, for the splits that have clips.
    """

    path: Path
    codec: codecs.Codec
    codec_id: str
    fps: float
    segment_frames: int
    max_segments: int
    embedding_widths: Mapping[str, int]
    index: Mapping[str, Index]

    @property
    def counts(self) -> dict[str, int]:
        """Clips of each split."""
        return {split: len(index) for split, index in self.index.items()}

    def sizes(self) -> list[tuple[int, int]]:
        """The picture sizes (height, width) in pixels that occur in any split, in rising order."""
        return sorted({size for index in self.index.values() for size in index.sizes()})

    def source(self, split: str) -> "LatentSource":
        """Random access to the records of a split.

        Raises:
            InputError: the dataset has no such split, or a file of it is missing or damaged.
        """
        if split not in self.index:
            raise InputError(f"{self.path}: no split {split!r}; it has {', '.join(self.index)}")
        with quiet():
            try:
                builder = tfds.builder_from_directory(self.path)
                info = builder.info.splits[split]
            except Exception as error:  # of TFDS, protobuf, json and the file system
                raise InputError(
                    f"{self.path}: dataset_info.json or features.json is missing or damaged: {REMEDY}"
                ) from error
            shards = Shards(paths=[Path(path) for path in info.filepaths], lengths=info.shard_lengths)
            shards.check()
            if sum(shards.lengths) != len(self.index[split]):
                raise InputError(f"{self.path}: {INDEX_FILE} is not that of these shards: {REMEDY}")
            return LatentSource(builder.as_data_source(split=split), shards)

    def empty_prompt(self) -> Arrays:
        """The embeddings `text` `[n, d]` and `pooled` `[d]` of the empty prompt, bfloat16.

        Raises:
            InputError: records hold no embeddings, or the file is damaged.
        """
        try:
            return load_file(self.path / EMPTY_PROMPT_FILE)
        except Exception as error:  # safetensors and the file system raise errors of their own
            raise InputError(
                f"{self.path}: {EMPTY_PROMPT_FILE} is missing or damaged; encode the videos again, with data.encoders"
            ) from error


class LatentSource:
    """Records by index: `len(source)` and `source[i]`, from any number of threads.

    A record is a dict as `records.features` describes it: texts are str, `scores` a dict, `fps` a float, sizes int,
    arrays bfloat16. A damaged record raises `InputError`, which names its file.
    """

    def __init__(self, records: Any, shards: Shards):
        """`records` is TFDS's source, `shards` the files that it reads."""
        self._records, self._shards = records, shards

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, index: int) -> dict[str, Any]:
        try:
            record = dict(self._records[int(index)])
        except RuntimeError as error:  # a hash does not match
            path = self._shards.holding(int(index))
            raise InputError(f"{path}: record {int(index)} of the split is damaged: {REMEDY}") from error
        for name in TEXTS:
            record[name] = bytes(record[name]).decode("utf-8")
        for name in ("height", "width", "segments"):
            record[name] = int(record[name])
        return record | {"fps": float(record["fps"]), "scores": json.loads(record["scores"])}


def open_dataset(path: Path) -> LatentDataset:
    """Open a dataset that `mpjax encode` has finished.

    Raises:
        InputError: the directory holds no finished dataset, or one of another format.
    """
    description = read_description(path)
    return LatentDataset(
        path=path,
        codec=codecs.from_spec(description["codec"]),
        codec_id=description["codec_id"],
        fps=description["fps"],
        segment_frames=description["segment_frames"],
        max_segments=description["max_segments"],
        embedding_widths=description["embedding_widths"],
        index=_read_index(path),
    )


def read_description(path: Path) -> dict[str, Any]:
    """The contents of `dataset.json`.

    Raises:
        InputError: as `open_dataset`.
    """
    try:
        description = json.loads((path / DATASET_FILE).read_text())
    except (OSError, ValueError) as error:
        raise InputError(
            f"{path}: no finished dataset, {DATASET_FILE} is missing or damaged; "
            "write one with `python -m mpjax encode`"
        ) from error
    if not isinstance(description, dict) or description.get("format") != FORMAT:
        raise InputError(
            f"{path}: {DATASET_FILE} does not describe a dataset of latent clips; choose another directory"
        )
    if description.get("version") != FORMAT_VERSION:
        raise InputError(
            f"{path}: the dataset has format version {description.get('version')}, "
            f"this program reads {FORMAT_VERSION}; encode the videos again"
        )
    return description


def _read_index(path: Path) -> dict[str, Index]:
    try:
        stored = json.loads((path / INDEX_FILE).read_text())
        return {
            split: Index(
                ids=tuple(columns["id"]),
                psnr=np.array(columns["psnr"], np.float64),
                **{name: np.array(columns[name], np.int32) for name in ("height", "width", "segments")},
            )
            for split, columns in stored.items()
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{path}: {INDEX_FILE} is missing or damaged; encode the videos again") from error
