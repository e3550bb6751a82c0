"""Does the cost of a segment depend on how long the video already is? Seconds and bytes of ψ, segment by segment.

    python -m benchmarks.memory_scaling --weights=runs/recall --prompt="a ball bounces" --out=results/memory_scaling

generates 600 segments, ten minutes at RecallWorld's tier T0, and writes memory_scaling.json and memory_scaling.png. Of
several --weights, the runs are generated in turn, a segment each, so that they share whatever else the machine does.
"""

import argparse
import json
import sys
import time
from pathlib import Path

import jax
import numpy as np

import mpjax
from mpjax import provenance
from mpjax.api import State
from mpjax.drawing import blank_figure, legend, png, series_style
from mpjax.generation.memory import resident_mb

FIRST = 4  # the segments before it compile


def memory_bytes(state: State) -> int:
    """Bytes of ψ in a state of a generation."""
    return state.generation.video.memory.bytes


def measure(runs: list[Path], prompt: str, segments: int, seed: int = 0) -> dict:
    """Run → {seconds, memory_bytes, rss_mb}, each a list with a number for every segment from FIRST on."""
    models = {str(run): mpjax.load(run) for run in runs}
    states = {run: model.start(prompt, seed=seed) for run, model in models.items()}
    found: dict = {run: {"seconds": [], "memory_bytes": [], "rss_mb": []} for run in models}
    for number in range(1, segments + 1):
        for run, model in models.items():
            start = time.perf_counter()
            _, states[run] = model.next_segment(states[run], prompt)
            jax.block_until_ready(states[run].generation.video)
            seconds = time.perf_counter() - start
            if number >= FIRST:
                row = {"seconds": seconds, "memory_bytes": memory_bytes(states[run]), "rss_mb": resident_mb()}
                for name, value in row.items():
                    found[run][name].append(value)
    return found


def summary(found: dict) -> dict:
    """Medians over the first and the last tenth, and their ratio."""
    tenth = max(1, len(found["seconds"]) // 10)
    first, last = (float(np.median(part)) for part in (found["seconds"][:tenth], found["seconds"][-tenth:]))
    return {
        "seconds_first_tenth": first,
        "seconds_last_tenth": last,
        "ratio": last / first,
        "memory_bytes": sorted(set(found["memory_bytes"])),
    }


def figure(found: dict) -> bytes:
    """Seconds of a segment against its number, as PNG."""
    drawing, axes = blank_figure("generated segment", "time of a segment [ms]")
    for index, (run, numbers) in enumerate(found.items()):
        places = np.arange(FIRST, FIRST + len(numbers["seconds"]))
        label = f"{Path(run).name}, ψ {numbers['memory_bytes'][-1]:,} bytes"
        style = series_style(index, markersize=4, markevery=max(1, len(places) // 12))
        axes.plot(places, 1e3 * np.asarray(numbers["seconds"]), label=label, **style)
    axes.set_ylim(bottom=0)
    legend(axes)
    return png(drawing)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--weights", type=Path, action="append", required=True, help="run folder; repeat to compare")
    parser.add_argument("--prompt", default="a ball bounces", help="of every segment")
    parser.add_argument("--segments", type=int, default=600)
    parser.add_argument("--out", type=Path, required=True, help="folder to write")
    args = parser.parse_args()
    if args.segments < FIRST:
        parser.error(f"--segments is {args.segments}: give {FIRST} or more, since the ones before compile")
    found = measure(args.weights, args.prompt, args.segments)
    summaries = {run: summary(numbers) for run, numbers in found.items()}
    args.out.mkdir(parents=True, exist_ok=True)
    report = {
        "command": " ".join(["python", "-m", "benchmarks.memory_scaling", *sys.argv[1:]]),
        "first_segment": FIRST,
        "prompt": args.prompt,
        "commit": provenance.commit(),
        "versions": provenance.versions(),
        "machine": provenance.machine(),
        "summary": summaries,
        "runs": found,
    }
    (args.out / "memory_scaling.json").write_text(json.dumps(report, indent=1) + "\n")
    (args.out / "memory_scaling.png").write_bytes(figure(found))
    print(json.dumps(summaries, indent=1))


if __name__ == "__main__":
    main()
