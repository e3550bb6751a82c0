"""A folder of videos to a dataset of latent clips: resumable, reproducible, and sparing with memory.

1. Every video is cut into consecutive windows of one reference frame and up to `max_segments` whole segments; a rest
   shorter than one segment is dropped. Each window starts the codec afresh. Memory holds one window of latents, and
   of pixels one segment and what the codec is behind, whatever the length of the video.
2. A finished video stays in `<output>.partial/` under a hash of its content and of the settings, so a run that was
   interrupted repeats at most one video.
3. All windows of a video fall on the same side of the train/validation split, drawn from the hash of the file:
   renaming files moves nothing, and adding some moves others only where a side would be empty.
4. The records are assembled in the order of the file names, the normalisation is measured on the train split, and the
   finished directory is moved into place at once.

The same input, settings and library builds give the same bytes in every file of the dataset.
"""

import contextlib
import hashlib
import json
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mpjax.codecs import Codec
from mpjax.codecs.base import check_video
from mpjax.conditioning.pretrained import PretrainedEncoders
from mpjax.data.clip_sources import Source, find_sources
from mpjax.data.clip_windows import CachedVideo, encode_video
from mpjax.data.embeddings import DatasetEmbeddings
from mpjax.data.latents import DATASET_FILE, FORMAT, FORMAT_VERSION, read_description, write_records
from mpjax.errors import InputError
from mpjax.progress import Progress

REPORT_FILE = "encode_report.json"
SPLITS = ("train", "validation")
# Part of every cache key: raise it when the same settings would give other latents.
ENCODER_VERSION = 2
# Below this a channel is constant in the whole train split; dividing by it would only enlarge rounding.
LEAST_STD = 1e-6


@dataclass(frozen=True, kw_only=True)
class Encoded:
    """What became of one file: its windows, or the reason why there are none."""

    source: Source
    sha256: str = ""
    video: CachedVideo | None = None
    reason: str = ""

    def clip_ids(self) -> list[str]:
        """One id per window, made of the content hash."""
        return [f"{self.sha256[:16]}-{number:05d}" for number in range(len(self.video or ()))]

    def mean_psnr(self) -> float:
        """Mean over the windows in dB."""
        assert self.video is not None
        return sum(self.video.psnr) / len(self.video)


