"""Videos to a dataset of latent clips: resumable, reproducible, and sparing with memory.

1. Every clip is cut into consecutive ones of one reference frame and up to `max_segments` whole segments, and each of
   these becomes one record. Each starts the codec afresh. Memory holds the latents of one clip, and of pixels one
   segment and what the codec is behind, whatever the length of the video.
2. What a clip's record is made of stays in `<output>.partial/` under a hash of the video's content and of the settings,
   so a run that was interrupted repeats at most one clip.
3. All clips of a video fall on the same side of the train/validation split, drawn from the hash of the file: renaming
   files moves nothing, and adding some moves others only where a side would be empty.
4. The records are written in a fixed order, the normalisation is measured on the train split, and the finished
   directory is moved into place at once.

The same input, settings and library builds give the same bytes in every file of the dataset, here or through Beam.
"""

import contextlib
import hashlib
import shutil
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mpjax.codecs.base import check_video
from mpjax.conditioning.cache import ArrayCache
from mpjax.data import beam
from mpjax.data.assembly import assemble, assign_splits, dump
from mpjax.data.clip_encoding import ENCODER_VERSION, ClipEncoder, cut
from mpjax.data.clip_sources import find_sources
from mpjax.data.encode_report import REPORT_FILE, none_usable, report
from mpjax.data.folder_clips import Video, find_clips
from mpjax.data.latents import DATASET_FILE, read_description
from mpjax.data.raw.clip import Clip, read_clips
from mpjax.data.work_folder import work_folder, work_path
from mpjax.errors import InputError
from mpjax.progress import Progress, counted

Say = Callable[[str], None]


def encode_folder(
    input_dir: Path,
    output_dir: Path,
    *,
    encoder: ClipEncoder,
    fps: float,
    height: int,
    width: int,
    max_segments: int,
    **options: Any,
) -> dict[str, Any]:
    """Encodes every video under a folder, whole.

    Args:
        input_dir: searched recursively for videos and captions, see `clip_sources.find_sources`.
        output_dir, encoder, max_segments, **options: as `encode_videos`.
        fps: target rate of the pixel frames.
        height: target rows, a multiple of the codec's space factor.
        width: target columns, likewise.

    Returns:
        as `encode_videos`.

    Raises:
        InputError: as `encode_videos`.
    """
    if input_dir.is_file():
        raise InputError(
            f"{input_dir}: `encode` takes a folder of videos, or a clips.jsonl: write one from this file with "
            "`python -m mpjax data scan`"
        )
    if not fps > 0 or min(height, width) < 1:
        raise InputError(f"fps={fps}, height={height}, width={width}: all three must be positive")
    if encoder.segment_frames < 1:
        raise InputError(f"segment_frames is {encoder.segment_frames}: give at least 1")
    check_video(encoder.codec, np.empty((1, 1, height, width, 3), np.uint8))
    sources = find_sources(input_dir)

    def find(partial: Path, say: Say) -> Iterable[Video]:
        return find_clips(
            sources,
            partial / "videos",
            fps=fps,
            bucket=(height, width),
            segment_pixels=encoder.segment_pixels,
            max_segments=max_segments,
            deadline_seconds=encoder.deadline_seconds,
            progress=say,
        )

    inputs = [[source.name, source.bytes, source.caption] for source in sources]
    return encode_videos(
        input_dir,
        find,
        inputs,
        output_dir,
        encoder=encoder,
        fps=fps,
        sizes=[[height, width]],
        max_segments=max_segments,
        **options,
    )


