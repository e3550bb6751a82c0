"""Which metric sees which fault? Faults of known strength are put into real clips, and every metric ranks them.

    python -m benchmarks.injected_drift --videos=VIDEOS --out=results/injected_drift

Each clip is shown as it is, with a fault at half strength, and at full strength. A reading ranks a clip rightly if it
rises strictly from the first to the last; by luck that happens in one of six. Only metrics without a network take part.
"""

import argparse
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter

from mpjax import provenance
from mpjax.data.video import read_frames
from mpjax.errors import InputError
from mpjax.evaluation.metrics.companions import COMPANIONS
from mpjax.evaluation.metrics.flicker import TemporalFlickering
from mpjax.evaluation.metrics.metric import Score, measure
from mpjax.evaluation.metrics.videos import Video, find_videos
from mpjax.whole_files import write_file, write_json

STRENGTHS = (0.0, 0.5, 1.0)
FPS = 8.0
SECONDS = 6.0
HEIGHT, WIDTH = 180, 320
SEES, PARTLY = 0.8, 0.5  # share of clips ranked rightly

Fault = Callable[[np.ndarray, np.ndarray, float], np.ndarray]
"""(frames uint8 `[n, height, width, 3]`, those of another clip, strength 0..1) → frames; 0 changes nothing."""


@dataclass(frozen=True, kw_only=True)
class Reading:
    """One number of a metric that should rise with a fault.

    Attributes:
        metric: its name.
        drift: read Δdrift instead of the value.
        sign: −1 where a fault should lower the value.
    """

    metric: str
    drift: bool = False
    sign: int = 1

    @property
    def name(self) -> str:
        """In the table."""
        return ("Δ" if self.drift else "−" if self.sign < 0 else "") + self.metric.replace("_", " ")

    def of(self, scores: Mapping[str, Score]) -> float | None:
        """The number, None if it was not computed."""
        score = scores[self.metric]
        value = score.drift if self.drift else score.value
        return None if value is None else self.sign * value


READINGS = (
    *(
        Reading(metric=name, drift=True)
        for name in ("exposure", "contrast", "saturation", "warmth", "tint", "sharpness")
    ),
    Reading(metric="sharpness_slope", sign=-1),
    Reading(metric="motion_energy", drift=True),
    Reading(metric="motion_energy", sign=-1),
    Reading(metric="dead_motion_rate"),
    Reading(metric="return_to_start", sign=-1),
    Reading(metric="temporal_flickering", sign=-1),
)


def gain(frames: np.ndarray, other: np.ndarray, strength: float) -> np.ndarray:
    """Fades to 40 % of its brightness."""
    return _per_frame(frames, lambda frame, t: frame * (1 - 0.6 * strength * t))


def bias(frames: np.ndarray, other: np.ndarray, strength: float) -> np.ndarray:
    """Brightens by 80 grey levels, highlights clipped."""
    return _per_frame(frames, lambda frame, t: frame + 80 * strength * t)


def colour_cast(frames: np.ndarray, other: np.ndarray, strength: float) -> np.ndarray:
    """Red gains 40 %, blue loses 40 %."""
    return _per_frame(frames, lambda frame, t: frame * (1 + 0.4 * strength * t * np.asarray([1, 0, -1])))


def blur(frames: np.ndarray, other: np.ndarray, strength: float) -> np.ndarray:
    """A Gaussian blur that grows to a radius of 1 % of the height."""
    radii = 0.01 * frames.shape[1] * strength * np.linspace(0, 1, len(frames))
    return np.stack(
        [
            np.asarray(Image.fromarray(frame).filter(ImageFilter.GaussianBlur(float(radius))))
            for frame, radius in zip(frames, radii, strict=True)
        ]
    )


def freeze(frames: np.ndarray, other: np.ndarray, strength: float) -> np.ndarray:
    """The last 60 % stand still."""
    last = len(frames) - 1 - round(0.6 * strength * (len(frames) - 1))
    return frames[np.minimum(np.arange(len(frames)), last)]


def identity_swap(frames: np.ndarray, other: np.ndarray, strength: float) -> np.ndarray:
    """From the middle on, the inner 70 % of the sides show another clip."""
    changed = frames.copy()
    margins = [round(side * (1 - 0.7 * strength) / 2) for side in frames.shape[1:3]]
    inner = tuple(slice(margin, side - margin) for margin, side in zip(margins, frames.shape[1:3], strict=True))
    half = len(frames) // 2
    if strength:
        changed[half:, inner[0], inner[1]] = other[np.arange(half, len(frames)) % len(other)][:, inner[0], inner[1]]
    return changed