def encode_folder(
    input_dir: Path,
    output_dir: Path,
    *,
    codec: Codec,
    encoders: PretrainedEncoders | None = None,
    fps: float,
    height: int,
    width: int,
    segment_frames: int,
    max_segments: int,
    validation_fraction: float = 0.1,
    seed: int = 0,
    deadline_seconds: float = 600.0,
    progress: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Encode every video under a folder.

    Args:
        input_dir: searched recursively for videos and captions, see `clip_sources.find_sources`.
        output_dir: the dataset; must not exist yet, be empty, or hold the dataset of the same call, which then returns
            at once.
        codec: pixels to latents; its normalisation, if any, is ignored and measured anew.
        encoders: embed captions and first frames, for a network without encoders of its own.
        fps: target rate of the pixel frames.
        height: target rows, a multiple of the codec's space factor.
        width: target columns, likewise.
        segment_frames: latent frames f of a segment.
        max_segments: segments of a clip at most.
        validation_fraction: expected share of the videos held out, see `assign_splits`.
        seed: of the hold-out draw.
        deadline_seconds: decoding time allowed per video.
        progress: receives one line after each video.

    Returns:
        the contents of `dataset.json`.

    Raises:
        InputError: settings that do not fit, encoders that cannot be run, no usable video (nothing is left behind
            then), or an `output_dir` that holds anything else. A single unusable video is only reported, in
            `encode_report.json` and to `progress`.
    """
    for name, value in (("segment_frames", segment_frames), ("max_segments", max_segments)):
        if value < 1:
            raise InputError(f"{name} is {value}: give at least 1")
    if not 0 <= validation_fraction < 1:
        raise InputError(f"validation_fraction is {validation_fraction}: give a share of at least 0 and below 1")
    if not fps > 0 or min(height, width) < 1:
        raise InputError(f"fps={fps}, height={height}, width={width}: all three must be positive")
    check_video(codec, np.empty((1, 1, height, width, 3), np.uint8))
    codec = codec.with_normalisation((), ())
    sources = find_sources(input_dir)
    encoding: dict[str, Any] = {
        "fps": float(fps),
        "height": height,
        "width": width,
        "segment_frames": segment_frames,
        "max_segments": max_segments,
    }
    settings = encoding | {
        "encoder": ENCODER_VERSION,
        "embeddings": None if encoders is None else encoders.identity,
        "codec": codec.spec(),
        "validation_fraction": float(validation_fraction),
        "seed": seed,
        "inputs": hashlib.sha256(_dump([[s.name, s.bytes, s.caption] for s in sources]).encode()).hexdigest(),
    }
    if output_dir.exists() and (not output_dir.is_dir() or any(output_dir.iterdir())):
        return _finished_already(output_dir, settings, progress)
    if encoders is not None:
        encoders.check()  # they run last: after hours of videos is too late to miss them

    partial = output_dir.with_name(output_dir.name + ".partial")
    cache_key = _dump([ENCODER_VERSION, codec.spec(), encoding])
    meter = _Meter(sources, progress)
    outcomes: list[Encoded] = []
    known: dict[str, str] = {}
    for source in sources:
        started = time.monotonic()
        try:
            sha256 = source.content_hash()
            if sha256 in known:
                raise InputError(f"{source.path}: same content as {known[sha256]}")
            cache = partial / hashlib.sha256(f"{sha256} {cache_key}".encode()).hexdigest()
            video = encode_video(source.path, cache, codec, deadline_seconds=deadline_seconds, **encoding)
            known[sha256] = source.name
            outcomes.append(Encoded(source=source, sha256=sha256, video=video))
        except InputError as error:
            outcomes.append(Encoded(source=source, reason=str(error).removeprefix(f"{source.path}: ")))
        meter.report(outcomes[-1], time.monotonic() - started)
    if not known:
        with contextlib.suppress(OSError):  # absent, or the cache of a run with other settings
            partial.rmdir()
        reasons = "; ".join(f"{outcome.source.name}: {outcome.reason}" for outcome in outcomes[:3])
        raise InputError(f"{input_dir}: not one of {len(sources)} video files can be used ({reasons}); add videos")
    return _assemble(output_dir, partial, codec, encoders, settings, outcomes, progress)


def assign_splits(hashes: Sequence[str], validation_fraction: float, seed: int) -> dict[str, str]:
    """`train` or `validation` for each video, by a number in [0, 1) drawn from the seed and its content hash.

    A video is held out when its number is below the fraction. Where that leaves a side empty, the video with the lowest
    number is held out, and the one with the highest is trained on; a fraction of 0, or a single video, holds out none.
    """
    drawn = {h: int(hashlib.sha256(f"{seed} {h}".encode()).hexdigest()[:16], 16) / 2**64 for h in hashes}
    ranked = sorted(drawn, key=lambda h: drawn[h])
    below = sum(number < validation_fraction for number in drawn.values())
    least = 1 if validation_fraction > 0 else 0
    held_out = set(ranked[: min(max(below, least), len(ranked) - 1)])
    return {h: "validation" if h in held_out else "train" for h in hashes}


def _assemble(
    output_dir: Path,
    partial: Path,
    codec: Codec,
    encoders: PretrainedEncoders | None,
    settings: dict[str, Any],
    outcomes: Sequence[Encoded],
    progress: Callable[[str], None],
) -> dict[str, Any]:
    """Records, `dataset.json` and the report in a directory of their own, then into place."""
    used = [(outcome, outcome.video) for outcome in outcomes if outcome.video is not None]
    sides = assign_splits([o.sha256 for o, _ in used], settings["validation_fraction"], settings["seed"])
    by_split = {side: [(o, v) for o, v in used if sides[o.sha256] == side] for side in SPLITS}
    by_split = {side: videos for side, videos in by_split.items() if videos}
    progress(f"writing {sum(len(video) for _, video in used)} clips of {len(used)} videos to {output_dir}")

    def records(side: str) -> Iterator[dict[str, Any]]:
        for outcome, video in by_split[side]:
            for number, clip_id in enumerate(outcome.clip_ids()):
                yield {
                    "id": clip_id,
                    "source": outcome.source.name,
                    "caption": outcome.source.caption,
                    "fps": settings["fps"],
                    "latents": video.load(number),
                }

    build = partial / "build"
    shutil.rmtree(build, ignore_errors=True)
    latent_shape = used[0][1].load(0).shape[1:]
    finished = write_records(build, latent_shape=latent_shape, splits=tuple(by_split), records=records)
    mean, std = _statistics([video for _, video in by_split["train"]])
    psnr = {clip_id: round(value, 3) for o, v in used for clip_id, value in zip(o.clip_ids(), v.psnr, strict=True)}
    description = {
        "format": FORMAT,
        "version": FORMAT_VERSION,
        "codec": codec.with_normalisation(mean, std).spec(),
        **{key: settings[key] for key in ("fps", "height", "width", "segment_frames", "max_segments")},
        "splits": {
            side: {
                "videos": len(videos),
                "clips": sum(len(video) for _, video in videos),
                "segments": sum((t - 1) // settings["segment_frames"] for _, v in videos for t in v.latent_frames),
            }
            for side, videos in by_split.items()
        },
        "psnr": {"mean": round(sum(psnr.values()) / len(psnr), 3), "clips": psnr},
        "sources": [{"file": o.source.name, "sha256": o.sha256, "split": sides[o.sha256]} for o, _ in used],
        "settings": settings,
    }
    report = {
        "files": len(outcomes),
        "used": len(used),
        "seconds": round(sum(video.seconds for _, video in used), 3),
        "videos": [_report_entry(outcome, sides) for outcome in outcomes],
    }
    if encoders is not None:
        _embed(encoders, finished, used, progress)
    (finished / DATASET_FILE).write_text(_dump(description))
    (finished / REPORT_FILE).write_text(_dump(report))
    finished.replace(output_dir)
    shutil.rmtree(partial)
    return description


def _embed(
    encoders: PretrainedEncoders,
    dataset: Path,
    used: Sequence[tuple[Encoded, CachedVideo]],
    progress: Callable[[str], None],
) -> None:
    """Captions and first frames; what the encoders have seen in an earlier run comes from their cache."""
    embeddings = DatasetEmbeddings(dataset)
    meter = Progress(0, sum(len(video) for _, video in used), progress)
    count = 0
    for outcome, video in used:
        for number, clip in enumerate(outcome.clip_ids()):
            embeddings.add(encoders, clip, outcome.source.caption, video.first_frame(number))
            count += 1
        meter.update(count, f"embeddings of {outcome.source.name}")


def _statistics(videos: Sequence[CachedVideo]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of every channel over all raw latents, in float64, one clip in memory at a time."""
    count, total, squares = 0, np.zeros(()), np.zeros(())
    for video in videos:
        for number in range(len(video)):
            latents = video.load(number).astype(np.float64)
            count += latents[..., 0].size
            total = total + latents.sum((0, 1, 2))
            squares = squares + np.square(latents).sum((0, 1, 2))
    mean = total / count
    std = np.sqrt(np.maximum(squares / count - np.square(mean), 0))
    return tuple(mean.tolist()), tuple(np.where(std < LEAST_STD, 1.0, std).tolist())


def _finished_already(output_dir: Path, settings: dict[str, Any], progress: Callable[[str], None]) -> dict[str, Any]:
    if not (output_dir / DATASET_FILE).is_file():
        raise InputError(f"{output_dir}: exists already and is no dataset; choose another output directory")
    description = read_description(output_dir)
    for key, value in settings.items():
        before = description["settings"].get(key)
        if before != value:
            what = "other input files or captions" if key == "inputs" else f"{key}={before} (asked for: {value})"
            raise InputError(f"{output_dir}: already holds a dataset made with {what}; choose another output directory")
    progress(f"{output_dir}: finished already")
    return description


def _report_entry(outcome: Encoded, sides: dict[str, str]) -> dict[str, Any]:
    if outcome.video is None:
        return {"file": outcome.source.name, "used": False, "reason": outcome.reason}
    entry = {
        "file": outcome.source.name,
        "used": True,
        "split": sides[outcome.sha256],
        "windows": len(outcome.video),
        "seconds": outcome.video.seconds,
        "psnr": round(outcome.mean_psnr(), 3),
    }
    return entry | ({"note": outcome.video.note} if outcome.video.note else {})


def _dump(value: Any) -> str:
    return json.dumps(value, indent=1, sort_keys=True) + "\n"


class _Meter:
    """Says after each file how far the run is; the time left is reckoned by bytes."""

    def __init__(self, sources: Sequence[Source], progress: Callable[[str], None]):
        self._progress, self._files, self._done = progress, len(sources), 0
        self._bytes_left = sum(source.bytes for source in sources)
        self._bytes_done, self._seconds = 0, 0.0

    def report(self, outcome: Encoded, seconds: float) -> None:
        self._done += 1
        self._seconds += seconds
        self._bytes_done += outcome.source.bytes
        self._bytes_left -= outcome.source.bytes
        rate = max(self._bytes_done, 1) / max(self._seconds, 1e-9)
        what = f"skipped: {outcome.reason}"
        if outcome.video is not None:
            what = f"{len(outcome.video)} clips, {outcome.mean_psnr():.1f} dB"
        self._progress(
            f"[{self._done}/{self._files}] {outcome.source.name}: {what}; "
            f"{self._done / max(self._seconds, 1e-9):.2f} files/s, {self._bytes_left / rate:.0f} s left"
        )
