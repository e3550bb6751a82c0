"""Shot cuts and motion on real clips, against labels made by eye, and on joins of single shots at known times.

    python -m benchmarks.shot_cuts VIDEOS --labels=tests/data/raw --out=results/shot_cuts.json

`VIDEOS` is a folder; `shot_cuts.csv` and `cameras.csv` of the labels name its files. A file without a cut there is one
shot. The detector's thresholds were set on these clips and on joins of seed 0: `clips` and `joins` are in-sample.
For `held_out` the clips are halved, the thresholds of `GRID` are chosen on one half and counted on the other, both
ways; those it does not have (`fixed_thresholds` of the result) stay as they were set on all clips. With PySceneDetect
installed (`pip install scenedetect`), its adaptive detector at its defaults runs on the same files.
"""

import argparse
import csv
import itertools
import sys
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mpjax import provenance
from mpjax.data.media import Media
from mpjax.data.raw.entries import read_entries
from mpjax.data.raw.measure import Measured, measure
from mpjax.data.raw.shots import ShotDetector
from mpjax.errors import InputError
from mpjax.whole_files import write_json

FPS = 24.0
# A cut counts as found within this many seconds: labels are half the distance of two frames looked at, a dissolve's
# middle is no sharp moment.
TOLERANCE = 0.3
# That of hard joins, whose frame is known: the one before and the one after it still count.
HARD_TOLERANCE = 1.5 / FPS
OVERLAPS = {"hard": 0, "dissolves of 0.5 s": 12, "dissolves of 1 s": 24}
# What thresholds are chosen from on one half of the clips, around those of `ShotDetector`.
GRID: dict[str, tuple[Any, ...]] = {
    "unlike": (0.25, 0.35, 0.45),
    "stands_out": (1.4, 1.7, 2.1),
    "off_line": (0.3, 0.4, 0.5),
}


class Video(NamedTuple):
    """Small pictures at `FPS`, when their shots change, and how far from there a cut counts as found, in seconds."""

    pictures: np.ndarray
    known: list[float]
    tolerance: float = TOLERANCE


@dataclass(frozen=True)
class Tally:
    """Cuts that are there, those of them that were found, those that were found and are none; minutes of video."""

    known: int = 0
    found: int = 0
    false: int = 0
    minutes: float = 0.0

    def __add__(self, other: "Tally") -> "Tally":
        return Tally(*(a + b for a, b in zip(asdict(self).values(), asdict(other).values(), strict=True)))

    def __str__(self) -> str:
        return f"{self.found} of {self.known} cuts found, {self.false} false in {self.minutes:.1f} min"


def compare(
    found: Sequence[float], known: Sequence[float], minutes: float = 0.0, *, tolerance: float = TOLERANCE
) -> Tally:
    """Found times against known ones, one to one: a second cut found near a known one is false."""
    left, hits = sorted(found), 0
    for time_known in sorted(known):  # the earliest that will do leaves most to the later ones
        near = next((at for at in left if abs(at - time_known) < tolerance), None)
        if near is not None:
            left.remove(near)
            hits += 1
    return Tally(len(known), hits, len(left), minutes)


def count(detector: ShotDetector, videos: Sequence[Video]) -> Tally:
    """What a detector finds in videos."""
    tallies = (
        compare(
            [cut.time for cut in detector.cuts(video.pictures, FPS)],
            video.known,
            len(video.pictures) / FPS / 60,
            tolerance=video.tolerance,
        )
        for video in videos
    )
    return sum(tallies, Tally())


def joined(singles: Sequence[np.ndarray], rng: np.random.Generator, overlap: int) -> Video:
    """Up to six random pieces of different shots with `overlap` frames of dissolve."""
    video, known = np.zeros((0, *singles[0].shape[1:])), []
    for number in rng.permutation(len(singles))[:6]:
        length = int(rng.integers(40, 90))
        start = int(rng.integers(max(1, len(singles[number]) - length)))
        piece = singles[number][start : start + length].astype(float)
        if len(video):
            known.append((len(video) - overlap / 2) / FPS)
            alpha = ((np.arange(overlap) + 0.5) / max(overlap, 1))[:, None, None, None]
            mixed = video[len(video) - overlap :] * (1 - alpha) + piece[:overlap] * alpha
            video, piece = np.concatenate([video[: len(video) - overlap], mixed]), piece[overlap:]
        video = np.concatenate([video, piece])
    return Video(np.round(video).astype(np.uint8), known, TOLERANCE if overlap else HARD_TOLERANCE)


def joins(clips: Mapping[str, Video], times: int, seed: int) -> dict[str, list[Video]]:
    """`times` joins of each kind of the clips of one shot, those wider than high, of 4 s and more."""
    singles = [v.pictures for v in clips.values() if not v.known and len(v.pictures) > 4 * FPS]
    singles = [pictures for pictures in singles if pictures.shape[2] > pictures.shape[1]]
    rng = np.random.default_rng(seed)
    return {kind: [joined(singles, rng, overlap) for _ in range(times)] for kind, overlap in OVERLAPS.items()}


