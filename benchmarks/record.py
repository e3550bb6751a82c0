"""What stands in every record of a measurement, besides its numbers."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax

from mpjax import provenance
from mpjax.errors import InputError


def description(benchmark: str, arguments: Sequence[str], seed: int | None = None) -> dict[str, Any]:
    """The command, and the code, versions and machine that it ran with.

    Args:
        benchmark: name of the module.
        arguments: of its command line.
        seed: of whatever was drawn; None where nothing was.
    """
    return {
        "command": " ".join(["python", "-m", benchmark, *arguments]),
        "commit": provenance.commit(),
        "versions": provenance.versions(),
        "machine": provenance.machine(),
        "runtime": jax.devices()[0].client.platform_version,
        "seed": seed,
    }


def check_out(out: Path) -> None:
    """Makes the folder of a record, and no record yet: a measurement that fails leaves none.

    Raises:
        InputError: the file cannot be written.
    """
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        new = not out.exists()
        with out.open("a"):
            pass
        if new:
            out.unlink()
    except OSError as error:
        raise InputError(f"--out is {out}, which cannot be written ({error.strerror}): give another file") from error
