"""Records on disk: what a clip's record holds, and the TFDS builder that writes shards of them as ArrayRecord."""

import functools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import tensorflow_datasets as tfds

from mpjax.data.array_records import OfflineBuilder, prepare

EMBEDDINGS = ("text", "pooled", "image")
TEXTS = ("id", "source", "source_hash", "caption", "scores", "codec")

# Makes the records of one shard; picklable where Beam is to call it.
Shard = Callable[[], Iterable[dict[str, Any]]]


def features(channels: int, embedding_widths: Mapping[str, int]) -> tfds.features.FeaturesDict:
    """What TFDS stores of a clip. Text and Tensor features only: TFDS's image and video ones need TensorFlow.

    `id` and `source_hash` name the clip and its video by content, `source` is the video's name, `scores` what the
    filters measured, as JSON, and `codec` says what made the latents (`codecs.codec_id`). `height` and `width` are
    pixels. `latents` `[1 + n f, h, w, c]` are raw, not normalised. With encoders: `text` `[tokens, d]`, `pooled` `[d]`
    and `image` `[tokens, d]`. Arrays are bfloat16, as raw bytes.

    Args:
        channels: c.
        embedding_widths: d by the names in `EMBEDDINGS`; empty where records hold none.
    """

    def array(*shape: int | None) -> tfds.features.Tensor:
        return tfds.features.Tensor(shape=shape, dtype=ml_dtypes.bfloat16, encoding=tfds.features.Encoding.BYTES)

    shapes = {"text": (None,), "pooled": (), "image": (None,)}
    return tfds.features.FeaturesDict(
        {name: tfds.features.Text() for name in TEXTS}
        | {"fps": np.float32, "height": np.int32, "width": np.int32, "segments": np.int32}
        | {"latents": array(None, None, None, channels)}
        | {name: array(*shapes[name], width) for name, width in embedding_widths.items()}
    )


class LatentClips(OfflineBuilder, tfds.core.ShardBasedBuilder):
    """Writes records in the given order into the given shards, here or on Beam's workers."""

    VERSION = tfds.core.Version("2.0.0")
    COMPRESSED = False

    def __init__(
        self,
        *,
        stored: tfds.features.FeaturesDict,
        shards: Mapping[str, Sequence[tuple[int, Shard]]],
        **kwargs: Any,
    ):
        """`shards` has, by split, how many records a shard holds and what makes them."""
        self._stored, self._shards = stored, shards
        super().__init__(**kwargs)

    def _info(self) -> tfds.core.DatasetInfo:
        return self.described("Video clips as latents of a codec; see dataset.json beside this file.", self._stored)

    def _shard_iterators_per_split(self, dl_manager: Any) -> dict[str, list[Callable]]:
        return {split: [_Keyed(make) for _, make in shards] for split, shards in self._shards.items()}

    def _download_and_prepare(self, dl_manager: Any, download_config: Any = None) -> None:
        super()._download_and_prepare(dl_manager, download_config)
        # After a Beam pipeline TFDS has the shards' lengths in the order "0", "1", "10", "2", …
        infos = [
            info.replace(shard_lengths=[count for count, _ in self._shards[name]])
            for name, info in self.info.splits.items()
        ]
        self.info.set_splits(tfds.core.splits.SplitDict(infos))
        for leftover in Path(self.data_dir).glob("*.shard_infos.json"):
            leftover.unlink()


class _Keyed:
    """The records of a shard with the keys that TFDS wants."""

    def __init__(self, make: Shard):
        self._make = make

    def __call__(self) -> Iterator[tuple[str, dict[str, Any]]]:
        return ((record["id"], record) for record in self._make())


def write_shards(
    directory: Path,
    *,
    stored: tfds.features.FeaturesDict,
    shards: Mapping[str, Sequence[tuple[int, Shard]]],
    beam_options: Any = None,
) -> Path:
    """Writes the records of all splits under `directory`; returns the finished TFDS directory inside it.

    Args:
        directory: made where it is missing.
        stored: see `features`.
        shards: by split, in order: how many records, and what makes them.
        beam_options: see `array_records.prepare`.
    """
    make = functools.partial(LatentClips, stored=stored, shards=shards)
    return prepare(make, directory, beam_options=beam_options)
