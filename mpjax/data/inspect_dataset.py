"""A finished dataset at a glance: `data inspect` on what `encode` wrote, with frames decoded from its latents."""

from pathlib import Path

import numpy as np

from mpjax import codecs
from mpjax.data.filmstrip import to_uint8
from mpjax.data.latents import LatentDataset, LatentSource, open_dataset
from mpjax.data.raw.clip import CLIPS_FILE, read_clips
from mpjax.data.raw.inspection import THUMBNAILS, Inspection


def inspect_dataset(path: Path) -> Inspection:
    """Counts and captions from the list of clips, and first frames of records that are spread over every split.

    Raises:
        InputError: no finished dataset, or its codec's weights are gone.
    """
    dataset = open_dataset(path)
    found = Inspection(place=str(path))
    for clip in read_clips(path / CLIPS_FILE):
        found.add(clip.source_hash, clip.frames / clip.fps, clip.caption, clip.bucket, [clip.segments])
    for split, index in dataset.index.items():
        source = dataset.source(split)
        count = min(THUMBNAILS // len(dataset.index), len(index))
        for i in np.linspace(0, len(index) - 1, count).round().astype(int).tolist():
            frame, name = _first_frame(dataset, source, i)
            label = f"{split}: {name}, {index.segments[i]} segments, {index.psnr[i]:.1f} dB"
            found.thumbnails.append((frame, label))
    return found


def _first_frame(dataset: LatentDataset, source: LatentSource, i: int) -> tuple[np.ndarray, str]:
    """The first frame of a record as the codec shows it, uint8 `[H, W, 3]`, and the name of its video."""
    record = source[i]
    latents = codecs.normalise(dataset.codec, record["latents"][:1])
    return to_uint8(dataset.codec.decode(latents[None])[0, 0]), record["source"]
