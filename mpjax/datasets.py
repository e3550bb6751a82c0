"""From an experiment's `data` section to batches and their codec."""

import dataclasses
import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import grain

from mpjax import codecs
from mpjax.data import clip_batches, latents
from mpjax.data.embeddings import DatasetEmbeddings
from mpjax.data.pipeline import remapped
from mpjax.data.recallworld.batches import batches as recallworld_batches
from mpjax.errors import InputError
from mpjax.experiment import Experiment, RecallWorldData
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
        return Datasets(
            train=in_order(recallworld_batches(data.world, split="train", segments_at=curriculum, **common)),
            validation=recallworld_batches(data.world, split="validation", segments_at=everything, **common),
            codec=codecs.create("identity"),
            fps=float(data.world.fps),
            height=size,
            width=size,
        )
    dataset = latents.open_dataset(Path(data.path))
    wanted = {
        "codec.channels": (dataset.codec.channels, data.channels),
        "codec.time_factor": (dataset.codec.time_factor, data.time_factor),
        "codec.space_factor": (dataset.codec.space_factor, data.space_factor),
        "segment_frames": (dataset.segment_frames, experiment.model.framepack.segment_frames),
        "fps": (dataset.fps, data.fps),
        "height": (dataset.height, data.height),
        "width": (dataset.width, data.width),
    }
    for name, (stored, asked) in wanted.items():
        if stored != asked:
            raise InputError(
                f"{data.path} was encoded with {name} = {stored}, but the config asks for {asked}: encode again"
            )
    encoders = experiment.model.encoders
    if encoders is None:
        _check_widths(dataset, experiment.model)
    common = {**shape, "prompt_bytes": None if encoders is None else encoders.prompt_bytes}
    validation = None
    if "validation" in dataset.counts:
        validation = clip_batches.batches(dataset, split="validation", segments_at=everything, **common)
    return Datasets(
        train=in_order(clip_batches.batches(dataset, split="train", segments_at=curriculum, **common)),
        validation=validation,
        codec=dataset.codec,
        fps=float(dataset.fps),
        height=dataset.height,
        width=dataset.width,
        max_segments=dataset.max_segments,
    )


def _check_widths(dataset: latents.LatentDataset, model: Architecture) -> None:
    """Embeddings of another width would train a network that is not the config's."""
    embeddings = DatasetEmbeddings.of(dataset.path)
    record = dataset.source(next(iter(dataset.counts)))[0]
    stored = embeddings.condition(record["id"], record["caption"])
    for name, width in model.embedding_widths.items():
        if (found := stored[name].shape[-1]) != width:
            raise InputError(
                f"{dataset.path} has {name} embeddings of width {found}, but model.{name}_width is {width}: "
                "make them equal, or encode with other data.encoders"
            )
