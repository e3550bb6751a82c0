"""The files of a split's records: whether all are there and whole, and which of them holds a record.

A file's own index lies at its end, so that a copy that broke off shows when the file is opened; damage in its middle
shows when a record is read.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

from array_record.python import array_record_module

from mpjax.errors import InputError

REMEDY = "copy it again, or encode the videos again"


@dataclass(frozen=True, kw_only=True)
class Shards:
    """The ArrayRecord files of a split, in the order of its records.

    Attributes:
        paths: of the files.
        lengths: how many records each is to hold.
    """

    paths: Sequence[Path]
    lengths: Sequence[int]

    def check(self) -> None:
        """Opens every file.

        Raises:
            InputError: one is missing, or ends too early.
        """
        for path, length in zip(self.paths, self.lengths, strict=True):
            if not path.is_file():
                raise InputError(f"{path}: this shard of the dataset is missing: {REMEDY}")
            if (found := _count(path)) != length:
                held = "cannot be opened" if found is None else f"has {found} records of {length}"
                raise InputError(f"{path}: this shard of the dataset is damaged, it {held}: {REMEDY}")

    def holding(self, record: int) -> Path:
        """The file that holds the record of this number."""
        ends = accumulate(self.lengths)
        return next(path for path, end in zip(self.paths, ends, strict=True) if record < end)


def _count(path: Path) -> int | None:
    """The records that a file says it has; None: it says nothing."""
    try:
        reader = array_record_module.ArrayRecordReader(str(path))
        count = reader.num_records() if reader.ok() else None
        reader.close()
    except RuntimeError:  # all that the library raises
        return None
    return count
