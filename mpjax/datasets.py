"""From an experiment's `data` section to batches and their codec."""

import dataclasses
import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import grain
import numpy as np

from mpjax import codecs
from mpjax.data import clip_batches, latents
from mpjax.data.clip_batches import Weighted
from mpjax.data.pipeline import remapped
from mpjax.data.recallworld.batches import batches as recallworld_batches
from mpjax.errors import InputError
from mpjax.experiment import ClipsData, Experiment, MixedDataset, RecallWorldData
from mpjax.models.architecture import Architecture
from mpjax.training.curriculum import batch_at, segments_at


@dataclasses.dataclass(frozen=True, kw_only=True)
class Datasets:
    """Endless batch datasets and what turns their latents into frames.

    Attributes:
        train: element n is the batch of update n.
        validation: element n is batch n, of videos that are never trained on. None: nothing is held out.
        codec: latents ↔ pixels.
        fps: frames per second.
        height, width: pixels.
        max_segments: segments of the longest videos; None: as many as are asked for.
    """

    train: grain.MapDataset
    validation: grain.MapDataset | None
    codec: codecs.Codec
    fps: float
    height: int
    width: int
    max_segments: int | None = None


def open_datasets(experiment: Experiment, rows: Sequence[int] | None = None) -> Datasets:
    """Opens the data of an experiment; validation batches have the full number of segments at every step.

    Args:
        experiment: what it is for.
        rows: of every batch, those that this process needs; batches then have only these (default: all).

    Raises:
        InputError: a dataset is missing or does not fit the model.
    """
    training, data = experiment.training, experiment.data

    def curriculum(step: int) -> int:
        return segments_at(training.stages, step)

    def everything(step: int) -> int:
        del step
        return training.segments

    def in_order(train: grain.MapDataset) -> grain.MapDataset:
        if all(stage.repeat == 1 for stage in training.stages):
            return train
        return remapped(train, functools.partial(batch_at, training.stages))

    shape: dict[str, Any] = {"batch_size": training.batch_size, "segments": training.segments, "seed": experiment.seed}
    shape["rows"] = rows
    if isinstance(data, RecallWorldData):
        common = {**shape, "return_focus": data.return_focus, "given": 0}
        size = data.world.frame_size
        train = recallworld_batches(data.world, split="train", segments_at=curriculum, **common)
        validation = recallworld_batches(data.world, split="validation", segments_at=everything, **common)
        return Datasets(
            train=in_order(train),
            validation=validation,
            codec=codecs.create("identity"),
            fps=float(data.world.fps),
            height=size,
            width=size,
        )
    mixture, codec = _open_mixture(data, experiment)
    encoders = experiment.model.encoders
    if encoders is None:
        for member in mixture:
            _check_widths(member.dataset, experiment.model)
    common = {**shape, "codec": codec, "prompt_bytes": None if encoders is None else encoders.prompt_bytes}
    held_out = None
    if any("validation" in member.dataset.index for member in mixture):
        held_out = clip_batches.batches(mixture, split="validation", segments_at=everything, **common)
    train = clip_batches.batches(
        mixture, split="train", segments_at=curriculum, text_dropout=data.text_dropout, **common
    )
    return Datasets(
        train=in_order(train),
        validation=held_out,
        codec=codec,
        fps=float(data.fps),
        height=data.height,
        width=data.width,
        max_segments=max(member.dataset.max_segments for member in mixture),
    )


def _open_mixture(data: ClipsData, experiment: Experiment) -> tuple[list[Weighted], codecs.Codec]:
    """The datasets to train on, and their codec with the normalisation of all of them together."""
    paths = data.mixture or (MixedDataset(path=data.path),)
    mixture = [Weighted(dataset=latents.open_dataset(Path(entry.path)), weight=entry.weight) for entry in paths]
    first = mixture[0].dataset
    for dataset in (member.dataset for member in mixture):
        wanted = {
            "codec.channels": (dataset.codec.channels, data.channels),
            "codec.time_factor": (dataset.codec.time_factor, data.time_factor),
            "codec.space_factor": (dataset.codec.space_factor, data.space_factor),
            "segment_frames": (dataset.segment_frames, experiment.model.framepack.segment_frames),
            "fps": (dataset.fps, data.fps),
        }
        for name, (stored, asked) in wanted.items():
            if stored != asked:
                raise InputError(
                    f"{dataset.path} was encoded with {name} = {stored}, but the config asks for {asked}: encode again"
                )
        for height, width in dataset.sizes():
            if (height, width) not in data.sizes:
                sizes = ", ".join(f"{h}×{w}" for h, w in data.sizes)
                raise InputError(
                    f"{dataset.path} was encoded with clips of {height}×{width}, but the config asks for {sizes}: "
                    "encode again, or set data.height and data.width, or data.buckets"
                )
        if dataset.codec_id != first.codec_id:
            raise InputError(
                f"{dataset.path} was encoded by {dataset.codec_id}, {first.path} by {first.codec_id}: encode one again"
            )
    return mixture, _pooled([member.dataset.codec for member in mixture], [member.weight for member in mixture])


def _pooled(encoded: Sequence[codecs.Codec], weights: Sequence[float]) -> codecs.Codec:
    """The first codec with the mean and standard deviation of a mixture of latents: E x and √(E x² − (E x)²)."""
    first = encoded[0]
    if len(encoded) == 1 or not first.mean:
        return first
    share = np.array(weights)[:, None] / sum(weights)
    mean, std = np.array([codec.mean for codec in encoded]), np.array([codec.std for codec in encoded])
    pooled = (share * mean).sum(0)
    square = (share * (np.square(std) + np.square(mean))).sum(0)
    return first.with_normalisation(tuple(pooled.tolist()), tuple(np.sqrt(square - np.square(pooled)).tolist()))


def _check_widths(dataset: latents.LatentDataset, model: Architecture) -> None:
    """Embeddings of another width would train a network that is not the config's."""
    if not dataset.embedding_widths:
        raise InputError(f"{dataset.path} holds no embeddings: encode the videos again, with data.encoders")
    for name, width in model.embedding_widths.items():
        if (found := dataset.embedding_widths[name]) != width:
            raise InputError(
                f"{dataset.path} has {name} embeddings of width {found}, but model.{name}_width is {width}: "
                "make them equal, or encode with other data.encoders"
            )
