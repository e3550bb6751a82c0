"""Training batches out of datasets of latent clips: element `step` is a pure function of (seed, step)."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import grain
import jax
import numpy as np

from mpjax import codecs
from mpjax.codecs import Codec
from mpjax.conditioning.pretrained import padded
from mpjax.conditioning.tokens import encode_prompt
from mpjax.data.batch import Batch
from mpjax.data.clip_order import ClipOrder, Selection, streams_of
from mpjax.data.latents import LatentDataset
from mpjax.errors import InputError
from mpjax.models.encoders import Condition

# Tells the draw of dropped prompts from the order of clips.
DROPOUT = 0x7E87


@dataclass(frozen=True, kw_only=True)
class Weighted:
    """A dataset of a mixture, and how often it is drawn from, relative to the others."""

    dataset: LatentDataset
    weight: float = 1.0

    def __post_init__(self):
        if not 0 < self.weight < float("inf"):
            raise InputError(f"{self.dataset.path} has weight {self.weight}: give a positive number")


def batches(
    mixture: Sequence[Weighted],
    *,
    split: str,
    codec: Codec,
    batch_size: int,
    segments: int,
    seed: int,
    segments_at: Callable[[int], int],
    prompt_bytes: int | None,
    text_dropout: float = 0.0,
    rows: Sequence[int] | None = None,
) -> grain.MapDataset:
    """An endless map dataset of `Batch` with numpy leaves, latents normalised by `codec`.

    `ds[step]` is the batch of a step and `ds[step:]` resumes there, on any number of hosts; there is no iterator state
    to save. `clip_order` says which clips a batch shows: of one dataset and one picture size, and of about one length.

    A clip's first frame is the reference. Of its segments the first `segments` are taken, since only the first frame of
    a clip was encoded on its own; encode with `max_segments` equal to the `segments` of training to use every frame.
    Where a clip has fewer, zeros of weight 0 follow. The clip's caption is the prompt of the whole video, `[b, 1, …]`;
    one longer than `prompt_bytes` is cut at the last whole character.

    Args:
        mixture: datasets of the same `codec_id`, fps and segment frames; those without the split are left out.
        split: `train` or `validation`.
        codec: whose normalisation all of them get.
        batch_size: clips b of a batch, over all hosts.
        segments: segments s of an example, the longest the curriculum reaches.
        seed: of the order.
        segments_at: step -> how many segments train at this step (the curriculum); the weight of later ones is 0.
        prompt_bytes: length l of the prompts; None: the embeddings that the datasets hold, a `Condition`.
        text_dropout: share of the clips that get the empty prompt, for classifier-free guidance; whose turn it is
            depends on (seed, step, row).
        rows: clips of each batch that are read, 0..batch_size-1 (default: all); an element then has only these.

    Raises:
        InputError: no such split in any dataset, a size below 1, a share outside [0, 1), or no embeddings.
    """
    for name, value in (("batch_size", batch_size), ("segments", segments)):
        if value < 1:
            raise InputError(f"{name} is {value}: give at least 1")
    if not 0 <= text_dropout < 1:
        raise InputError(f"text_dropout is {text_dropout}: give a share of at least 0 and below 1")
    members = [member for member in mixture if split in member.dataset.index]
    if not members:
        known = sorted({name for member in mixture for name in member.dataset.index})
        raise InputError(f"{mixture[0].dataset.path}: no split {split!r}; it has {', '.join(known)}")
    part = list(range(batch_size) if rows is None else rows)
    sources = [member.dataset.source(split) for member in members]
    empties = [_without_words(member.dataset, prompt_bytes) for member in members]
    indices = [member.dataset.index[split] for member in members]
    order = ClipOrder(
        streams_of([(index.height, index.width, index.segments) for index in indices], [m.weight for m in members]),
        batch_size=batch_size,
        seed=seed,
    )

    def read(step: int, selection: Selection) -> Batch:
        source, empty = sources[selection.dataset], empties[selection.dataset]
        drawn = np.random.default_rng([seed, DROPOUT, step]).random(batch_size)[part]
        frames = members[selection.dataset].dataset.segment_frames
        latents, prompts = _Latents(codec, len(drawn), segments, frames), []
        for row, (record, number) in enumerate(zip(selection.records[part], drawn, strict=True)):
            example = source[int(record)]
            latents.put(row, example["latents"])
            prompts.append(_prompt(example, prompt_bytes) if number >= text_dropout else empty(example))
        columns: Any = jax.tree.map(lambda *values: np.stack(values)[:, None], *prompts)
        return Batch(
            reference=latents.reference,
            segments=latents.segments,
            prompts=Condition(**columns) if isinstance(columns, dict) else columns,
            weight=latents.weight * (np.arange(segments) < segments_at(step)).astype(np.float32),
        )

    return grain.MapDataset.source(order).map_with_index(read)


class _Latents:
    """The arrays of a batch in the making; every latent is converted once, into its place."""

    def __init__(self, codec: Codec, rows: int, segments: int, frames: int):
        self._codec, self._rows, self._shape = codec, rows, (segments, frames)
        self.weight = np.zeros((rows, segments), np.float32)

    def put(self, row: int, latents: np.ndarray) -> None:
        """`latents` `[1 + n f, h, w, c]`, raw, become a row."""
        segments, frames = self._shape
        cell = latents.shape[1:]
        if row == 0:
            self.reference = np.empty((self._rows, 1, *cell), np.float32)
            self.segments = np.zeros((self._rows, segments, frames, *cell), np.float32)
        count = min(segments, (len(latents) - 1) // frames)
        codecs.normalise(self._codec, latents[:1], self.reference[row])
        shown = latents[1 : 1 + count * frames].reshape(count, frames, *cell)
        codecs.normalise(self._codec, shown, self.segments[row, :count])
        self.weight[row, :count] = 1


def _prompt(record: Mapping[str, Any], prompt_bytes: int | None) -> Any:
    """What a network reads of a record: bytes `[l]`, or the fields of a `Condition`."""
    if prompt_bytes is not None:
        return encode_prompt(cut_prompt(record["caption"], prompt_bytes), prompt_bytes)
    prompt = padded({name: record[name].astype(np.float32) for name in ("text", "pooled")})
    return prompt | {"image": record["image"].astype(np.float32)}


def _without_words(dataset: LatentDataset, prompt_bytes: int | None) -> Callable[[Mapping[str, Any]], Any]:
    """A function record → the prompt that it would have with an empty caption."""
    if prompt_bytes is None and not dataset.embedding_widths:
        raise InputError(f"{dataset.path} holds no embeddings: encode the videos again, with data.encoders")
    words = dataset.empty_prompt() if prompt_bytes is None else {"caption": ""}
    return lambda record: _prompt({**record, **words}, prompt_bytes)


def cut_prompt(prompt: str, length: int) -> str:
    """The longest prefix of whole characters that fits into `length` bytes of UTF-8."""
    return prompt.encode("utf-8")[:length].decode("utf-8", "ignore")
