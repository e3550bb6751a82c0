"""What a command line of `mpjax bench` asks for."""

import dataclasses
import os
import shutil
from pathlib import Path

from mpjax.errors import InputError

LEAST_ROUNDS = 6  # of a 95 % interval of the median
ROUNDS = 12
VARIANTS = ("eager", "compile")
SEGMENTS = 600


@dataclasses.dataclass(frozen=True, kw_only=True)
class Request:
    """How the cases are to be measured. A field that is None was not given.

    Attributes:
        rival: Python that has torch, diffusers and accelerate; None runs us alone.
        variant: of the rival, see `diffusers_side`; None is `VARIANTS`.
        config: config file of the network or of what is trained or read; None is a case's own.
        overrides: fields of it, as `--config.data.height=256`.
        rounds: of each case, 6 or more; None is `ROUNDS`.
        threads: cores that every side gets; None leaves them all.
        weights, segments: run folder that case `length` generates so many segments of a video with (None: `SEGMENTS`).
        scratch: folder for weights and results while a case runs; None is the system's.
    """

    rival: str | None = None
    variant: tuple[str, ...] | None = None
    config: str | None = None
    overrides: tuple[str, ...] = ()
    rounds: int | None = None
    threads: int | None = None
    weights: Path | None = None
    segments: int | None = None
    scratch: Path | None = None

    def __post_init__(self):
        if self.rival is not None and shutil.which(self.rival) is None:
            raise InputError(
                f"--rival is {self.rival}, which is no program: give a Python that has torch, diffusers and accelerate"
            )
        if self.variant is not None and self.rival is None:
            raise InputError("--variant is of a rival, and there is none: give --rival, too")
        if self.rounds is not None and self.rounds < LEAST_ROUNDS:
            raise InputError(f"--rounds is {self.rounds}: give at least {LEAST_ROUNDS}")
        if self.overrides and self.config is None:
            raise InputError(f"{self.overrides[0]} is no flag of this command: run it with --help for the list")
        if self.threads is not None and not 1 <= self.threads <= len(os.sched_getaffinity(0)):
            raise InputError(f"--threads is {self.threads}: this process has 1 to {len(os.sched_getaffinity(0))} cores")
        if self.scratch is not None and not self.scratch.is_dir():
            raise InputError(f"--scratch is {self.scratch}, which is no folder: give one on a disk with room")

    @property
    def rival_python(self) -> str | None:
        """`rival` from any working directory; links are not resolved, since an environment lies beside its link."""
        found = self.rival and shutil.which(self.rival)
        return found and os.path.abspath(found)  # noqa: PTH100

    @property
    def cores(self) -> list[int]:
        """The cores of every side; empty for all."""
        return [] if self.threads is None else sorted(os.sched_getaffinity(0))[: self.threads]
