"""Finished datasets of latents without videos: records are what a test or a benchmark says they are."""

import json
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
from safetensors.numpy import save_file

from mpjax import codecs
from mpjax.data.latents import (
    DATASET_FILE,
    EMPTY_PROMPT_FILE,
    FORMAT,
    FORMAT_VERSION,
    INDEX_FILE,
    LatentDataset,
    open_dataset,
)
from mpjax.data.records import EMBEDDINGS, Shard, features, write_shards

BFLOAT16 = ml_dtypes.bfloat16


def record(
    clip: int,
    latents: np.ndarray,
    *,
    segment_frames: int,
    caption: str = "",
    space_factor: int = 1,
    **embeddings: np.ndarray,
) -> dict[str, Any]:
    """The record of a clip; `latents` `[1 + n f, h, w, c]`."""
    height, width = (space_factor * cells for cells in latents.shape[1:3])
    sizes = {"height": height, "width": width, "segments": (len(latents) - 1) // segment_frames}
    texts = {"id": f"{clip:026d}", "source": "s.mp4", "source_hash": "0" * 64, "caption": caption, "scores": "{}"}
    arrays = {name: array.astype(BFLOAT16) for name, array in {"latents": latents, **embeddings}.items()}
    return texts | sizes | {"fps": 12.0, "codec": "c"} | arrays


def write_dataset(
    folder: Path,
    splits: dict[str, list[dict[str, Any]]],
    *,
    segment_frames: int,
    mean: tuple[float, ...] = (),
    std: tuple[float, ...] = (),
    shard: int = 3,
    fps: float = 12.0,
    time_factor: int = 1,
    space_factor: int = 1,
    empty_prompt: dict[str, np.ndarray] | None = None,
) -> LatentDataset:
    """A finished dataset of records, in shards of `shard`."""
    first = next(iter(splits.values()))[0]
    channels, widths = first["latents"].shape[-1], {n: first[n].shape[-1] for n in EMBEDDINGS if n in first}

    def shards(found: list[dict[str, Any]]) -> list[tuple[int, Shard]]:
        parts = [found[i : i + shard] for i in range(0, len(found), shard)]
        return [(len(part), part.copy) for part in parts]

    path = write_shards(
        folder,
        stored=features(channels, widths),
        shards={split: shards(found) for split, found in splits.items()},
    )
    longest = max(r["segments"] for found in splits.values() for r in found)
    codec = codecs.create(
        "dct", time_factor=time_factor, space_factor=space_factor, channels=channels, mean=mean, std=std
    )
    description = {"format": FORMAT, "version": FORMAT_VERSION, "codec": codec.spec(), "codec_id": "c", "fps": fps}
    description |= {"segment_frames": segment_frames, "max_segments": longest, "embedding_widths": widths}
    (path / DATASET_FILE).write_text(json.dumps(description))
    columns = ("id", "height", "width", "segments")
    index = {
        split: {name: [r[name] for r in found] for name in columns} | {"psnr": [30.0] * len(found)}
        for split, found in splits.items()
    }
    (path / INDEX_FILE).write_text(json.dumps(index))
    if empty_prompt:
        save_file({name: array.astype(BFLOAT16) for name, array in empty_prompt.items()}, path / EMPTY_PROMPT_FILE)
    return open_dataset(path)
