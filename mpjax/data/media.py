"""A video as bytes: a file of its own, or one inside an uncompressed tar, read where it lies."""

import functools
import hashlib
import io
from dataclasses import dataclass
from pathlib import Path

from mpjax.errors import InputError

BLOCK = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Media:
    """Where a video lies.

    Attributes:
        path: the file, or the tar that holds it.
        offset: its first byte in `path`.
        size: its bytes; None: up to the end of `path`.
        member: its name inside the tar, empty for a file of its own.
    """

    path: Path
    offset: int = 0
    size: int | None = None
    member: str = ""

    def __str__(self) -> str:
        return f"{self.path}:{self.member}" if self.member else str(self.path)

    def check(self) -> None:
        """Raises `InputError` where there is nothing to read."""
        # A named pipe would block for ever, so anything that is no regular file stays outside.
        if self.path.is_dir():
            raise InputError(f"{self}: a folder; give a file")
        if not self.path.is_file():
            raise InputError(f"{self}: no such file; check the path")
        if self.bytes() <= 0:
            raise InputError(f"{self}: empty file; copy it again or leave it out")

    def bytes(self) -> int:
        """Its size; 0 where it cannot be told."""
        if self.size is not None:
            return self.size
        return self.path.stat().st_size - self.offset if self.path.is_file() else 0

    def open(self) -> io.RawIOBase | io.BufferedIOBase:
        """The bytes from `offset` on, readable and seekable."""
        file = self.path.open("rb")
        return file if not self.member else _Slice(file, self.offset, self.bytes())

    def content_hash(self) -> str:
        """SHA-256 of the video's bytes in hexadecimal; a process reads a file for it again only once it has changed.

        Raises:
            InputError: it cannot be read.
        """
        self.check()
        try:
            state = self.path.stat()
            return _content_hash(self, state.st_size, state.st_mtime_ns)
        except OSError as error:
            raise InputError(f"{self}: cannot be read ({error.strerror}); check the disk") from error


@functools.lru_cache(maxsize=1 << 14)
def _content_hash(media: Media, size: int, changed: int) -> str:
    """Of a file of this size and time of change, which only tell its states apart."""
    digest = hashlib.sha256()
    with media.open() as file:
        while block := file.read(BLOCK):
            digest.update(block)
    return digest.hexdigest()


class _Slice(io.RawIOBase):
    """`size` bytes of a file from `offset` on, as a file."""

    def __init__(self, file: io.BufferedReader, offset: int, size: int):
        self._file, self._offset, self._size, self._at = file, offset, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        self._at = max(0, start + offset)
        return self._at

    def tell(self) -> int:
        return self._at

    def readinto(self, buffer) -> int:
        self._file.seek(self._offset + self._at)
        data = self._file.read(max(0, min(len(buffer), self._size - self._at)))
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)

    def close(self) -> None:
        self._file.close()
        super().close()