def encode_list(path: Path, output_dir: Path, *, encoder: ClipEncoder, fps: float, **options: Any) -> dict[str, Any]:
    """Encodes the clips of a file that `raw.clip.write_clips` wrote; those that a filter left out stay out.

    Args:
        path: the file.
        output_dir, encoder, **options: as `encode_videos`.
        fps: that of all clips.

    Returns:
        as `encode_videos`.

    Raises:
        InputError: as `encode_videos`, or a clip has another rate, a size that the codec cannot take, or frames that
            make no whole number of segments.
    """
    clips = list(read_clips(path))
    by_name: dict[str, list[Clip]] = {}
    left_out: dict[str, str] = {}
    for clip in clips:
        if clip.fps != fps:
            raise InputError(f"{path}: {clip.id} has fps {clip.fps}, but data.fps is {fps}: make them equal")
        check_video(encoder.codec, np.empty((1, 1, *clip.bucket, 3), np.uint8))
        if clip.frames != 1 + clip.segments * encoder.segment_pixels:
            raise InputError(
                f"{path}: {clip.id} has {clip.frames} frames in {clip.segments} segments, but a segment of the model "
                f"has {encoder.segment_pixels}: write the file again for this config"
            )
        if clip.kept:
            by_name.setdefault(clip.name, []).append(clip)
        else:
            left_out[clip.name] = clip.reason
    videos = [Video(name=name, clips=tuple(found)) for name, found in by_name.items()]
    videos += [Video(name=name, reason=reason) for name, reason in left_out.items() if name not in by_name]
    sizes = sorted({clip.bucket for clip in clips if clip.kept})
    inputs = hashlib.sha256(path.read_bytes()).hexdigest()
    return encode_videos(
        path,
        lambda partial, say: videos,
        inputs,
        output_dir,
        encoder=encoder,
        fps=fps,
        sizes=[list(size) for size in sizes],
        **options,
    )


def encode_videos(
    origin: Path,
    find: Callable[[Path, Say], Iterable[Video]],
    inputs: Any,
    output_dir: Path,
    *,
    encoder: ClipEncoder,
    fps: float,
    sizes: list[list[int]],
    max_segments: int,
    validation_fraction: float = 0.1,
    seed: int = 0,
    beam_options: Any = None,
    progress: Say = print,
) -> dict[str, Any]:
    """Encodes clips and writes the dataset.

    Args:
        origin: where the clips are from, for messages.
        find: (folder for what it wants to remember, progress) → videos with their clips; called unless the dataset is
            finished.
        inputs: what the videos are, as JSON, to tell them from other ones.
        output_dir: the dataset; must not exist yet, be empty, or hold the dataset of the same call, which then returns
            at once.
        encoder: makes records; the normalisation of its codec must be empty.
        fps: of all clips.
        sizes: picture sizes that may occur.
        max_segments: segments of a clip at most; longer ones are cut.
        validation_fraction: expected share of the videos held out, see `assembly.assign_splits`.
        seed: of the hold-out draw.
        beam_options: `PipelineOptions` of the Beam pipeline that is to do the work; None works in this process.
        progress: receives a line now and then.

    Returns:
        the contents of `dataset.json`.

    Raises:
        InputError: settings that do not fit, encoders that cannot be run, no usable video (nothing is left behind
            then), or an `output_dir` that holds anything else or that another run is writing. A single unusable video
            is only reported, in `encode_report.json` and to `progress`.
    """
    for name, value in (("segment_frames", encoder.segment_frames), ("max_segments", max_segments)):
        if value < 1:
            raise InputError(f"{name} is {value}: give at least 1")
    if not 0 <= validation_fraction < 1:
        raise InputError(f"validation_fraction is {validation_fraction}: give a share of at least 0 and below 1")
    settings = {
        "encoder": ENCODER_VERSION,
        "codec": encoder.codec.spec(),
        "embeddings": None if encoder.encoders is None else encoder.encoders.identity,
        "segment_frames": encoder.segment_frames,
        "fps": float(fps),
        "sizes": sizes,
        "max_segments": max_segments,
        "validation_fraction": float(validation_fraction),
        "seed": seed,
        "inputs": hashlib.sha256(dump(inputs).encode()).hexdigest(),
    }
    if (description := _finished(output_dir, settings, progress)) is not None:
        return description
    if encoder.encoders is not None:
        encoder.encoders.check()
    with work_folder(output_dir, settings, progress) as partial:
        if (description := _finished(output_dir, settings, progress)) is not None:  # by another run, meanwhile
            return description
        videos = _without_duplicates(find(partial, progress), encoder.segment_pixels, max_segments)
        clips = [clip for video in videos for clip in video.clips]
        reasons = _encode(clips, encoder, partial / "cache", beam_options, progress)
        videos = [_without(video, reasons) for video in videos]
        clips = [clip for video in videos for clip in video.clips]
        if not clips:
            # What is left is nothing, or the cache of other videos.
            shutil.rmtree(partial / "videos", ignore_errors=True)
            for folder in (partial / "cache" / "failures", partial / "cache"):
                with contextlib.suppress(OSError):
                    folder.rmdir()
            raise InputError(f"{origin}: {none_usable(videos)}")
        used = sum(bool(video.clips) for video in videos)
        captioned = sum(bool(clip.caption) for clip in clips)
        what = f"{counted(len(clips), 'clip')} of {counted(used, 'video')}, {captioned} with captions"
        progress(f"writing {what}, to {output_dir}")
        finished, description = assemble(
            partial / "build", partial / "cache", encoder, settings, clips, beam_options=beam_options
        )
        sides = assign_splits([clip.source_hash for clip in clips], validation_fraction, seed)
        (finished / REPORT_FILE).write_text(dump(report(videos, sides)))
        finished.replace(output_dir)
    return description


