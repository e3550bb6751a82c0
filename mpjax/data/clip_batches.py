"""Training batches out of a dataset of latent clips: element `step` is a pure function of (seed, step)."""

from collections.abc import Callable, Sequence
from typing import Any

import grain
import jax
import numpy as np

from mpjax import codecs
from mpjax.conditioning.tokens import encode_prompt
from mpjax.data.batch import Batch
from mpjax.data.embeddings import DatasetEmbeddings
from mpjax.data.latents import LatentDataset
from mpjax.data.pipeline import remapped
from mpjax.errors import InputError
from mpjax.models.encoders import Condition


def batches(
    dataset: LatentDataset,
    *,
    split: str,
    batch_size: int,
    segments: int,
    seed: int,
    segments_at: Callable[[int], int],
    prompt_bytes: int | None,
    rows: Sequence[int] | None = None,
) -> grain.MapDataset:
    """An endless map dataset of `Batch` with numpy leaves, latents normalised by the dataset's codec.

    `ds[step]` is the batch of a step and `ds[step:]` resumes there; there is no iterator state to save. Clips are
    shuffled anew in every pass and passes follow each other without a gap, so a batch may be larger than the split.

    A clip's first frame is the reference. Of its segments the first `segments` are taken, since only the first frame of
    a clip was encoded on its own; encode with `max_segments` equal to the `segments` of training to use every frame.
    Where a clip has fewer, zeros of weight 0 follow. The clip's caption is the prompt of the whole video, `[b, 1, …]`;
    one longer than `prompt_bytes` is cut at the last whole character.

    Args:
        dataset: see `latents.open_dataset`.
        split: `train` or `validation`.
        batch_size: clips b of a batch.
        segments: segments s of an example, the longest the curriculum reaches.
        seed: of the order.
        segments_at: step -> how many segments train at this step (the curriculum); the weight of later ones is 0.
        prompt_bytes: length l of the prompts; None: the embeddings that the dataset holds, a `Condition`.
        rows: clips of each batch that are read, 0..batch_size-1 (default: all); an element then has only these.

    Raises:
        InputError: no such split, a size below 1, or no embeddings.
    """
    for name, value in (("batch_size", batch_size), ("segments", segments)):
        if value < 1:
            raise InputError(f"{name} is {value}: give at least 1")
    embeddings = DatasetEmbeddings.of(dataset.path) if prompt_bytes is None else None

    def to_example(record: dict[str, Any]) -> dict[str, Any]:
        latents = codecs.normalise(dataset.codec, record["latents"])
        frames, *cell = dataset.segment_frames, *latents.shape[1:]
        count = min(segments, (len(latents) - 1) // frames)
        padded = np.zeros((segments, frames, *cell), np.float32)
        padded[:count] = latents[1 : 1 + count * frames].reshape(count, frames, *cell)
        if embeddings is not None:
            prompt: Any = embeddings.condition(record["id"], record["caption"])
        else:
            assert prompt_bytes is not None
            prompt = encode_prompt(cut_prompt(record["caption"], prompt_bytes), prompt_bytes)
        return {
            "reference": latents[:1],
            "segments": padded,
            "prompts": jax.tree.map(lambda x: x[None], prompt),
            "weight": (np.arange(segments) < count).astype(np.float32),
        }

    def to_batch(step: int, columns: dict[str, Any]) -> Batch:
        active = np.arange(segments) < segments_at(step)
        prompts = columns["prompts"]
        if isinstance(prompts, dict):
            prompts = Condition(**prompts)
        weight = columns["weight"] * active.astype(np.float32)
        return Batch(reference=columns["reference"], segments=columns["segments"], prompts=prompts, weight=weight)

    source = dataset.source(split)
    clips = grain.MapDataset.source(source).seed(seed).shuffle().repeat()
    if rows is not None:
        chosen = tuple(rows)
        clips = remapped(clips, lambda n: n // len(chosen) * batch_size + chosen[n % len(chosen)])
    size = batch_size if rows is None else len(rows)
    return clips.map(to_example).batch(size, drop_remainder=True).map_with_index(to_batch)


def cut_prompt(prompt: str, length: int) -> str:
    """The longest prefix of whole characters that fits into `length` bytes of UTF-8."""
    return prompt.encode("utf-8")[:length].decode("utf-8", "ignore")
