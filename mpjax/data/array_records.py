"""What the TFDS builders share: ArrayRecord files of the same bytes for the same examples, written in silence, offline.

Neither writing nor reading needs TensorFlow.
"""

import io
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any, ClassVar

import tensorflow_datasets as tfds
from absl import logging
from array_record.python import array_record_module
from tensorflow_datasets.proto import tf_example_pb2


class OfflineBuilder:
    """Comes before one of TFDS's builders among the bases of a class.

    Attributes:
        COMPRESSED: whether records are.
    """

    COMPRESSED: ClassVar[bool] = True
    # Nothing is downloaded; the inherited look-up of checksums needs a package that TFDS does not install.
    url_infos = None

    def described(self, description: str, features: tfds.features.FeaturesDict) -> tfds.core.DatasetInfo:
        """What `_info` returns; records stay in the order in which they come."""
        return tfds.core.DatasetInfo(builder=self, description=description, features=features, disable_shuffling=True)

    def _example_writer(self) -> tfds.core.ExampleWriter:
        return OrderedWriter(compressed=self.COMPRESSED)


class OrderedWriter(tfds.core.ExampleWriter):
    """Writes the features of an example in a fixed order, which protobuf draws anew in every process."""

    def __init__(self, *, compressed: bool):
        """`compressed` costs a reader more than all else, and takes little off bfloat16 latents."""
        super().__init__(file_format=tfds.core.FileFormat.ARRAY_RECORD)
        self._options = "group_size:1" if compressed else "group_size:1,uncompressed"

    def write(self, path: Any, examples: Iterable[tuple[Any, bytes]]) -> None:
        """See `tfds.core.ExampleWriter.write`; records of a group of one are read at random."""
        writer = array_record_module.ArrayRecordWriter(str(path), self._options)
        for _, data in examples:
            writer.write(tf_example_pb2.Example.FromString(data).SerializeToString(deterministic=True))
        writer.close()


def prepare(make: Callable[..., Any], directory: Path, *, beam_options: Any = None) -> Path:
    """Writes what a builder has; returns the finished TFDS directory inside `directory`.

    Args:
        make: the builder, of TFDS's keyword arguments.
        directory: made where it is missing.
        beam_options: `PipelineOptions` of the Beam pipeline that is to write; None writes here, one after another.
    """
    config = tfds.download.DownloadConfig(try_download_gcs=False)
    if beam_options is not None:
        config = config.replace(beam_options=beam_options, beam_runner=beam_options.get_all_options()["runner"])
    with quiet():
        builder = make(data_dir=directory, file_format="array_record")
        builder.download_and_prepare(download_config=config)
    return Path(builder.data_dir)


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
