"""Where a result comes from: source, versions, machine."""

import hashlib
import os
import platform
import subprocess
from importlib.metadata import version
from pathlib import Path

import jax


def commit() -> str | None:
    """The commit of the source tree, with a + where its files were changed (new ones do not count: results are such).

    None outside a git checkout.
    """
    root = Path(__file__).parent.parent
    try:
        head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=root, capture_output=True, text=True, check=True)
        dirty = subprocess.run(
            ["git", "status", "--porcelain", "-uno"], cwd=root, capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return head.stdout.strip() + ("+" if dirty.stdout.strip() else "")


def sources(*places: str, root: Path = Path(__file__).parent) -> str:
    """Twelve hexadecimal digits of SHA-256 of Python files: other code has other ones.

    Args:
        places: files, or folders with all files in them, below `root`; their order does not matter.
        root: by default this package.
    """
    paths = {
        path for place in places for path in ([root / place] if place.endswith(".py") else (root / place).glob("*.py"))
    }
    parts = [f"{path.relative_to(root).as_posix()} {hashlib.sha256(path.read_bytes()).hexdigest()}" for path in paths]
    return hashlib.sha256("\n".join(sorted(parts)).encode()).hexdigest()[:12]


def versions() -> dict[str, str]:
    """Of Python and of what decides numbers."""
    return {"python": platform.python_version(), **{name: version(name) for name in ("jax", "flax", "optax", "mpjax")}}


def machine() -> dict[str, str | int | None]:
    """The system, its cores, and the kind of the first device."""
    return {"system": platform.platform(), "cores": os.cpu_count(), "device": jax.devices()[0].device_kind}
