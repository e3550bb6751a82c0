"""Compiled programs kept on disk, so that the next start of the same program does not compile it again."""

import os
from pathlib import Path

import jax


def keep_compiled(folder: Path) -> None:
    """Keeps what takes a second or more to compile in `folder`, unless `JAX_COMPILATION_CACHE_DIR` names a place."""
    if not os.environ.get("JAX_COMPILATION_CACHE_DIR"):
        jax.config.update("jax_compilation_cache_dir", str(folder.absolute()))
