"""Records on disk: what a clip's record holds, and the TFDS builder that writes shards of them as ArrayRecord.

The same examples give the same bytes, and building is silent. Neither writing nor reading needs TensorFlow.
"""

import io
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import tensorflow_datasets as tfds
from absl import logging
from array_record.python import array_record_module
from tensorflow_datasets.proto import tf_example_pb2

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


class LatentClips(tfds.core.ShardBasedBuilder):
    """Writes records in the given order into the given shards, here or on Beam's workers."""

    VERSION = tfds.core.Version("2.0.0")
    # Nothing is downloaded; the inherited look-up of checksums needs a package that TFDS does not install.
    url_infos = None

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
        return tfds.core.DatasetInfo(
            builder=self,
            description="Video clips as latents of a codec; see dataset.json beside this file.",
            features=self._stored,
            disable_shuffling=True,
        )

    def _shard_iterators_per_split(self, dl_manager: Any) -> dict[str, list[Callable]]:
        return {split: [_Keyed(make) for _, make in shards] for split, shards in self._shards.items()}

    def _example_writer(self) -> tfds.core.ExampleWriter:
        return UncompressedExampleWriter(file_format=self.info.file_format)

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
        beam_options: `PipelineOptions` of the Beam pipeline that is to write; None writes here, one after another.
    """
    config = tfds.download.DownloadConfig(try_download_gcs=False)
    if beam_options is not None:
        config = config.replace(beam_options=beam_options, beam_runner=beam_options.get_all_options()["runner"])
    with quiet():
        builder = LatentClips(stored=stored, shards=shards, data_dir=directory, file_format="array_record")
        builder.download_and_prepare(download_config=config)
    return Path(builder.data_dir)


class OrderedExampleWriter(tfds.core.ExampleWriter):
    """Writes the features of an example in a fixed order, which protobuf draws anew in every process."""

    def write(self, path: Any, examples: Iterable[tuple[Any, bytes]]) -> Any:
        """See `tfds.core.ExampleWriter.write`."""
        return super().write(path, ((key, _ordered(data)) for key, data in examples))


class UncompressedExampleWriter(tfds.core.ExampleWriter):
    """Leaves out the compression, which costs a reader more than all else and takes little off bfloat16 latents."""

    def write(self, path: Any, examples: Iterable[tuple[Any, bytes]]) -> None:
        """See `tfds.core.ExampleWriter.write`; records of a group of one are read at random."""
        writer = array_record_module.ArrayRecordWriter(str(path), "group_size:1,uncompressed")
        for _, data in examples:
            writer.write(_ordered(data))
        writer.close()


def _ordered(example: bytes) -> bytes:
    return tf_example_pb2.Example.FromString(example).SerializeToString(deterministic=True)


@contextmanager
def quiet() -> Iterator[None]:
    """TFDS logs every step, prints, and draws progress bars; exceptions still come through."""
    verbosity = logging.get_verbosity()
    tfds.disable_progress_bar()
    logging.set_verbosity(logging.ERROR)
    try:
        with redirect_stdout(io.StringIO()):
            yield
    finally:
        logging.set_verbosity(verbosity)
