"""Which metric sees which fault? Faults of known strength are put into real clips, and every metric ranks them.

    python -m benchmarks.injected_drift --videos=VIDEOS --out=results/injected_drift

The clips are all that the shots of the videos hold of `SECONDS` each: a clip with a cut has changed its things already.
Each is shown as it is, with a fault at half strength, and at full strength. A reading ranks a clip rightly if it rises
strictly from the first to the last; by luck that happens in one of six. A share is the mean of the videos' shares, so
that a long video counts no more than a short one. Of an identity swap they are also told for videos whose camera
stands and for those where it moves. Metrics with a network take no part.
"""

import argparse
import itertools
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter

from benchmarks.record import description
from mpjax.data.media import Media
from mpjax.data.raw.measure import measure as measure_shots
from mpjax.data.raw.shots import ShotDetector
from mpjax.data.video import read_frames
from mpjax.errors import InputError
from mpjax.evaluation.metrics.companions import COMPANIONS
from mpjax.evaluation.metrics.flicker import TemporalFlickering
from mpjax.evaluation.metrics.metric import Metric, Score, measure
from mpjax.evaluation.metrics.videos import Video, find_videos
from mpjax.whole_files import write_file, write_json

STRENGTHS = (0.0, 0.5, 1.0)
FPS = 8.0
SECONDS = 5.0
CUTS_FPS = 24.0  # cuts are looked for at this rate
HEIGHT, WIDTH = 180, 320
SEES, PARTLY = 0.8, 0.5  # share of clips ranked rightly
MOVES = 0.01  # camera, in short sides of the picture a second

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