FAULTS: dict[str, tuple[Fault, tuple[str, ...]]] = {
    "gain": (gain, ("Δexposure", "Δcontrast")),
    "bias": (bias, ("Δexposure",)),
    "colour cast": (colour_cast, ("Δwarmth",)),
    "blur": (blur, ("Δsharpness", "−sharpness slope")),
    "freeze": (freeze, ("dead motion rate", "−motion energy")),
    "identity swap": (identity_swap, ("−return to start",)),
}
"""Fault, and the readings that should see it; fixed before the table was made."""


def ranked_rightly(clips: Sequence[np.ndarray], *, fps: float = FPS) -> dict[str, dict[str, float]]:
    """Fault → reading → the share of clips that it ranks rightly.

    Args:
        clips: two or more, uint8 `[n, height, width, 3]` of one size; each is the other of the one before it.
        fps: frames per second.
    """
    metrics = [*(offer.make() for offer in COMPANIONS if offer.name != "seam_jump"), TemporalFlickering()]
    untouched = [_scores(frames, metrics, fps) for frames in clips]
    shares: dict[str, dict[str, float]] = {}
    for fault, (change, _) in FAULTS.items():
        right = {reading.name: 0 for reading in READINGS}
        for number, frames in enumerate(clips):
            other = clips[(number + 1) % len(clips)]
            faulty = [_scores(change(frames, other, strength), metrics, fps) for strength in STRENGTHS[1:]]
            found = [untouched[number], *faulty]
            for reading in READINGS:
                values = [reading.of(scores) for scores in found]
                rises = None not in values and bool((np.diff(np.asarray(values, float)) > 0).all())
                right[reading.name] += rises
        shares[fault] = {name: count / len(clips) for name, count in right.items()}
        print(f"{fault}: " + ", ".join(f"{name} {share:.2f}" for name, share in shares[fault].items()), flush=True)
    return shares


def table(shares: Mapping[str, Mapping[str, float]]) -> str:
    """Markdown: a row for each reading, a column for each fault; what should see a fault is in bold."""
    lines = [f"| reading | {' | '.join(shares)} |", f"|---|{'---|' * len(shares)}"]
    for reading in READINGS:
        cells = []
        for fault, found in shares.items():
            share = found[reading.name]
            word = "sees" if share >= SEES else "partly" if share >= PARTLY else "misses"
            text = f"{word} {100 * share:.0f} %"
            cells.append(f"**{text}**" if reading.name in FAULTS[fault][1] else text)
        lines.append(f"| {reading.name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _scores(frames: np.ndarray, metrics: Sequence, fps: float) -> dict[str, Score]:
    video = Video(name="clip", fps=fps, frames=len(frames), read=lambda: iter(frames))
    return {score.metric: score for score in measure(video, metrics)}


def _per_frame(frames: np.ndarray, change: Callable[[np.ndarray, float], np.ndarray]) -> np.ndarray:
    times = np.linspace(0, 1, len(frames))
    changed = [change(frame.astype(np.float32), float(t)) for frame, t in zip(frames, times, strict=True)]
    return np.stack([np.uint8(np.clip(np.round(frame), 0, 255)) for frame in changed])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--videos", type=Path, required=True, help="folder of clips, two or more")
    parser.add_argument("--out", type=Path, required=True, help="folder to write")
    args = parser.parse_args()
    paths = find_videos([args.videos])
    if len(paths) < 2:
        raise InputError(f"{args.videos}: one clip; an identity swap needs two or more")
    clips = [np.stack([*read_frames(path, fps=FPS, height=HEIGHT, width=WIDTH, end=SECONDS)]) for path in paths]
    shares = ranked_rightly(clips)
    command = f"python -m benchmarks.injected_drift --videos=VIDEOS --out={shlex.quote(str(args.out))}"
    note = (
        f"`{command}`: share of {len(clips)} real clips ({SECONDS:g} s at {FPS:g} frames a second, {WIDTH}x{HEIGHT}) "
        "in which a reading rises with the strength of a fault (none, half, full). Chance is 17 %. Bold: the readings "
        f"that should see the fault. Sees: {100 * SEES:.0f} % or more; partly: {100 * PARTLY:.0f} % or more."
    )
    write_file(args.out / "table.md", f"{note}\n\n{table(shares)}\n")
    write_json(
        args.out / "table.json",
        {
            "command": command,
            "commit": provenance.commit(),
            "clips": [path.name for path in paths],
            "strengths": STRENGTHS,
            "ranked_rightly": shares,
        },
    )
    print(f"results: {args.out / 'table.md'}")


if __name__ == "__main__":
    try:
        main()
    except InputError as error:
        sys.exit(f"benchmarks.injected_drift: {error}")
