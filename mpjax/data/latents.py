"""Datasets of latent clips: the record, the TFDS builder that writes it as ArrayRecord, and the way back in.

A dataset is one directory: TFDS's own files (`dataset_info.json`, `features.json`, ArrayRecord shards) and, beside
them, `dataset.json` with what TFDS does not know: the codec and its normalisation, sizes, hashes, reconstruction error.
No TensorFlow is needed to write or to read.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from mpjax import codecs
from mpjax.data.records import OrderedExampleWriter, quiet
from mpjax.errors import InputError

DATASET_FILE = "dataset.json"
FORMAT = "mpjax latent clips"
FORMAT_VERSION = 1


@dataclass(frozen=True, kw_only=True)
class LatentDataset:
    """A finished dataset.

    Attributes:
        path: its directory.
        codec: the codec of its latents, with the normalisation measured on the train split.
        fps: pixel frames per second.
        height: pixel rows.
        width: pixel columns.
        segment_frames: latent frames f of a segment.
        max_segments: segments of a clip at most.
        counts: clips per split, for the splits that have any.
    """

    path: Path
    codec: codecs.Codec
    fps: float
    height: int
    width: int
    segment_frames: int
    max_segments: int
    counts: Mapping[str, int]

    def source(self, split: str) -> "LatentSource":
        """Random access to the records of a split.

        Raises:
            InputError: the dataset has no such split.
        """
        if split not in self.counts:
            raise InputError(f"{self.path}: no split {split!r}; it has {', '.join(self.counts)}")
        with quiet():
            return LatentSource(tfds.builder_from_directory(self.path).as_data_source(split=split))


class LatentSource:
    """Records by index: `len(source)` and `source[i]`, as Grain's `MapDataset.source` asks.

    A record is a dict: `id`, `source` (file name), `caption` (str), `fps` (float) and `latents`, float16
    `[1 + n f, h, w, c]`, raw (not normalised): one reference frame and n segments of f frames.
    """

    def __init__(self, records: Any):
        self._records = records

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, index: int) -> dict[str, Any]:
        record = self._records[index]
        texts = {key: bytes(record[key]).decode("utf-8") for key in ("id", "source", "caption")}
        return texts | {"fps": float(record["fps"]), "latents": record["latents"]}


def open_dataset(path: Path) -> LatentDataset:
    """Open a dataset that `mpjax encode` has finished.

    Raises:
        InputError: the directory holds no finished dataset, or one of another format.
    """
    description = read_description(path)
    return LatentDataset(
        path=path,
        codec=codecs.from_spec(description["codec"]),
        fps=description["fps"],
        height=description["height"],
        width=description["width"],
        segment_frames=description["segment_frames"],
        max_segments=description["max_segments"],
        counts={split: content["clips"] for split, content in description["splits"].items()},
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


class LatentClips(tfds.core.GeneratorBasedBuilder):
    """Writes records in the given order. Text and Tensor features only: TFDS's image and video ones need TensorFlow."""

    VERSION = tfds.core.Version("1.0.0")
    # Nothing is downloaded; the inherited look-up of checksums needs a package that TFDS does not install.
    url_infos = None

    def __init__(
        self,
        *,
        latent_shape: tuple[int, int, int],
        splits: Sequence[str],
        records: Callable[[str], Iterator[dict[str, Any]]],
        **kwargs: Any,
    ):
        """`latent_shape` is `[h, w, c]`; `records(split)` yields records as `LatentSource` will return them."""
        self._latent_shape, self._splits, self._records = latent_shape, splits, records
        super().__init__(**kwargs)

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description="Video clips as latents of a codec; see dataset.json beside this file.",
            features=tfds.features.FeaturesDict(
                {
                    "id": tfds.features.Text(),
                    "source": tfds.features.Text(),
                    "caption": tfds.features.Text(),
                    "fps": np.float32,
                    # As raw bytes: the default encoding widens float16 to float32.
                    "latents": tfds.features.Tensor(
                        shape=(None, *self._latent_shape), dtype=np.float16, encoding=tfds.features.Encoding.BYTES
                    ),
                }
            ),
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Iterator[tuple[str, dict[str, Any]]]]:
        return {split: self._generate_examples(split) for split in self._splits}

    def _example_writer(self) -> tfds.core.ExampleWriter:
        return OrderedExampleWriter(file_format=self.info.file_format)

    def _generate_examples(self, split: str) -> Iterator[tuple[str, dict[str, Any]]]:
        return ((record["id"], record) for record in self._records(split))


def write_records(
    directory: Path,
    *,
    latent_shape: tuple[int, int, int],
    splits: Sequence[str],
    records: Callable[[str], Iterator[dict[str, Any]]],
) -> Path:
    """Write the records of all splits under `directory`; returns the finished TFDS directory inside it."""
    with quiet():
        builder = LatentClips(
            latent_shape=latent_shape, splits=splits, records=records, data_dir=directory, file_format="array_record"
        )
        builder.download_and_prepare(download_config=tfds.download.DownloadConfig(try_download_gcs=False))
    return Path(builder.data_dir)
