"""From clips that were encoded to a finished dataset: the order of records, their shards, statistics and side files."""

import functools
import hashlib
import itertools
import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from mpjax.conditioning.cache import ArrayCache
from mpjax.data.clip_encoding import ClipEncoder, Measures
from mpjax.data.latents import DATASET_FILE, EMPTY_PROMPT_FILE, FORMAT, FORMAT_VERSION, INDEX_FILE
from mpjax.data.raw.clip import CLIPS_FILE, Clip, write_clips
from mpjax.data.records import EMBEDDINGS, Shard, features, write_shards

SPLITS = ("train", "validation")
# A shard is closed when its latents are about as large: few enough files, and small enough to be made in memory.
SHARD_BYTES = 256 << 20
# Below this a channel is constant in the whole train split; dividing by it would only enlarge rounding.
LEAST_STD = 1e-6


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


def in_order(clips: Sequence[Clip]) -> list[Clip]:
    """Clips in the order of their records: by picture size, segments, name of the video and time."""
    return sorted(clips, key=lambda clip: (clip.bucket, clip.segments, clip.name, clip.start, clip.id))


def assemble(
    build: Path,
    cache_folder: Path,
    encoder: ClipEncoder,
    settings: Mapping[str, Any],
    clips: Sequence[Clip],
    *,
    beam_options: Any = None,
) -> tuple[Path, dict[str, Any]]:
    """Writes a dataset of encoded clips.

    Args:
        build: folder to build in; what an earlier run left there is removed.
        cache_folder: holds everything of every clip.
        encoder: what filled it.
        settings: `fps`, `max_segments`, `validation_fraction`, `seed`, and whatever else decided the dataset.
        clips: in any order, none twice.
        beam_options: see `records.write_shards`.

    Returns:
        the directory, complete but for the report, and the contents of its `dataset.json`.
    """
    cache = ArrayCache(cache_folder)
    sides = assign_splits([clip.source_hash for clip in clips], settings["validation_fraction"], settings["seed"])
    by_split = {side: in_order([clip for clip in clips if sides[clip.source_hash] == side]) for side in SPLITS}
    by_split = {side: found for side, found in by_split.items() if found}
    measures = {side: [encoder.measures(clip, cache) for clip in found] for side, found in by_split.items()}
    first = encoder.record(clips[0], cache)
    widths = {name: first[name].shape[-1] for name in EMBEDDINGS if name in first}

    shutil.rmtree(build, ignore_errors=True)
    finished = write_shards(
        build,
        stored=features(encoder.codec.channels, widths),
        shards={side: _shards(encoder, cache_folder, found) for side, found in by_split.items()},
        beam_options=beam_options,
    )
    mean, std = _statistics(measures["train"])
    errors = [m.psnr for found in measures.values() for m in found]
    description = {
        "format": FORMAT,
        "version": FORMAT_VERSION,
        "codec": encoder.codec.with_normalisation(mean, std).spec(),
        "codec_id": encoder.codec_id,
        "fps": settings["fps"],
        "segment_frames": encoder.segment_frames,
        "max_segments": settings["max_segments"],
        "embedding_widths": widths,
        "splits": {side: _summary(found) for side, found in by_split.items()},
        "psnr": round(sum(errors) / len(errors), 3),
        "settings": dict(settings),
    }
    index = {
        side: {
            "id": [clip.id for clip in found],
            "height": [clip.bucket[0] for clip in found],
            "width": [clip.bucket[1] for clip in found],
            "segments": [clip.segments for clip in found],
            "psnr": [round(m.psnr, 3) for m in measures[side]],
        }
        for side, found in by_split.items()
    }
    if encoder.encoders is not None:
        save_file(encoder.empty_prompt(cache), finished / EMPTY_PROMPT_FILE)
    write_clips(finished / CLIPS_FILE, itertools.chain.from_iterable(by_split.values()))
    (finished / INDEX_FILE).write_text(json.dumps(index) + "\n")
    (finished / DATASET_FILE).write_text(dump(description))
    return finished, description


def dump(value: Any) -> str:
    """JSON for a file that people read."""
    return json.dumps(value, indent=1, sort_keys=True) + "\n"


def _shards(encoder: ClipEncoder, cache: Path, clips: Sequence[Clip]) -> list[tuple[int, Shard]]:
    """Consecutive clips, as many as fill a shard."""
    shards: list[list[Clip]] = [[]]
    size = 0
    for clip in clips:
        if size >= SHARD_BYTES:
            shards.append([])
            size = 0
        shards[-1].append(clip)
        size += 2 * encoder.codec.channels * encoder.cells(clip)
    return [(len(shard), functools.partial(_records, encoder, cache, shard)) for shard in shards]


def _records(encoder: ClipEncoder, cache: Path, clips: Sequence[Clip]) -> Iterator[dict[str, Any]]:
    return (encoder.record(clip, ArrayCache(cache)) for clip in clips)


def _summary(clips: Sequence[Clip]) -> dict[str, Any]:
    return {
        "videos": len({clip.source_hash for clip in clips}),
        "clips": len(clips),
        "segments": sum(clip.segments for clip in clips),
        "seconds": round(sum(clip.frames / clip.fps for clip in clips), 3),
    }


def _statistics(measures: Sequence[Measures]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of every channel over all raw latents, in float64."""
    count = sum(m.count for m in measures)
    mean = sum(m.total for m in measures) / count
    square = sum(m.squares for m in measures) / count
    std = np.sqrt(np.maximum(square - np.square(mean), 0))
    return tuple(np.asarray(mean).tolist()), tuple(np.where(std < LEAST_STD, 1.0, std).tolist())