def _without_duplicates(videos: Iterable[Video], segment_pixels: int, max_segments: int) -> list[Video]:
    """Clips cut to `max_segments`, each range of a content once: the first, with its caption."""
    known: dict[str, str] = {}
    result = []
    for video in videos:
        fresh, repeated = [], []
        for clip in video.clips:
            for piece in cut(clip, segment_pixels=segment_pixels, max_segments=max_segments):
                if piece.id in known:
                    repeated.append(piece)
                else:
                    known[piece.id] = video.name
                    fresh.append(piece)
        reason, note = video.reason, video.note
        if repeated and not fresh:
            reason = f"same content as {known[repeated[0].id]}"
        elif repeated:
            first = repeated[0]
            where = f"{first.start:.3f} to {first.end:.3f} s, same content as {known[first.id]}"
            note = _joined(note, f"{counted(len(repeated), 'clip')} left out, first: {where}")
        result.append(Video(name=video.name, clips=tuple(fresh), reason=reason, note=note))
    return result


def _joined(*notes: str) -> str:
    return "; ".join(note for note in notes if note)


def _encode(
    clips: Sequence[Clip], encoder: ClipEncoder, folder: Path, beam_options: Any, progress: Say
) -> dict[str, str]:
    """Fills the cache; by id, why a clip could not be encoded."""
    if encoder.encoders is not None and clips:
        encoder.empty_prompt(ArrayCache(folder))
    if beam_options is not None:
        return beam.encode_with_beam(clips, encoder, folder, beam_options)
    cache, reasons = ArrayCache(folder), {}
    meter = Progress(0, len(clips), progress)
    for number, clip in enumerate(clips, 1):
        try:
            encoder.encode(clip, cache)
        except InputError as error:
            reasons[clip.id] = str(error)
            progress(f"{clip.name}: {clip.id} skipped: {error}")
        meter.update(number, clip.name)
    return reasons


def _without(video: Video, reasons: dict[str, str]) -> Video:
    """The video without the clips that could not be encoded."""
    kept = tuple(clip for clip in video.clips if clip.id not in reasons)
    lost = [reasons[clip.id].removeprefix(f"{clip.media}: ") for clip in video.clips if clip.id in reasons]
    if not lost:
        return video
    if not kept:
        return Video(name=video.name, reason=lost[0])
    note = _joined(video.note, f"{counted(len(lost), 'clip')} could not be encoded, first: {lost[0]}")
    return Video(name=video.name, clips=kept, note=note)


def _finished(output_dir: Path, settings: dict[str, Any], progress: Say) -> dict[str, Any] | None:
    """The description of the finished dataset of these settings; None where there is nothing yet."""
    if not output_dir.exists() or (output_dir.is_dir() and not any(output_dir.iterdir())):
        return None
    if not (output_dir / DATASET_FILE).is_file():
        raise InputError(f"{output_dir}: exists already and is no dataset; choose another output directory")
    description = read_description(output_dir)
    for key, value in settings.items():
        before = description["settings"].get(key)
        if before != value:
            what = "other input files or captions" if key == "inputs" else f"{key}={before} (asked for: {value})"
            raise InputError(f"{output_dir}: already holds a dataset made with {what}; choose another output directory")
    shutil.rmtree(work_path(output_dir), ignore_errors=True)  # a kill came between the two last steps
    progress(f"{output_dir}: finished already")
    return description
