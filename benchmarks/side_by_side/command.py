"""`mpjax bench`: runs the cases one after the other and keeps what is done in one JSON file."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.record import check_out, description
from benchmarks.side_by_side.checks import check
from benchmarks.side_by_side.figure import figure, ratios
from benchmarks.side_by_side.own import OWN
from benchmarks.side_by_side.raced import RACED, run_race
from benchmarks.side_by_side.request import Request
from benchmarks.side_by_side.table import lines_of_case, page
from mpjax.errors import InputError

CASES = (*RACED, *OWN)


def bench(
    cases: Sequence[str],
    request: Request,
    out: Path,
    *,
    words: Sequence[str],
    say: Callable[[str], None] = print,
) -> None:
    """Measures cases and writes the record after each, so that an interrupted run keeps what it has.

    Args:
        cases: names of `CASES`, in order.
        request: how.
        out: JSON file to write; beside it, with other suffixes, a table (.md) and, with a rival, a drawing (.png).
        words: the command line, for the record.
        say: receives progress and tables.

    Raises:
        InputError: an unknown case, a flag that none heeds or that one cannot run with, a file that is no .json or that
            cannot be written, a side that failed, or sides that disagree.
    """
    for case in cases:
        if case not in CASES:
            raise InputError(f"case {case!r} is unknown: give some of {', '.join(CASES)}")
    if out.suffix != ".json":
        raise InputError(
            f"--out is {out}: give a file that ends in .json, beside which tables and drawings are written"
        )
    check(cases, request)
    check_out(out)
    found: dict[str, Any] = {}
    record = {**description("mpjax", words), "cases": found}
    for case in cases:
        say(f"== {case}")
        found[case] = OWN[case](request, say) if case in OWN else run_race(case, request, say)
        out.write_text(json.dumps(record, indent=1) + "\n")
        out.with_suffix(".md").write_text(page(record))
        if ratios(found):
            out.with_suffix(".png").write_bytes(figure(found))
        say("\n".join(lines_of_case(case, found[case])))
    say(f"{out}: {len(found)} cases")
