"""Rows as text for the terminal and as a Markdown table."""

from collections.abc import Sequence

from mpjax.plan.row import DECODE, Row

HEAD = (
    *("step", "weights", "slice", "mesh", "remat", "videos", "arguments", "temporaries", "peak", "of memory", "host"),
    *("sent", "step time", "MFU", "compiler"),
)


def sentence(row: Row) -> str:
    """A row in a few lines."""
    done = "one tile" if row.step == DECODE else f"{row.videos} videos of {row.segments} segments"
    title = f"{row.step} on {row.topology}, {row.mesh}, weights {row.weights}, remat {row.remat}: {done}"
    if row.error:
        return f"{title}\n  does not compile: {row.error}"
    sent = [f"{kind} {row.collectives[kind]} × = {gb(row.moved[kind])}" for kind in sorted(row.moved)]
    kernels = ", ".join(f"{name} {count} ×" for name, count in sorted(row.kernels.items())) or "none"
    counted = [
        f"operations: {row.useful:.3g} useful, {row.executed:.3g} executed; HBM traffic a chip {gb(row.accessed)}",
        f"collectives, sent by a chip: {', '.join(sent) or 'none'}",
        f"least time by data sheet: compute {row.compute_seconds:.2f} s, memory {row.memory_seconds:.2f} s, links "
        f"{row.link_seconds:.2f} s; step {row.seconds:.2f} s, MFU at most {row.mfu:.0%}",
    ]
    return "\n  ".join(
        [
            title,
            f"HBM a chip: {gb(row.arguments)} arguments + {gb(row.temporaries)} temporaries, peak {gb(row.peak)} of "
            f"{gb(row.memory)}: {row.peak / row.memory:.0%}, {'fits' if row.fits else 'does not fit'}"
            + (f"; {gb(row.host)} of the host" if row.host else ""),
            *(counted if row.useful else []),
            f"attention kernels: {kernels}",
            f"compiled in {row.compile_seconds:.0f} s{', optimised less (--quick)' if row.quick else ''}",
        ]
    )


def table(rows: Sequence[Row]) -> str:
    """A Markdown table; bytes are those of one chip."""
    lines = [_line(HEAD), _line(["---"] * len(HEAD))]
    lines += [_line(_cells(row)) for row in rows]
    return "\n".join(lines) + "\n"


def _cells(row: Row) -> list[str]:
    first = [row.step, row.weights, row.topology, row.mesh, row.remat, str(row.videos)]
    if row.error:
        return [*first, *["–"] * 3, "does not compile", *["–"] * 5]
    share = f"{row.peak / row.memory:.0%} of {gb(row.memory)}"
    sizes = [gb(row.arguments), gb(row.temporaries), gb(row.peak), share, gb(row.host) if row.host else "–"]
    compiler = f"{row.compile_seconds:.0f} s{', quick' if row.quick else ''}"
    times = [f"{row.seconds:.2f} s", f"{row.mfu:.0%}"] if row.useful else ["–"] * 2
    return [*first, *sizes, gb(sum(row.moved.values())), *times, compiler]


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def gb(size: float) -> str:
    """`12.3 GB`."""
    return f"{size / 1e9:.3g} GB" if size >= 1e7 else f"{size / 1e6:.3g} MB"
