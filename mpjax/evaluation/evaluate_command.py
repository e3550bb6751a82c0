"""The verb `evaluate`: metrics of videos, as tables and files."""

import argparse
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from mpjax import provenance
from mpjax.errors import InputError
from mpjax.evaluation.metrics.companions import COMPANIONS
from mpjax.evaluation.metrics.kept_scores import KeptScores, content_of
from mpjax.evaluation.metrics.metric import Score, measure
from mpjax.evaluation.metrics.pool import pool
from mpjax.evaluation.metrics.registry import Offer, choose
from mpjax.evaluation.metrics.score_files import write_scores
from mpjax.evaluation.metrics.videos import Video, find_image, find_videos, open_video, with_segments
from mpjax.evaluation.vbench.offers import VBENCH
from mpjax.markup import counted
from mpjax.whole_files import check_folder

Say = Callable[[str], None]
T = TypeVar("T")

OFFERS: tuple[Offer, ...] = (*VBENCH, *COMPANIONS)

SOURCES = (
    "data/decoding.py",
    "data/media.py",
    "data/stored_frames.py",
    "data/video.py",
    "evaluation/metrics",
    "evaluation/statistics.py",
    "evaluation/vbench",
    "interop/checkpoint_files.py",
    "interop/tensor_pickle.py",
    "interop/torch_files.py",
)
"""The code that a score depends on: scores of other code are not mixed with new ones."""


def evaluate(args: argparse.Namespace, say: Say = print) -> None:
    """Runs the verb; `args` are those of `__main__.parser`.

    What `args.out` holds of the same content and settings is not measured again, and what it holds besides stays.

    Raises:
        InputError: before any metric is computed.
    """
    for folder in (args.weights, args.images):
        if folder is not None and not folder.is_dir():
            raise InputError(f"{folder}: no such folder; check the path")
    check_folder(args.out)
    paths = find_videos(args.videos)
    images = {path: find_image(path, args.images) if args.images else None for path in paths}
    flags = {"--images": args.images, "--segment-frames": args.segment_frames}
    given = {flag for flag, value in flags.items() if value is not None}
    # Before the videos, which are decoded to their end: a missing file is said at once.
    metrics, left_out = choose(OFFERS, args.metrics, args.weights, given)
    names = {metric.name for metric in metrics}
    kept = KeptScores(
        args.out,
        {
            "code": provenance.sources(*SOURCES),
            "--backward": args.backward,
            "--segment-frames": args.segment_frames,
        },
        {offer.name: offer.digest(args.weights) for offer in OFFERS if offer.name in names},
    )
    contents = _each(paths, lambda path: content_of(path, images[path]))
    named = {str(path): content for path, content in contents.items()}
    kept.check_names(named)
    new = [path for path in paths if names - kept.of(contents[path]).keys()]
    videos = _each(new, lambda path: _open(path, images[path], args))
    for path, video in videos.items():
        done = kept.of(contents[path])
        if missing := [metric for metric in metrics if metric.name not in done]:
            kept.add(contents[path], measure(video, missing))
        say(f"{video.name}: {counted(video.frames, 'frame')}, {video.seconds:.1f} s")
    if len(videos) < len(paths):
        say(f"measured before: {counted(len(paths) - len(videos), 'video')}")
    kept.name(named)
    found = kept.by_video()
    scores = [score for of_video in found.values() for score in of_video.values()]
    left_out = {name: why for name, why in left_out.items() if any(name not in of_video for of_video in found.values())}
    write_scores(args.out, scores, left_out)
    say(table(scores, left_out))
    say(f"{args.out}: scores.json, scores.csv")


def _each(paths: Sequence[Path], read: Callable[[Path], T]) -> dict[Path, T]:
    """Path → what `read` says of it. Raises `InputError` with what is wrong with any of them, not the first alone."""
    found, wrong = {}, list[str]()
    for path in paths:
        try:
            found[path] = read(path)
        except InputError as error:
            wrong.append(str(error))
    if wrong:
        raise InputError("\n".join(dict.fromkeys(wrong)))
    return found


def _open(path: Path, image: Path | None, args: argparse.Namespace) -> Video:
    video = with_segments(open_video(path, image=image, backward=args.backward), args.segment_frames)
    if args.images and image is None:
        return dataclasses.replace(video, no_image=f"no picture in {args.images} is called {path.stem}")
    return video


def table(scores: Sequence[Score], left_out: Mapping[str, Sequence[str]]) -> str:
    """Pooled scores as lines of text, and what is missing."""
    lines = [f"{'metric':<38} {'videos':>8} {'value':>8} {'drift':>8}"]
    for row in pool(scores):
        name = row.metric if row.seconds is None else f"  {row.seconds} s"
        drift = "" if row.drift is None else f"{row.drift:.4f}"
        lines.append(f"{name:<38} {row.videos:>8} {row.value:>8.4f} {drift:>8}")
    reasons: dict[tuple[str, str], int] = {}
    for score in scores:
        if score.reason is not None:
            key = score.metric, score.reason
            reasons[key] = reasons.get(key, 0) + 1
    lines += [
        f"{metric}: not computed for {counted(count, 'video')}: {why}" for (metric, why), count in reasons.items()
    ]
    waiting: dict[str, list[str]] = {}
    for metric, lacks in left_out.items():
        for lack in lacks:
            waiting.setdefault(lack, []).append(metric)
    lines += [f"not computed without {lack}: {', '.join(metrics)}" for lack, metrics in waiting.items()]
    return "\n".join(lines)
