"""Shot cuts on real clips: found and false against labels made by eye, and on joins of single shots at known times.

    python -m benchmarks.shot_cuts VIDEOS --labels=tests/data/raw/shot_cuts.csv

`VIDEOS` is a folder; a file of it that the labels do not name is taken as one shot. Also prints the motion of each one,
from least camera motion to most. With PySceneDetect installed (`pip install scenedetect`), its adaptive detector at its
defaults runs on the same files.
"""

import argparse
import csv
import time
from collections import defaultdict
from pathlib import Path

import numpy as np

from mpjax.data.media import Media
from mpjax.data.raw.entries import read_entries
from mpjax.data.raw.measure import Measured, measure
from mpjax.data.raw.shots import ShotDetector
from mpjax.errors import InputError

FPS = 24.0
# A cut counts as found within this many seconds: labels are half the distance of two frames looked at, a dissolve's
# middle is no sharp moment.
TOLERANCE = 0.3


def compare(found: list[float], known: list[float]) -> tuple[int, int]:
    """(known cuts that were found, found cuts that are none)."""
    hits = sum(any(abs(a - b) < TOLERANCE for b in found) for a in known)
    false = sum(all(abs(a - b) >= TOLERANCE for a in known) for b in found)
    return hits, false


def joined(singles: list[np.ndarray], rng: np.random.Generator, overlap: int) -> tuple[np.ndarray, list[float]]:
    """Six random pieces of different shots with `overlap` frames of dissolve; and the times of the changes."""
    video, known = np.zeros((0, *singles[0].shape[1:])), []
    for number in rng.permutation(len(singles))[:6]:
        count = int(rng.integers(40, 90))
        start = int(rng.integers(max(1, len(singles[number]) - count)))
        piece = singles[number][start : start + count].astype(float)
        if len(video):
            known.append((len(video) - overlap / 2) / FPS)
            alpha = ((np.arange(overlap) + 0.5) / max(overlap, 1))[:, None, None, None]
            mixed = video[len(video) - overlap :] * (1 - alpha) + piece[:overlap] * alpha
            video, piece = np.concatenate([video[: len(video) - overlap], mixed]), piece[overlap:]
        video = np.concatenate([video, piece])
    return np.round(video).astype(np.uint8), known


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("videos", type=Path)
    parser.add_argument("--labels", type=Path, required=True)
    parser.add_argument("--joins", type=int, default=20, help="random joins of each kind (default: 20)")
    args = parser.parse_args()
    labels: dict[str, list[float]] = defaultdict(list)
    with args.labels.open() as file:
        for row in csv.DictReader(file):
            labels[row["file"]].append(float(row["seconds"]))

    detector, seen = ShotDetector(), dict[str, Measured]()
    for entry in read_entries(args.videos):
        started = time.perf_counter()
        try:
            seen[entry.name] = measured = measure(Media(path=entry.media.path), fps=FPS)
        except InputError as error:
            print(error)
            continue
        cuts = [cut.time for cut in detector.cuts(measured.pictures, FPS)]
        hits, false = compare(cuts, labels[entry.name])
        spent = time.perf_counter() - started
        line = f"{entry.name}: {hits} of {len(labels[entry.name])} cuts found, {false} false, {spent:.1f} s"
        print(line + _rival(entry.media.path, labels[entry.name]), flush=True)

    names = [name for name, m in seen.items() if not labels[name] and m.seconds > 4 and m.width > m.height]
    rng = np.random.default_rng(0)
    for overlap, what in ((0, "hard cuts"), (12, "dissolves of 0.5 s"), (24, "dissolves of 1 s")):
        totals = np.zeros(4)
        for _ in range(args.joins):
            video, known = joined([seen[name].pictures for name in names], rng, overlap)
            hits, false = compare([cut.time for cut in detector.cuts(video, FPS)], known)
            totals += hits, len(known), false, len(video) / FPS / 60
        print(f"joins, {what}: {totals[0]:.0f} of {totals[1]:.0f} found, {totals[2]:.0f} false in {totals[3]:.1f} min")

    motions = {name: measured.moves.mean(0) for name, measured in seen.items() if len(measured.moves)}
    for name, (everything, camera) in sorted(motions.items(), key=lambda item: item[1][1]):
        print(f"camera {camera:.4f}, dynamism {everything:.4f}: {name}")


def _rival(path: Path, known: list[float]) -> str:
    try:
        from scenedetect import AdaptiveDetector, detect
    except ImportError:
        return ""
    started = time.perf_counter()
    cuts = [scene[0].seconds for scene in detect(str(path), AdaptiveDetector())][1:]
    hits, false = compare(cuts, known)
    return f"; PySceneDetect: {hits} found, {false} false, {time.perf_counter() - started:.1f} s"


if __name__ == "__main__":
    main()
