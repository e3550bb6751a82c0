"""Arrays on disk by what they were made from: what a large encoder has read once, it need not read again."""

import hashlib
import json
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load_file, save_file

from mpjax.errors import InputError

Arrays = dict[str, np.ndarray]


def content_key(*parts: Any) -> str:
    """A hash of values that JSON holds, and of arrays, in their order."""
    digest = hashlib.sha256()
    for part in parts:
        if isinstance(part, np.ndarray):
            digest.update(f"{part.dtype} {part.shape} ".encode())
            digest.update(np.ascontiguousarray(part).tobytes())
        else:
            digest.update(json.dumps(part, sort_keys=True).encode())
    return digest.hexdigest()[:32]


class ArrayCache:
    """A folder of safetensors files named by what they were made from; several processes may share it."""

    def __init__(self, folder: Path):
        """`folder` is made when the first entry is written."""
        self._folder = folder

    def get(self, key: str, make: Callable[[], Arrays]) -> Arrays:
        """The arrays under `key`; makes and stores them where there are none, or where the file is damaged."""
        path = self._path(key)
        if path.is_file():
            try:
                return load_file(path)
            except (SafetensorError, OSError):
                pass  # made again below
        arrays = {name: np.ascontiguousarray(array) for name, array in make().items()}
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            # Of two writers of the same entry the later one wins, with the same bytes.
            partial = path.with_suffix(f".{os.getpid()}-{threading.get_ident()}.partial")
            save_file(arrays, partial)
            partial.replace(path)
        except OSError as error:
            raise InputError(
                f"{self._folder} cannot be written ({error}): make room there; XDG_CACHE_HOME moves the cache of "
                "embeddings elsewhere"
            ) from error
        return arrays

    def holds(self, key: str) -> bool:
        """Whether there is a whole file under `key`; reads its header alone."""
        try:
            with safe_open(self._path(key), "numpy"):
                return True
        except (SafetensorError, OSError):
            return False

    def read(self, key: str, *names: str) -> Arrays:
        """Some of the arrays under `key`, without reading the others.

        Raises:
            InputError: there are none, or the file is damaged.
        """
        try:
            with safe_open(self._path(key), "numpy") as file:
                return {name: file.get_tensor(name) for name in names or file.keys()}
        except (SafetensorError, OSError) as error:
            raise InputError(f"{self._path(key)} is missing or damaged: run the same command again") from error

    def _path(self, key: str) -> Path:
        return self._folder / f"{key}.safetensors"