READINGS: tuple[Reading, ...] = (
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
"""Fault, and the readings that should see it."""


@dataclass(frozen=True, kw_only=True)
class Clip:
    """Frames of one shot.

    Attributes:
        video: the file that they are from.
        start: seconds from its first frame.
        frames: uint8 `[n, height, width, 3]`.
        camera: how fast it moves, in short sides of the picture a second.
    """

    video: str
    start: float
    frames: np.ndarray
    camera: float = 0.0


def clips_of(path: Path) -> Iterator[Clip]:
    """All that lie side by side in the shots of a video, whole ones only."""
    measured = measure_shots(Media(path=path), fps=CUTS_FPS)
    cuts = ShotDetector().cuts(measured.pictures, CUTS_FPS)
    near = 1 / CUTS_FPS  # a cut is known to a frame
    edges = [(cut.time - cut.length / 2 - near, cut.time + cut.length / 2 + near) for cut in cuts]
    for (_, first), (last, _) in itertools.pairwise([(0.0, 0.0), *edges, (measured.seconds, measured.seconds)]):
        for number in range(int((last - first) / SECONDS)):
            start = first + number * SECONDS
            frames = read_frames(path, fps=FPS, height=HEIGHT, width=WIDTH, start=start, end=start + SECONDS)
            camera = measured.scores(start, start + SECONDS)["camera"]
            yield Clip(video=path.name, start=start, frames=np.stack([*frames]), camera=camera)


def ranked_rightly(
    clips: Sequence[Clip], metrics: Sequence[Metric], readings: Sequence[Reading], *, fps: float = FPS
) -> dict[str, dict[str, dict[str, float]]]:
    """Fault → reading → video → the share of its clips that the reading ranks rightly.

    Args:
        clips: of one size and of two videos or more; the other of a clip is the next one of another video.
        metrics: all that are read.
        readings: of them.
        fps: frames per second.
    """
    videos = list(dict.fromkeys(clip.video for clip in clips))
    untouched = [_scores(clip.frames, metrics, fps) for clip in clips]
    shares: dict[str, dict[str, dict[str, float]]] = {}
    for fault, (change, _) in FAULTS.items():
        right: dict[str, dict[str, list[bool]]] = {
            reading.name: {video: [] for video in videos} for reading in readings
        }
        for number, clip in enumerate(clips):
            others = itertools.chain(clips[number:], clips[:number])
            other = next(each for each in others if each.video != clip.video).frames
            faulty = [_scores(change(clip.frames, other, strength), metrics, fps) for strength in STRENGTHS[1:]]
            for reading in readings:
                values = [reading.of(scores) for scores in (untouched[number], *faulty)]
                rises = None not in values and bool((np.diff(np.asarray(values, float)) > 0).all())
                right[reading.name][clip.video].append(rises)
        shares[fault] = {
            name: {video: float(np.mean(found)) for video, found in by_video.items()}
            for name, by_video in right.items()
        }
        print(f"{fault}: done", flush=True)
    return shares


def over_videos(shares: Mapping[str, Mapping[str, Mapping[str, float]]]) -> dict[str, dict[str, float]]:
    """Fault → reading → the mean of the videos' shares."""
    return {
        fault: {name: float(np.mean([*by_video.values()])) for name, by_video in found.items()}
        for fault, found in shares.items()
    }


def moving(clips: Sequence[Clip]) -> set[str]:
    """The videos whose camera moves, in the median of their clips."""
    speeds: dict[str, list[float]] = {}
    for clip in clips:
        speeds.setdefault(clip.video, []).append(clip.camera)
    return {video for video, found in speeds.items() if np.median(found) > MOVES}


def by_camera(
    shares: Mapping[str, Mapping[str, Mapping[str, float]]], fault: str, moves: set[str]
) -> dict[str, dict[str, dict[str, float]]]:
    """The shares of one fault apart: "FAULT, camera stands" and "FAULT, camera moves"; no column without a video."""
    columns: dict[str, dict[str, dict[str, float]]] = {}
    for reading, by_video in shares[fault].items():
        for video, share in by_video.items():
            column = f"{fault}, camera {'moves' if video in moves else 'stands'}"
            columns.setdefault(column, {}).setdefault(reading, {})[video] = share
    return columns


def table(shares: Mapping[str, Mapping[str, float]], readings: Sequence[Reading]) -> str:
    """Markdown: a row for each reading, a column for each fault; what should see a fault is in bold.

    A column may be a part of a fault's videos: its name is then the fault's, a comma and more.
    """
    lines = [f"| reading | {' | '.join(shares)} |", f"|---|{'---|' * len(shares)}"]
    for reading in readings:
        cells = []
        for fault, found in shares.items():
            share = found[reading.name]
            word = "sees" if share >= SEES else "partly" if share >= PARTLY else "misses"
            text = f"{word} {100 * share:.0f} %"
            cells.append(f"**{text}**" if reading.name in FAULTS[fault.partition(",")[0]][1] else text)
        lines.append(f"| {reading.name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _scores(frames: np.ndarray, metrics: Sequence[Metric], fps: float) -> dict[str, Score]:
    video = Video(name="clip", fps=fps, frames=len(frames), read=lambda: iter(frames))
    return {score.metric: score for score in measure(video, metrics)}


def _per_frame(frames: np.ndarray, change: Callable[[np.ndarray, float], np.ndarray]) -> np.ndarray:
    times = np.linspace(0, 1, len(frames))
    changed = [change(frame.astype(np.float32), float(t)) for frame, t in zip(frames, times, strict=True)]
    return np.stack([np.uint8(np.clip(np.round(frame), 0, 255)) for frame in changed])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--videos", type=Path, required=True, help="folder of videos, two or more")
    parser.add_argument("--out", type=Path, required=True, help="folder to write")
    args = parser.parse_args()
    paths = find_videos([args.videos])
    metrics = [*(offer.make() for offer in COMPANIONS if offer.name != "seam_jump"), TemporalFlickering()]
    described = description("benchmarks.injected_drift", ["--videos=VIDEOS", "--out=OUT"])
    clips = [clip for path in paths for clip in clips_of(path)]
    videos = {clip.video for clip in clips}
    if len(videos) < 2:
        raise InputError(f"{args.videos}: an identity swap needs two videos with a shot of {SECONDS:g} s or more")
    moves = moving(clips)
    by_video = ranked_rightly(clips, metrics, READINGS)
    by_video_and_camera = by_video | by_camera(by_video, "identity swap", moves)
    shares = over_videos(by_video_and_camera)
    note = (
        f"`{described['command']}`: share of {len(clips)} real clips of {len(videos)} videos, each of one shot "
        f"({SECONDS:g} s at {FPS:g} frames a second, {WIDTH}x{HEIGHT}), in which a reading rises "
        "with the strength of a fault (none, half, full); every video counts alike. "
        "Nothing in it is random. Chance is 17 %. Bold: the readings that "
        f"should see the fault. Sees: {100 * SEES:.0f} % or more; partly: {100 * PARTLY:.0f} % or more. The camera "
        f"moves in {len(moves)} videos: in the median of their clips by more than {MOVES:g} of the picture's shorter "
        "side a second."
    )
    write_file(args.out / "table.md", f"{note}\n\n{table(shares, READINGS)}\n")
    write_json(
        args.out / "table.json",
        {
            **described,
            "clips": [{"video": clip.video, "start": clip.start, "camera": clip.camera} for clip in clips],
            "camera_moves": sorted(moves),
            "strengths": STRENGTHS,
            "ranked_rightly": shares,
            "by_video": by_video,
        },
    )
    print(f"results: {args.out / 'table.md'}")


if __name__ == "__main__":
    try:
        main()
    except InputError as error:
        sys.exit(f"benchmarks.injected_drift: {error}")
