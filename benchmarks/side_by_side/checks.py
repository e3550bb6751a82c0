"""What can be known to be wrong before the first case runs."""

from collections.abc import Callable, Sequence

from benchmarks.side_by_side import own, raced
from benchmarks.side_by_side.request import Request
from mpjax.errors import InputError

# By field of a request, which is the name of its flag: the cases that heed it.
HEEDED: dict[str, tuple[str, ...]] = {
    "rival": (*raced.RACED, "data"),
    "variant": tuple(raced.RACED),
    "config": ("forward", "gradient", "segment", "train_step", "data"),
    "rounds": (*raced.RACED, "train_step"),
    "threads": tuple(raced.RACED),
    "weights": ("length",),
    "segments": ("length",),
    "scratch": (*raced.RACED, "data"),
}

CHECKS: dict[str, Callable[[Request], object]] = {
    "forward": raced.workload,
    "gradient": raced.gradient_workload,
    "segment": raced.workload,
    "train_step": own.experiments,
    "length": own.check_length,
    "data": own.check_data,
}


def check(cases: Sequence[str], request: Request) -> None:
    """Refuses what no case heeds, and what a case cannot run with.

    Args:
        cases: names of cases.
        request: how they are to be measured.

    Raises:
        InputError: naming the flag.
    """
    for field, heeding in HEEDED.items():
        if getattr(request, field) is not None and not set(cases) & set(heeding):
            raise InputError(
                f"--{field} has no effect on {', '.join(cases)}: leave it out, or add a case that heeds it "
                f"({', '.join(heeding)})"
            )
    for case in cases:
        if case in CHECKS:
            CHECKS[case](request)