def chosen(videos: Sequence[Video]) -> ShotDetector:
    """The thresholds of `GRID` with the most cuts found less false ones; of equal ones the middle one."""
    places: list[dict[str, Any]] = [
        dict(zip(GRID, values, strict=True)) for values in itertools.product(*GRID.values())
    ]
    detectors = [replace(ShotDetector(), **place) for place in places]
    tallies = [count(detector, videos) for detector in detectors]
    worth = [tally.found - tally.false for tally in tallies]
    best = [detector for detector, value in zip(detectors, worth, strict=True) if value == max(worth)]
    return best[len(best) // 2]


def halves(clips: Mapping[str, Video]) -> list[dict[str, Video]]:
    """Two halves of the clips, those of several shots shared out first; by name in turns."""
    several = [name for name, video in clips.items() if video.known]
    order = sorted(several) + sorted(set(clips) - set(several))
    return [{name: clips[name] for name in order[part::2]} for part in (0, 1)]


def held_out(clips: Mapping[str, Video], times: int) -> list[dict[str, Any]]:
    """Thresholds chosen on one half of the clips and on joins of it, counted on the other half and on joins of that."""
    results, parts = [], halves(clips)
    for seed, (here, there) in enumerate((parts, parts[::-1]), 1):
        tuned = chosen([*here.values(), *itertools.chain(*joins(here, max(1, times // 3), seed).values())])
        seen = {
            "multi_shot": count(tuned, [v for v in there.values() if v.known]),
            "single_shot": count(tuned, [v for v in there.values() if not v.known]),
        } | {kind: count(tuned, videos) for kind, videos in joins(there, times, seed + 2).items()}
        thresholds = {name: getattr(tuned, name) for name in GRID}
        print(f"held out {', '.join(there)}; thresholds {thresholds}")
        for kind, tally in seen.items():
            print(f"  {kind}: {tally}", flush=True)
        results.append({"thresholds": thresholds, "clips": list(there)} | {k: asdict(t) for k, t in seen.items()})
    return results


def motions(measured: Mapping[str, Measured], cameras: Mapping[str, str]) -> list[dict[str, Any]]:
    """Mean motion of each clip in short sides of the picture a second, from least camera motion to most."""
    rows = []
    for name, found in measured.items():
        if len(found.moves):
            everything, camera = found.moves.mean(0).tolist()
            rows.append({"file": name, "camera": camera, "dynamism": everything, "label": cameras[name]})
    return sorted(rows, key=lambda row: row["camera"])


def main(arguments: list[str] | None = None) -> int:
    """Runs the command; bad input prints one sentence and returns 2."""
    arguments = sys.argv[1:] if arguments is None else arguments
    parser = argparse.ArgumentParser(prog="benchmarks.shot_cuts", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("videos", type=Path)
    parser.add_argument("--labels", type=Path, required=True, help="folder of shot_cuts.csv and cameras.csv")
    parser.add_argument("--joins", type=int, default=12, help="random joins of each kind (default: 12)")
    parser.add_argument("--seed", type=int, default=0, help="of the joins of all clips (default: 0)")
    parser.add_argument("--out", type=Path, help="JSON file to write")
    args = parser.parse_args(arguments)
    try:
        result = _run(args)
    except InputError as error:
        print(f"benchmarks.shot_cuts: {error}", file=sys.stderr)
        return 2
    if args.out:
        origin = {
            "command": " ".join(["python", "-m", "benchmarks.shot_cuts", *arguments]),
            "commit": provenance.commit(),
            "versions": provenance.versions(),
        }
        write_json(args.out, origin | result)
    return 0


def _run(args: argparse.Namespace) -> dict[str, Any]:
    labels = defaultdict[str, list[float]](list)
    for row in _rows(args.labels / "shot_cuts.csv"):
        labels[row["file"]].append(float(row["seconds"]))
    cameras = {row["file"]: row["camera"] for row in _rows(args.labels / "cameras.csv")}

    detector, measured, clips, rows = ShotDetector(), dict[str, Measured](), dict[str, Video](), dict[str, Any]()
    for entry in read_entries(args.videos):
        if entry.name not in cameras:
            continue
        measured[entry.name] = found = measure(Media(path=entry.media.path), fps=FPS)
        clips[entry.name] = video = Video(found.pictures, labels[entry.name])
        rows[entry.name] = tally = count(detector, [video])
        print(f"{entry.name}: {tally}" + _rival(entry.media.path, video.known), flush=True)
    if not clips:
        raise InputError(f"{args.videos}: no file that {args.labels / 'cameras.csv'} names; check the path")
    groups = {
        "multi_shot": sum((rows[name] for name, video in clips.items() if video.known), Tally()),
        "single_shot": sum((rows[name] for name, video in clips.items() if not video.known), Tally()),
    }
    joint = {kind: count(detector, videos) for kind, videos in joins(clips, args.joins, args.seed).items()}
    for kind, tally in (groups | joint).items():
        print(f"{kind}: {tally}", flush=True)
    moved = motions(measured, cameras)
    for row in moved:
        print(f"camera {row['camera']:.4f}, dynamism {row['dynamism']:.4f}, {row['label']}: {row['file']}")
    return {
        "seed": args.seed,
        "tolerance_seconds": {"hard joins": HARD_TOLERANCE, "else": TOLERANCE},
        "fixed_thresholds": {name: value for name, value in asdict(detector).items() if name not in GRID},
        "clips": {name: asdict(tally) for name, tally in (rows | groups).items()},
        "joins": {kind: asdict(tally) for kind, tally in joint.items()},
        "held_out": held_out(clips, args.joins),
        "motion": moved,
    }


def _rows(path: Path) -> list[dict[str, str]]:
    if not path.is_file():
        raise InputError(f"{path}: no such file; check --labels")
    with path.open() as file:
        return list(csv.DictReader(file))


def _rival(path: Path, known: Sequence[float]) -> str:
    try:
        from scenedetect import AdaptiveDetector, detect
    except ImportError:
        return ""
    started = time.perf_counter()
    cuts = [scene[0].seconds for scene in detect(str(path), AdaptiveDetector())][1:]
    return f"; PySceneDetect: {compare(cuts, known)}, {time.perf_counter() - started:.1f} s"


if __name__ == "__main__":
    sys.exit(main())
