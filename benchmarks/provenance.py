"""Where a result comes from: command, commit, versions, device."""

import platform
import subprocess
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax

ROOT = Path(__file__).parents[1]


def provenance(module: str, arguments: Sequence[str], device: Any) -> dict[str, Any]:
    """What someone needs to repeat a run of `python -m MODULE ARGUMENTS`.

    `commit` is None outside a git checkout; `changed` tells whether tracked files differ from it.
    """
    commit, changes = _git("rev-parse", "HEAD"), _git("status", "--porcelain", "--untracked-files=no")
    return {
        "command": " ".join(["python", "-m", module, *arguments]),
        "commit": commit,
        "changed": None if changes is None else bool(changes),
        "device": {
            "platform": device.platform,
            "kind": device.device_kind,
            "runtime": device.client.platform_version,
            "count": jax.device_count(),
        },
        "versions": {
            "python": platform.python_version(),
            **{name: version(name) for name in ("jax", "jaxlib", "flax")},
        },
    }


def _git(*arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()
