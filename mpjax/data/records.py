"""What every TFDS builder here shares: the same examples give the same bytes, and building is silent."""

import io
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, redirect_stdout
from typing import Any

import tensorflow_datasets as tfds
from absl import logging
from tensorflow_datasets.proto import tf_example_pb2


class OrderedExampleWriter(tfds.core.ExampleWriter):
    """Writes the features of an example in a fixed order, which protobuf draws anew in every process."""

    def write(self, path: Any, examples: Iterable[tuple[Any, bytes]]) -> Any:
        """See `tfds.core.ExampleWriter.write`."""
        return super().write(path, ((key, _ordered(data)) for key, data in examples))


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
